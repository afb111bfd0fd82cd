#include "train/trainer_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/json_fields.h"
#include "io/json_file.h"

namespace rung::train {

using nlohmann::json;

namespace {
constexpr const char* kRuntime = "train_runtime";
}  // namespace

TrainerState::TrainerState(const Settings& settings)
    : settings_(settings),
      logging_steps_(std::max<int64_t>(1, (settings.total_steps + kEntries - 1) / kEntries)) {}

void TrainerState::Add(const StepReport& step) {
  last_ = step;
  flops_ += step.flops;
  if (!step.skipped && std::isfinite(step.loss)) {
    for (Window* sums : {&window_, &all_}) {
      ++sums->steps;
      sums->loss += step.loss;
      sums->grad_norm += step.grad_norm;
    }
  }
  if (step.step % logging_steps_ != 0 && step.step != settings_.total_steps) return;
  const auto n = static_cast<double>(window_.steps);  // 0: the means are not numbers, null in the file
  entries_.push_back(
      {step.step, step.epoch, window_.loss / n, window_.grad_norm / n, step.learning_rate, {}});
  window_ = {};
}

void TrainerState::Add(const EvalReport& eval) {
  entries_.push_back({eval.step, eval.epoch, 0.0, 0.0, 0.0, eval});
}

void TrainerState::SetBest(double metric, int64_t step, const std::string& folder) {
  best_ = Best{metric, step, folder};
}

void TrainerState::Finish(double seconds) { seconds_ = seconds; }

std::string TrainerState::Text() const {
  json history = json::array();
  for (const Entry& entry : entries_) {
    json line = {{"step", entry.step}, {"epoch", entry.epoch}};
    if (entry.eval) {
      line.update({{"eval_loss", entry.eval->loss},
                   {"eval_token_accuracy", entry.eval->token_accuracy},
                   {"eval_runtime", entry.eval->seconds}});
      if (entry.eval->exact_match) line["eval_exact_match"] = *entry.eval->exact_match;
      if (entry.eval->seconds > 0.0) {
        line["eval_samples_per_second"] = static_cast<double>(entry.eval->records) / entry.eval->seconds;
      }
    } else {
      line.update(
          {{"loss", entry.loss}, {"grad_norm", entry.grad_norm}, {"learning_rate", entry.learning_rate}});
    }
    history.push_back(std::move(line));
  }
  if (seconds_) {
    json line = {{"step", last_.step},
                 {"epoch", last_.epoch},
                 {"total_flos", flops_},
                 {"train_loss", all_.loss / static_cast<double>(all_.steps)},
                 {kRuntime, *seconds_}};
    if (*seconds_ > 0.0) {
      line["train_steps_per_second"] = static_cast<double>(last_.step) / *seconds_;
      line["train_tokens_per_second"] = static_cast<double>(last_.total_tokens) / *seconds_;
    }
    history.push_back(std::move(line));
  }
  const json state = {{"best_global_step", best_ ? json(best_->step) : json(nullptr)},
                      {"best_metric", best_ ? json(best_->metric) : json(nullptr)},
                      {"best_model_checkpoint", best_ ? json(best_->folder) : json(nullptr)},
                      {"epoch", last_.epoch},
                      {"eval_steps", settings_.eval_steps},
                      {"global_step", last_.step},
                      {"is_hyper_param_search", false},
                      {"is_local_process_zero", true},
                      {"is_world_process_zero", true},
                      {"log_history", std::move(history)},
                      {"logging_steps", logging_steps_},
                      {"max_steps", settings_.total_steps},
                      {"num_input_tokens_seen", last_.total_tokens},
                      {"num_train_epochs", static_cast<int64_t>(std::ceil(settings_.epochs))},
                      {"save_steps", settings_.save_steps},
                      {"stateful_callbacks", json::object()},
                      {"total_flos", flops_},
                      {"train_batch_size", nullptr},
                      {"trial_name", nullptr},
                      {"trial_params", nullptr}};
  return state.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<std::optional<FinishedRun>> ReadFinished(const Path& out) {
  const Path file = out / kTrainerState;
  const Result<json> state = io::ReadJson(file);
  if (!state.ok()) return state.failure();
  io::JsonFields fields(state.value(), file.string());
  const auto history = fields.Get<std::vector<json>>("log_history");
  if (!fields.ok()) return fields.failure();
  // The last entry of a finished run is that of the whole of it.
  if (history.empty() || !history.back().contains(kRuntime)) return std::optional<FinishedRun>();
  const FinishedRun finished{fields.Count("global_step"), fields.Count("max_steps")};
  if (!fields.ok()) return fields.failure();
  return std::optional(finished);
}

}  // namespace rung::train
