// What a person sees of a run: a bar on a terminal, plain lines elsewhere. Written to standard error.
#pragma once

#include <string>

#include "train/run.h"

namespace rung::cli {

enum class ProgressKind { kNone, kPlain, kBar };
// "none", "plain", "bar", "auto" (a bar on a terminal).
ProgressKind ParseProgress(const std::string& name);

class Progress {
 public:
  explicit Progress(ProgressKind kind) : kind_(kind) {}
  ~Progress() { EndLine(); }
  void Step(const train::StepReport& step);
  void Eval(const train::EvalReport& eval);
  void Note(const std::string& line);
  // A counted task without losses: "evaluating 120/500".
  void Count(const char* what, size_t done, size_t total);
  // Ends a bar, so that other text starts on a line of its own.
  void EndLine();

 private:
  void Bar(double share, const std::string& text);
  ProgressKind kind_;
  bool open_line_ = false;
  double average_loss_ = 0.0;  // exponential average, so that a person can read a trend
};

}  // namespace rung::cli
