#include "train/log.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

namespace rung::train {

RunLog::RunLog(const Path& out) {
  const Path path = out / "train_log.jsonl";
  file_.reset(std::fopen(path.c_str(), "a"));
  if (!file_)
    throw Error(ExitCode::kFailed, fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
}

void RunLog::Line(const std::string& text) {
  // A full disk must not end the run: the log is a record, the checkpoint is the work.
  std::fputs(text.c_str(), file_.get());
  std::fputc('\n', file_.get());
  std::fflush(file_.get());
}

void RunLog::Write(const StepReport& step) {
  const nlohmann::ordered_json line = {{"step", step.step},
                                       {"epoch", step.epoch},
                                       {"loss", step.loss},
                                       {"learning_rate", step.learning_rate},
                                       {"grad_norm", step.grad_norm},
                                       {"target_tokens", step.targets},
                                       {"tokens_per_second", step.tokens_per_second},
                                       {"peak_share", step.peak_share},
                                       {"skipped", step.skipped}};
  Line(line.dump());
}

void RunLog::Write(const EvalReport& eval) {
  const nlohmann::ordered_json line = {{"step", eval.step},
                                       {"eval_loss", eval.loss},
                                       {"eval_token_accuracy", eval.token_accuracy},
                                       {"eval_records", eval.records}};
  Line(line.dump());
}

}  // namespace rung::train
