// For tests of verbs: a folder of one's own, and a verb run as from the command line.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/test_support.h"
#include "cli/cli.h"
#include "cli/verb.h"
#include "io/test_support.h"

namespace rung::cli {

inline constexpr const char* kStories = "tests/data/models/stories260k/stories260K.gguf";
inline constexpr const char* kTrained = "tests/data/models/tinystories-656k";

// What the verb writes to standard output. Throws what the verb throws.
inline std::string RunVerb(Action (*add)(CLI::App&), std::vector<std::string> arguments) {
  CLI::App app;
  const Action action = add(app);
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  testing::internal::CaptureStdout();
  try {
    action();
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  return testing::internal::GetCapturedStdout();
}

// The exit code and message with which the verb ends.
inline std::pair<ExitCode, std::string> Refusal(Action (*add)(CLI::App&),
                                                const std::vector<std::string>& arguments) {
  try {
    RunVerb(add, arguments);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ExitCode::kDone, ""};
}

// What the whole program did with a command line.
struct Outcome {
  ExitCode code;
  std::string output, said;  // on standard output and on standard error
};

inline Outcome RunMain(std::vector<std::string> words) {
  words.insert(words.begin(), "rung");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = Main(static_cast<int>(argv.size()), argv.data());
  std::string output = testing::internal::GetCapturedStdout();
  return {static_cast<ExitCode>(code), std::move(output), testing::internal::GetCapturedStderr()};
}

}  // namespace rung::cli
