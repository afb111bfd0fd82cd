// Three kinds of failure, one way each:
//
//   a programmer's mistake   RUNG_CHECK      prints the condition and aborts
//   foreign bytes are wrong  Result<T>       the caller decides (result.h)
//   the run cannot go on     throw Error     caught once, in main, and turned into an exit code
//
// A message says what failed, where, and what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace rung {

// The process's exit codes. Documented in docs/exit-codes.md: do not renumber.
enum class ExitCode : int {
  kDone = 0,
  kFailed = 1,        // the run failed: disk full, a library refused
  kUsage = 2,         // command line or configuration
  kBadInput = 3,      // a model, data or adapter file is not what it should be
  kNoMemory = 4,      // the plan does not fit
  kNonFinite = 5,     // loss or gradient is NaN or infinite
  kInterrupted = 130  // SIGINT, after saving
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const char* message);

}  // namespace rung

// For mistakes of the program itself, in every build type. Never for user input.
#define RUNG_CHECK(condition, message) \
  ((condition) ? static_cast<void>(0) : ::rung::CheckFailed(__FILE__, __LINE__, #condition, message))
