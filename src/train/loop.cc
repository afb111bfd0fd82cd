#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "model/adapter_file.h"
#include "train/step.h"
#include "train/trainer.h"

namespace rung::train {

using Clock = std::chrono::steady_clock;

namespace {
// After so many skipped steps in a row the weights will not recover by themselves.
constexpr int64_t kMaxSkippedInRow = 10;
// What a crash may cost when --save-steps does not say otherwise.
constexpr double kSaveSeconds = 600.0;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}
}  // namespace

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

double Trainer::Accumulate(const data::EpochPlan& plan, int64_t end, int64_t* targets, int64_t* rows) {
  const int64_t begin = position_.batch;
  double loss_sum = 0.0;
  for (; position_.batch < end; ++position_.batch) {
    const data::Batch batch = data::MakeBatch(plan, position_.batch, data_.examples);
    if (const auto next = static_cast<size_t>(position_.batch + 1); next < plan.batches.size()) {
      data_.examples.Prefetch(plan.batches[next]);
    }
    // A pure function of the position: a resumed run drops out the same.
    draw_ =
        static_cast<uint64_t>(position_.step * options_.gradient_accumulation + position_.batch - begin + 1);
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

void Trainer::Evaluate() {
  if (eval_data_.examples.empty()) return;
  EvalReport report = EvaluateLoss(*exec_, *backbone_, &*adapter_, eval_data_, options_.tokens);
  report.step = position_.step;
  log_->Write(report);
  if (events_.on_eval) events_.on_eval(report);
}

Status Trainer::Save() {
  const CheckpointContext context{&config_, options_.model.string(), text_->chat ? text_->chat->source() : "",
                                  Fingerprint()};
  saved_ = Clock::now();
  Status saved = SaveCheckpoint(options_.out, position_, *adapter_, *optimizer_, context);
  if (saved.ok()) PruneCheckpoints(options_.out, options_.save_limit);
  return saved;
}

void Trainer::SyncCache() {
  if (Status synced = cache_->Sync(); !synced.ok())
    Note(fmt::format("tap cache: {}", synced.failure().message));
}

void Trainer::SaveAndNote() {
  if (Status saved = Save(); !saved.ok())
    Note(fmt::format("checkpoint not saved: {}", saved.failure().message));
}

void Trainer::AfterStep(const StepReport& report) {
  log_->Write(report);
  if (events_.on_step) events_.on_step(report);
  if (skipped_in_row_ >= kMaxSkippedInRow) {
    throw Error(ExitCode::kNonFinite,
                fmt::format("{} steps in a row had a loss or gradient that is not finite (step {}): lower "
                            "--learning-rate, or check the data; earlier checkpoints in {} are good",
                            skipped_in_row_, position_.step, options_.out.string()));
  }
  if (options_.eval_steps > 0 && position_.step % options_.eval_steps == 0 && position_.step < total_steps_)
    Evaluate();
  const bool due = options_.save_steps > 0 ? position_.step % options_.save_steps == 0
                                           : SecondsSince(saved_) >= kSaveSeconds;
  if (due && position_.step < total_steps_) SaveAndNote();
}

RunResult Trainer::Loop() {
  started_ = saved_ = Clock::now();
  data::EpochPlan plan;
  int64_t planned_epoch = -1;
  bool interrupted = false;
  while (position_.step < total_steps_ && !interrupted) {
    const Clock::time_point begin = Clock::now();
    if (planned_epoch != position_.epoch) {
      plan =
          data::PlanEpoch(data_.rows, options_.tokens, options_.seed, static_cast<uint32_t>(position_.epoch))
              .OrThrow();
      planned_epoch = position_.epoch;
    }
    const auto batches = static_cast<int64_t>(plan.batches.size());
    const int64_t end = std::min(batches, position_.batch + options_.gradient_accumulation);
    int64_t targets = 0, rows = 0;
    step_flops_ = 0.0;
    const double loss_sum = Accumulate(plan, end, &targets, &rows);
    StepReport report = Update(loss_sum, targets);
    report.epoch = static_cast<double>(position_.epoch) +
                   static_cast<double>(position_.batch) / static_cast<double>(batches);
    if (position_.batch == batches) {
      ++position_.epoch;
      position_.batch = 0;
      if (cache_) SyncCache();
    }
    const double seconds = SecondsSince(begin);
    report.tokens_per_second = static_cast<double>(rows) / seconds;
    report.peak_share = step_flops_ / seconds / peak_flops_;
    report.seconds_left = SecondsSince(started_) / static_cast<double>(position_.step - first_step_) *
                          static_cast<double>(total_steps_ - position_.step);
    last_loss_ = report.loss;
    AfterStep(report);
    interrupted = interrupt_.load();
  }

  return Finish(interrupted && position_.step < total_steps_);
}

RunResult Trainer::Finish(bool interrupted) {
  if (position_.step > first_step_ && skipped_ == position_.step - first_step_) {
    throw Error(
        ExitCode::kNonFinite,
        fmt::format("every step had a loss or gradient that is not finite: nothing was learned and nothing "
                    "is saved; lower --learning-rate, or check the data"));
  }
  // Before the last evaluation: the work is safe whatever happens there.
  Status saved = interrupted ? Save()
                             : model::SaveAdapter(options_.out, *adapter_, config_, options_.model.string(),
                                                  text_->chat ? text_->chat->source() : "");
  if (!saved.ok()) {
    throw Error(saved.failure().code,
                fmt::format("step {} is not saved: {}", position_.step, saved.failure().message));
  }
  if (!interrupted) Evaluate();
  RunResult result;
  result.interrupted = interrupted;
  result.steps = position_.step;
  result.skipped_steps = skipped_;
  result.train_loss = last_loss_;
  result.seconds = SecondsSince(started_);
  result.planned_bytes = plan_.total();
  result.resident_peak = ResidentPeak();
  return result;
}

RunResult RunTraining(const TrainOptions& options, const RunEvents& events,
                      const std::atomic<bool>& interrupt) {
  Trainer trainer(options, events, interrupt);
  trainer.Prepare();
  trainer.Start();
  return trainer.Loop();
}

}  // namespace rung::train
