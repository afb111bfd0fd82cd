#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/text.h"
#include "cli/duration.h"
#include "cli/say.h"

namespace rung::cli {
namespace {

constexpr int kBarWidth = 24, kLeastBarWidth = 8;
constexpr int kUnknownWidth = 120;  // columns where standard error is no terminal
constexpr double kAverageKeep = 0.9;
// Plain lines: every step of a short run, about a hundred of a long one.
constexpr int64_t kPlainLines = 100;
// Less is encoded before a person has read the line.
constexpr uint64_t kEncodingBytes = uint64_t{16} << 20;
constexpr auto kEncodingEvery = std::chrono::seconds(10);

// Asked before every line: a terminal may be resized.
int TerminalWidth() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kUnknownWidth;
}

bool IsSet(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value != '\0';
}

bool IsDumb() {
  const char* term = std::getenv("TERM");
  return term && std::string_view(term) == "dumb";
}

// The sign of what is no number is nothing to show.
std::string Loss(double nats) { return std::isnan(nats) ? "nan" : fmt::format("{:.4f}", nats); }

}  // namespace

ProgressKind ParseProgress(const std::string& name) {
  if (name == "none") return ProgressKind::kNone;
  if (name == "plain") return ProgressKind::kPlain;
  if (name == "bar") return ProgressKind::kBar;
  return ::isatty(STDERR_FILENO) && !IsDumb() ? ProgressKind::kBar : ProgressKind::kPlain;
}

std::string BarLine(double share, const std::string& text, int width, bool color) {
  const auto length = static_cast<int>(text.size());
  const int bar = std::min(kBarWidth, width - length - 3);  // two brackets and a space
  if (bar < kLeastBarWidth) return text.substr(0, static_cast<size_t>(std::max(0, width)));
  const auto filled = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * bar);
  return fmt::format("[{}{}{}{}] {}", color ? "\x1b[32m" : "", std::string(filled, '='),
                     color ? "\x1b[0m" : "", std::string(static_cast<size_t>(bar) - filled, ' '), text);
}

Progress::Progress(ProgressKind kind)
    : kind_(kind), color_(::isatty(STDERR_FILENO) && !IsSet("NO_COLOR") && !IsDumb()) {}

void Progress::EndLine() {
  if (open_line_) SayText("\n");
  open_line_ = false;
}

void Progress::Bar(double share, const std::string& text) {
  // The last column stays free: some terminals go to the next line when it is written. Erase to the end of
  // the line: the text before may have been longer.
  Say("\r{}\x1b[K", BarLine(share, text, TerminalWidth() - 1, color_));
  open_line_ = true;
}

void Progress::Step(const train::StepReport& step) {
  // A loss that is not finite would stay in the average for ever.
  if (std::isfinite(step.loss)) {
    average_loss_ = std::isnan(average_loss_)
                        ? step.loss
                        : kAverageKeep * average_loss_ + (1.0 - kAverageKeep) * step.loss;
  }
  if (kind_ == ProgressKind::kNone) return;
  const std::string text =
      fmt::format("step {}/{}  loss {}  lr {:.2e}  {:.0f} tok/s  {:.0f} % of peak  left {}{}", step.step,
                  step.total_steps, Loss(average_loss_), step.learning_rate, step.tokens_per_second,
                  100.0 * step.peak_share, FormatDuration(step.seconds_left),
                  step.skipped ? "  (skipped: not finite)" : "");
  if (kind_ == ProgressKind::kBar) {
    Bar(static_cast<double>(step.step) / static_cast<double>(step.total_steps), text);
    return;
  }
  const int64_t every = std::max<int64_t>(1, step.total_steps / kPlainLines);
  if (step.step % every == 0 || step.step == step.total_steps || step.step == 1) Say("{}\n", text);
}

void Progress::Eval(const train::EvalReport& eval) {
  if (kind_ == ProgressKind::kNone) return;
  EndLine();
  Say("eval at step {}: loss {} over {} target tokens of {} records, {:.1f} % of tokens right{}{}\n",
      eval.step, Loss(eval.loss), eval.targets, eval.records, 100.0 * eval.token_accuracy,
      eval.exact_match ? fmt::format(", {:.1f} % of {} answers", 100.0 * *eval.exact_match, eval.answers)
                       : "",
      eval.best ? " (the best so far)" : "");
}

void Progress::Note(const std::string& line) {
  EndLine();
  Say("{}\n", Printable(line, Newlines::kKeep));
}

void Progress::Encoding(uint64_t done, uint64_t total) {
  if (kind_ == ProgressKind::kNone || total < kEncodingBytes) return;
  const std::string text = fmt::format("encoding {} of {}", FormatBytes(done), FormatBytes(total));
  if (kind_ == ProgressKind::kBar) {
    Bar(static_cast<double>(done) / static_cast<double>(total), text);
    if (done >= total) EndLine();
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!encoding_said_) encoding_said_ = now;
  if (now - *encoding_said_ < kEncodingEvery) return;
  encoding_said_ = now;
  Say("{}\n", text);
}

void Progress::Count(const char* what, size_t done, size_t total) {
  if (kind_ != ProgressKind::kBar || total == 0) return;
  Bar(static_cast<double>(done) / static_cast<double>(total), fmt::format("{} {}/{}", what, done, total));
}

}  // namespace rung::cli
