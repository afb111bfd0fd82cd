// What a person sees of a run: a bar on a terminal, plain lines elsewhere. Written to standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "train/run.h"

namespace rung::cli {

enum class ProgressKind { kNone, kPlain, kBar };
// "none", "plain", "bar", "auto" (a bar on a terminal that can take back a line).
ProgressKind ParseProgress(const std::string& name);

// A bar and its text in at most `width` columns: the bar gives way first, then it is left out, then the text
// is cut. `text` is ASCII.
std::string BarLine(double share, const std::string& text, int width, bool color);

class Progress {
 public:
  explicit Progress(ProgressKind kind);
  ~Progress() { EndLine(); }
  void Step(const train::StepReport& step);
  void Eval(const train::EvalReport& eval);
  void Note(const std::string& line);
  // A counted task without losses: "evaluating 120/500".
  void Count(const char* what, size_t done, size_t total);
  // Bytes of a data set that are encoded: a bar, or a line every ten seconds; nothing of small ones.
  void Encoding(uint64_t done, uint64_t total);
  // Ends a bar, so that other text starts on a line of its own.
  void EndLine();

 private:
  void Bar(double share, const std::string& text);
  ProgressKind kind_;
  bool color_ = false;  // NO_COLOR (no-color.org) and terminals without it are respected
  bool open_line_ = false;
  std::optional<std::chrono::steady_clock::time_point> encoding_said_;
  // Exponential average, so that a person can read a trend. No number: no step's loss was one yet.
  double average_loss_ = std::numeric_limits<double>::quiet_NaN();
};

}  // namespace rung::cli
