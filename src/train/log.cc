#include "train/log.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.h"
#include "train/history.h"

namespace rung::train {
namespace {

using nlohmann::ordered_json;

// Notes quote names and texts of foreign files, which may be no UTF-8.
std::string Dump(const ordered_json& line) {
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// A crash may have left half a line.
bool EndsInsideALine(const Path& path, uint64_t size) {
  if (size == 0) return false;
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  std::byte last{};
  return file.ok() && file.value().Read(size - 1, {&last, 1}).ok() && last != std::byte{'\n'};
}

}  // namespace

RunLog::RunLog(const LogOptions& options)
    : options_(options), state_(options.state), started_(std::chrono::steady_clock::now()) {
  if (options_.resumed_step > 0) TakeUpHistory();
  step_ = options_.resumed_step;
  OpenFiles();
  if (options_.resumed_step > 0) {
    Event("resumed", fmt::format("after step {}", options_.resumed_step));
  } else {
    Event("begin", "");
  }
}

void RunLog::TakeUpHistory() {
  const Result<RunHistory> history = ReadHistory(options_.out / kTrainLog);
  if (!history.ok()) {
    if (options_.note) options_.note(fmt::format("the record begins anew: {}", history.failure().message));
    return;
  }
  auto eval = history.value().evals.begin();
  const auto add_evals = [&](int64_t up_to) {
    for (; eval != history.value().evals.end() && eval->step <= up_to; ++eval) state_.Add(*eval);
  };
  for (const StepReport& step : history.value().steps) {
    if (step.step > options_.resumed_step) break;
    add_evals(step.step - 1);
    state_.Add(step);
  }
  add_evals(options_.resumed_step);
}

void RunLog::OpenFiles() {
  if (!lines_) {
    Result<AppendFile> opened = AppendFile::Open(options_.out / kTrainLog);
    if (opened.ok()) {
      lines_.emplace(std::move(opened).value());
      if (EndsInsideALine(lines_->path(), lines_->size())) Check(lines_->Append("\n"), &lines_noted_);
    } else {
      Check(opened.failure(), &lines_noted_);
    }
  }
  if (!events_) {
    Result<EventFile> created = EventFile::Create(options_.out, options_.resumed_step + 1);
    if (created.ok()) {
      events_.emplace(std::move(created).value());
    } else {
      Check(created.failure(), &events_noted_);
    }
  }
}

void RunLog::Check(const Status& status, bool* noted) {
  if (status.ok() || std::exchange(*noted, true)) return;
  if (options_.note)
    options_.note(fmt::format("the record of this run: {}; the run goes on", status.failure().message));
}

double RunLog::Seconds() const { return options_.earlier_seconds + SecondsSince(started_); }

void RunLog::Line(const std::string& text) {
  OpenFiles();
  if (lines_) Check(lines_->Append(text + "\n"), &lines_noted_);
}

void RunLog::Scalars(int64_t step, std::span<const Scalar> scalars) {
  if (events_) Check(events_->Add(step, scalars), &events_noted_);
}

void RunLog::WriteState() {
  Check(WriteTextFile(options_.out / kTrainerState, state_.Text()), &state_noted_);
}

void RunLog::Plan(const MemoryPlan& plan) {
  ordered_json items = ordered_json::array();
  for (const PlanItem& item : plan.items) {
    items.push_back({{"name", item.name}, {"bytes", item.bytes}, {"note", item.note}});
  }
  Line(Dump({{"event", "plan"},
             {"time", UtcNow()},
             {"step", step_},
             {"total_bytes", plan.total()},
             {"items", std::move(items)}}));
}

void RunLog::Event(const char* kind, const std::string& text) {
  Line(Dump({{"event", kind}, {"time", UtcNow()}, {"step", step_}, {"seconds", Seconds()}, {"text", text}}));
}

void RunLog::Step(const StepReport& step) {
  step_ = step.step;
  state_.Add(step);
  Line(Dump({{"step", step.step},
             {"epoch", step.epoch},
             {"loss", step.loss},
             {"learning_rate", step.learning_rate},
             {"grad_norm", step.grad_norm},
             {"tokens", step.tokens},
             {"total_tokens", step.total_tokens},
             {"target_tokens", step.targets},
             {"tokens_per_second", step.tokens_per_second},
             {"peak_share", step.peak_share},
             {"waiting", step.waiting},
             {"flops", step.flops},
             {"resident_bytes", step.resident_bytes},
             {"seconds", step.seconds},
             {"skipped", step.skipped}}));
  const std::array<Scalar, 8> scalars = {
      {{"train/loss", step.loss},
       {"train/learning_rate", step.learning_rate},
       {"train/grad_norm", step.grad_norm},
       {"train/epoch", step.epoch},
       {"train/tokens_per_second", step.tokens_per_second},
       {"train/peak_share", step.peak_share},
       {"train/waiting", step.waiting},
       {"train/resident_bytes", static_cast<double>(step.resident_bytes)}}};
  Scalars(step.step, scalars);
}

void RunLog::Eval(const EvalReport& eval) {
  state_.Add(eval);
  ordered_json line = {{"step", eval.step},
                       {"epoch", eval.epoch},
                       {"eval_loss", eval.loss},
                       {"eval_token_accuracy", eval.token_accuracy},
                       {"eval_records", eval.records},
                       {"eval_seconds", eval.seconds},
                       {"best", eval.best}};
  std::vector<Scalar> scalars = {{"eval/loss", eval.loss}, {"eval/token_accuracy", eval.token_accuracy}};
  if (eval.exact_match) {
    line["eval_exact_match"] = *eval.exact_match;
    line["eval_answers"] = eval.answers;
    scalars.push_back({"eval/exact_match", *eval.exact_match});
  }
  Line(Dump(line));
  Scalars(eval.step, scalars);
  WriteState();
}

void RunLog::Best(double metric, int64_t step, const std::string& folder) {
  state_.SetBest(metric, step, folder);
  WriteState();
}

void RunLog::Saved(const Path& checkpoint) {
  Event("saved", checkpoint.filename().string());
  if (lines_) Check(lines_->Sync(), &lines_noted_);
  if (events_) Check(events_->Sync(), &events_noted_);
  WriteState();
}

void RunLog::Complete() {
  state_.Finish(Seconds());
  WriteState();
}

void RunLog::Finish(const RunResult& result) {
  const double seconds = options_.earlier_seconds + result.seconds;
  if (!result.interrupted) state_.Finish(seconds);
  Line(Dump({{"event", result.interrupted ? "interrupted" : "finished"},
             {"time", UtcNow()},
             {"step", step_},
             {"seconds", seconds},
             {"skipped_steps", result.skipped_steps},
             {"planned_bytes", result.planned_bytes},
             {"resident_peak_bytes", result.resident_peak}}));
  if (lines_) Check(lines_->Sync(), &lines_noted_);
  if (events_) Check(events_->Sync(), &events_noted_);
  WriteState();
}

}  // namespace rung::train
