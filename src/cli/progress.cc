#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace rung::cli {
namespace {

constexpr int kBarWidth = 24;
constexpr double kAverageKeep = 0.9;
// Plain lines: every step of a short run, about a hundred of a long one.
constexpr int64_t kPlainLines = 100;

std::string Duration(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

ProgressKind ParseProgress(const std::string& name) {
  if (name == "none") return ProgressKind::kNone;
  if (name == "plain") return ProgressKind::kPlain;
  if (name == "bar") return ProgressKind::kBar;
  return ::isatty(STDERR_FILENO) ? ProgressKind::kBar : ProgressKind::kPlain;
}

void Progress::EndLine() {
  if (open_line_) std::fputc('\n', stderr);
  open_line_ = false;
}

void Progress::Bar(double share, const std::string& text) {
  const int filled = static_cast<int>(share * kBarWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  bar.resize(kBarWidth, ' ');
  // Erase to the end of the line: the text before may have been longer.
  fmt::print(stderr, "\r[{}] {}\x1b[K", bar, text);
  std::fflush(stderr);
  open_line_ = true;
}

void Progress::Step(const train::StepReport& step) {
  average_loss_ = step.step == 1 || average_loss_ == 0.0
                      ? step.loss
                      : kAverageKeep * average_loss_ + (1.0 - kAverageKeep) * step.loss;
  if (kind_ == ProgressKind::kNone) return;
  const std::string text = fmt::format(
      "step {}/{}  loss {:.4f}  lr {:.2e}  {:.0f} tok/s  {:.0f} % of peak  left {}{}", step.step,
      step.total_steps, average_loss_, step.learning_rate, step.tokens_per_second, 100.0 * step.peak_share,
      Duration(step.seconds_left), step.skipped ? "  (skipped: not finite)" : "");
  if (kind_ == ProgressKind::kBar) {
    Bar(static_cast<double>(step.step) / static_cast<double>(step.total_steps), text);
    return;
  }
  const int64_t every = std::max<int64_t>(1, step.total_steps / kPlainLines);
  if (step.step % every == 0 || step.step == step.total_steps || step.step == 1)
    fmt::print(stderr, "{}\n", text);
}

void Progress::Eval(const train::EvalReport& eval) {
  if (kind_ == ProgressKind::kNone) return;
  EndLine();
  fmt::print(stderr,
             "eval at step {}: loss {:.4f} over {} target tokens of {} records, {:.1f} % of tokens right\n",
             eval.step, eval.loss, eval.targets, eval.records, 100.0 * eval.token_accuracy);
}

void Progress::Note(const std::string& line) {
  EndLine();
  fmt::print(stderr, "{}\n", line);
}

void Progress::Count(const char* what, size_t done, size_t total) {
  if (kind_ != ProgressKind::kBar || total == 0) return;
  Bar(static_cast<double>(done) / static_cast<double>(total), fmt::format("{} {}/{}", what, done, total));
}

}  // namespace rung::cli
