#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/adapter_file.h"
#include "train/evaluation.h"
#include "train/step.h"
#include "train/trainer.h"

namespace rung::train {

using Clock = std::chrono::steady_clock;

std::vector<float> Trainer::RunPlanned(const data::Batch& batch, const model::CrossingIo* crossing) {
  model::BatchInput input(batch);
  input.set_crossing(crossing);
  input.set_draw(draw_);
  const int64_t M = input.target_count();
  std::vector<float> loss(static_cast<size_t>(M));
  const StepPlan planned = PlanStep(options_.compute.context, options_.compute.compute, *backbone_,
                                    &*adapter_, batch, true, crossing);
  Reserve(planned.peak.bytes);  // beyond the batches that were planned before the run
  exec_->arena().ResetPeak();
  exec_->ResetCounters();
  Step(*exec_, *backbone_, &*adapter_, input, true, Out{View(loss.data(), 1, M)}, nullptr);
  // The plan is the execution: any difference is a mistake of the program.
  RUNG_CHECK(exec_->arena().peak().bytes == planned.peak.bytes, "the step used other memory than its plan");
  RUNG_CHECK(exec_->fingerprint() == planned.fingerprint, "the step launched other work than its plan");
  step_flops_ += planned.flops;
  return loss;
}

bool Trainer::RunMicroBatch(const data::Batch& batch, double* loss_sum) {
  const std::vector<float> loss = RunPlanned(batch, cache_ ? cache_->For(batch) : nullptr);
  for (const float nats : loss) *loss_sum += static_cast<double>(nats);
  if (!cache_) return true;
  if (const std::string failure = cache_->TakeFailure(); !failure.empty()) {
    Note(fmt::format("tap cache: {}", failure));
  }
  return !cache_->load_failed();
}

std::optional<double> Trainer::Accumulate(const data::EpochPlan& plan, int64_t end, int64_t* targets,
                                          int64_t* rows) {
  const int64_t begin = position_.batch;
  double loss_sum = 0.0;
  for (; position_.batch < end; ++position_.batch) {
    if (interrupt_.load()) {
      // A step that is not whole is no place to go on from: its gradients are kept nowhere.
      position_.batch = begin;
      return std::nullopt;
    }
    const Clock::time_point asked = Clock::now();
    const data::Batch batch = data::MakeBatch(plan, position_.batch, data_.examples);
    if (const auto next = static_cast<size_t>(position_.batch + 1); next < plan.batches.size()) {
      data_.examples.Prefetch(plan.batches[next]);
    }
    waiting_seconds_ += SecondsSince(asked);
    draw_ = DrawOf(position_.step, position_.batch - begin, options_.gradient_accumulation);
    if (!RunMicroBatch(batch, &loss_sum)) {
      // Gradients are void. The damaged states are absent now, so the second attempt computes them.
      ops::Zero(*exec_, Out{adapter_->params().gradients});
      loss_sum = step_flops_ = 0.0;
      *targets = *rows = 0;
      position_.batch = begin - 1;
      continue;
    }
    *targets += batch.target_count();
    *rows += batch.rows();
  }
  return loss_sum;
}

StepReport Trainer::Update(double loss_sum, int64_t targets) {
  StepReport report;
  report.learning_rate =
      base_rate_ * ScheduleFactor(options_.schedule, position_.step, warmup_steps_, total_steps_);
  report.loss = loss_sum / static_cast<double>(targets);
  report.targets = targets;
  const Optimizer::Outcome outcome =
      optimizer_->Update(*exec_, adapter_->params(), report.learning_rate, targets);
  report.grad_norm = outcome.norm;
  report.skipped = outcome.skipped;
  report.step = ++position_.step;
  report.total_steps = total_steps_;
  skipped_ += report.skipped;
  skipped_in_row_ = report.skipped ? skipped_in_row_ + 1 : 0;
  return report;
}

void Trainer::Measure(double seconds, int64_t rows, StepReport* report) {
  total_tokens_ += rows;
  report->epoch = epoch_done_;
  report->tokens = rows;
  report->total_tokens = total_tokens_;
  report->tokens_per_second = static_cast<double>(rows) / seconds;
  report->flops = step_flops_;
  const double rate = step_flops_ / seconds;
  // While others used the machine less was measured than it can do: what a step has done is at least that.
  peak_flops_ = std::max(peak_flops_, rate);
  report->peak_share = peak_flops_ > 0.0 ? rate / peak_flops_ : 0.0;
  report->waiting = waiting_seconds_ / seconds;
  report->seconds = earlier_seconds_ + SecondsSince(started_);
  report->seconds_left = SecondsSince(started_) / static_cast<double>(position_.step - first_step_) *
                         static_cast<double>(total_steps_ - position_.step);
  report->resident_bytes = ResidentNow();
  last_loss_ = report->loss;
}

void Trainer::AfterStep(const StepReport& report) {
  log_->Step(report);
  if (events_.on_step) events_.on_step(report);
  if (skipped_in_row_ >= options_.max_skipped) {
    StopNotFinite(
        fmt::format("{} steps in a row had a loss or gradient that is not finite", skipped_in_row_));
  }
  if (options_.nan_watch && skipped_in_row_ == 1) {
    Note(fmt::format("step {} is skipped: {}", position_.step, WatchSkippedStep()));
  }
  if (EvaluationDue() && !Evaluate()) return;
  // What follows a step that was skipped may be no better: earlier checkpoints stay.
  const bool good = skipped_in_row_ == 0 && CountNotFinite(adapter_->params().values) == 0;
  if (good && position_.step < total_steps_ && saves_->Due(position_.step, Clock::now())) SaveAndNote();
}

RunResult Trainer::Loop() {
  started_ = Clock::now();
  saves_.emplace(options_.save_steps, options_.save_minutes, started_);
  data::EpochPlan plan;
  int64_t planned_epoch = -1;
  bool interrupted = false;
  if (position_.step == 0) AnswerSamples("before");
  if (EvaluationDue()) interrupted = !Evaluate();  // of a run that was interrupted meanwhile
  while (position_.step < total_steps_ && !interrupted && !StopsEarly(options_.eval, best_)) {
    const Clock::time_point begin = Clock::now();
    if (planned_epoch != position_.epoch) {
      plan = EpochOf(position_.epoch);
      planned_epoch = position_.epoch;
    }
    const auto batches = static_cast<int64_t>(plan.batches.size());
    // Other data, with --resume-force, may make shorter epochs.
    if (position_.batch >= batches) {
      ++position_.epoch;
      position_.batch = 0;
      continue;
    }
    const int64_t end = std::min(batches, position_.batch + options_.gradient_accumulation);
    tried_ = {position_.epoch, position_.batch, end};
    int64_t targets = 0, rows = 0;
    step_flops_ = waiting_seconds_ = 0.0;
    const std::optional<double> loss_sum = Accumulate(plan, end, &targets, &rows);
    if (!loss_sum) {
      interrupted = true;
      break;
    }
    StepReport report = Update(*loss_sum, targets);
    epoch_done_ = static_cast<double>(position_.epoch) +
                  static_cast<double>(position_.batch) / static_cast<double>(batches);
    if (position_.batch == batches) {
      ++position_.epoch;
      position_.batch = 0;
      const Status synced = cache_ ? cache_->Sync() : Ok{};
      if (!synced.ok()) Note(fmt::format("tap cache: {}", synced.failure().message));
    }
    Measure(SecondsSince(begin), rows, &report);
    AfterStep(report);
    interrupted = interrupt_.load();
  }

  const bool early = StopsEarly(options_.eval, best_);
  if (early && position_.step < total_steps_) {
    Note(fmt::format("stopped at step {} of {}: {} evaluations in a row did not improve on step {} enough",
                     position_.step, total_steps_, best_->evaluations_since, best_->step));
  }
  return Finish(interrupted && position_.step < total_steps_ && !early);
}

RunResult Trainer::Finish(bool interrupted) {
  if (position_.step > first_step_ && skipped_ == position_.step) {
    StopNotFinite("every step had a loss or gradient that is not finite");
  }
  const bool has_eval = !eval_data_.examples.empty();
  const auto refuse_damage = [&] {
    if (CountNotFinite(adapter_->params().values) > 0)
      StopNotFinite("the last step's weights are not finite");
  };
  if (!interrupted && !LoadsBest(options_, has_eval)) refuse_damage();
  if (!interrupted && has_eval && evaluated_step_ != position_.step) {
    // An adapter in its folder says that the run is finished, its last evaluation included, which may decide
    // which adapter that is. Until then the work is safe in a checkpoint.
    const bool there = position_.step == first_step_ || saved_step_ == position_.step;
    if (!there && CountNotFinite(adapter_->params().values) == 0) SaveAndNote();
    interrupted = !Evaluate();
  }
  if (!interrupted) LoadBest();
  refuse_damage();  // of an interrupted run too: --resume takes the checkpoint before it
  SaveAtEnd(interrupted);
  if (!interrupted) log_->Complete();
  RetryBest(true);
  if (!interrupted) AnswerSamples("after");
  RunResult result;
  result.interrupted = interrupted;
  result.steps = position_.step;
  result.skipped_steps = skipped_;
  result.train_loss = last_loss_;
  result.seconds = SecondsSince(started_);
  result.planned_bytes = plan_.total();
  result.resident_peak = ResidentPeak();
  log_->Finish(result);
  return result;
}

namespace {
// False: interrupted while there was nothing to save.
bool Prepared(Trainer* trainer) {
  try {
    trainer->Prepare();
    return true;
  } catch (const Error& error) {
    if (error.code() != ExitCode::kInterrupted) throw;
    return false;
  }
}
}  // namespace

RunResult RunTraining(const TrainOptions& options, const RunEvents& events,
                      const std::atomic<bool>& interrupt) {
  Trainer trainer(options, events, interrupt);
  RunResult result;
  try {
    if (!Prepared(&trainer)) {
      result.interrupted = true;
      result.steps = trainer.resumed_step();
      return result;
    }
    if (trainer.finished()) {
      result.finished_before = trainer.finished();
      result.steps = trainer.finished()->steps;
      return result;
    }
    trainer.Start();
    return trainer.Loop();
  } catch (const std::exception& error) {
    trainer.Stopped(error.what());
    throw;
  }
}

RunPreview PreviewTraining(const TrainOptions& options, const RunEvents& events) {
  const std::atomic<bool> never{false};
  return Trainer(options, events, never).Preview();
}

}  // namespace rung::train
