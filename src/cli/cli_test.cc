// The command line as main() gets it: a mistake is named before anything runs.
#include "cli/cli.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "cli/test_support.h"

namespace rung::cli {
namespace {

TEST(CliTest, UnknownOptionComesBeforeMissingOnes) {
  const Outcome found = RunMain({"train", "--modle", "x"});
  EXPECT_EQ(found.code, ExitCode::kUsage);
  EXPECT_EQ(
      found.said,
      "rung train: --modle is not known here; did you mean --model? (rung train --help lists what is)\n");
}

TEST(CliTest, UnknownOptionOfANestedVerb) {
  const std::string expected =
      "rung bench step: --modle is not known here; did you mean --model? (rung bench step --help lists what "
      "is)\n";
  for (const std::string option : {"--modle", "--modle=x"}) {
    const Outcome found = RunMain({"bench", "step", "--tokens", "64", option, "x"});
    EXPECT_EQ(found.code, ExitCode::kUsage);
    EXPECT_EQ(found.said, expected);
  }
}

TEST(CliTest, OptionsBelongToTheirVerb) {
  // `step` has --tokens, `generate` and `bench` itself have not.
  EXPECT_TRUE(RunMain({"bench", "generate", "--tokens", "64"})
                  .said.starts_with("rung bench generate: --tokens is not known here"));
  EXPECT_TRUE(RunMain({"bench", "--tokens", "64", "step"}).said.starts_with("rung bench: --tokens is not"));
}

TEST(CliTest, UnknownVerbs) {
  Outcome found = RunMain({"trian"});
  EXPECT_EQ(found.code, ExitCode::kUsage);
  EXPECT_TRUE(found.said.starts_with("rung: trian is not a verb; did you mean train?")) << found.said;
  found = RunMain({"bench", "stpe"});
  EXPECT_EQ(found.code, ExitCode::kUsage);
  EXPECT_TRUE(found.said.starts_with("rung bench: stpe is not known here; did you mean step?")) << found.said;
}

TEST(CliTest, KnownOptionsPass) {
  EXPECT_EQ(RunMain({"version"}).code, ExitCode::kDone);
  EXPECT_EQ(RunMain({"bench", "step", "--help"}).code, ExitCode::kDone);
  // A missing required option is CLI11's to say.
  const Outcome found = RunMain({"bench", "step", "--tokens", "64"});
  EXPECT_EQ(found.code, ExitCode::kUsage);
  EXPECT_NE(found.said.find("--model"), std::string::npos) << found.said;
}

TEST(CliTest, AValueInOneWordMayBeEmpty) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--chat-template="}, {"--chat-template", ""}}) {
    std::vector<std::string> line = {"train", "--model", "m.gguf", "--data", "d.jsonl", "--out", "o"};
    line.insert(line.end(), words.begin(), words.end());
    const Outcome found = RunMain(line);
    EXPECT_EQ(found.code, ExitCode::kUsage);
    EXPECT_TRUE(found.said.starts_with("rung: --chat-template: empty: give a file")) << found.said;
  }
  EXPECT_NE(RunMain({"train", "--dry-run="}).code, ExitCode::kDone);
}

TEST(CliTest, MessagesDoNotSteerTheTerminal) {
  const Path folder = std::filesystem::temp_directory_path() / ("rung_cli_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  WriteTextFile(folder / "config.json", R"({"model_type": "\u001b[2J\u009b1m"})").OrThrow();
  const Outcome found = RunMain({"quantize", "--model", folder.string(), "--out", (folder / "out").string()});
  std::filesystem::remove_all(folder);
  EXPECT_EQ(found.code, ExitCode::kBadInput);
  EXPECT_NE(found.said.find("\"\\x1b[2J\\x9b1m\""), std::string::npos) << found.said;
  EXPECT_EQ(found.said.find('\x1b'), std::string::npos);
  EXPECT_TRUE(found.said.ends_with("\n"));
}

}  // namespace
}  // namespace rung::cli
