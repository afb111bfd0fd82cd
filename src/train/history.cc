#include "train/history.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace rung::train {
namespace {

using nlohmann::json;

// Lines of ours are a few hundred bytes; a plan or the list of damaged records some thousands.
constexpr size_t kLongestLine = size_t{1} << 20;
constexpr size_t kBlock = size_t{1} << 16;

// Absent keys and values of another type are what a number is before anything is known: 0. null is how JSON
// has a number that is not finite.
double Number(const json& line, const char* key) {
  const auto value = line.find(key);
  if (value == line.end()) return 0.0;
  if (value->is_null()) return std::numeric_limits<double>::quiet_NaN();
  return value->is_number() ? value->get<double>() : 0.0;
}

int64_t Integer(const json& line, const char* key) {
  const auto value = line.find(key);
  if (value == line.end() || !value->is_number_integer()) return 0;
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return 0;
  }
  return std::max<int64_t>(0, value->get<int64_t>());
}

std::string Text(const json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_string() ? value->get<std::string>() : "";
}

bool Flag(const json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_boolean() && value->get<bool>();
}

void DropAfter(int64_t step, RunHistory* history) {
  const auto later = [&](const auto& report) { return report.step > step; };
  std::erase_if(history->steps, later);
  std::erase_if(history->evals, later);
}

void AddStep(const json& line, RunHistory* history) {
  StepReport step;
  step.step = Integer(line, "step");
  step.epoch = Number(line, "epoch");
  step.loss = Number(line, "loss");
  step.learning_rate = Number(line, "learning_rate");
  step.grad_norm = Number(line, "grad_norm");
  step.tokens = Integer(line, "tokens");
  step.total_tokens = Integer(line, "total_tokens");
  step.targets = Integer(line, "target_tokens");
  step.tokens_per_second = Number(line, "tokens_per_second");
  step.peak_share = Number(line, "peak_share");
  step.waiting = Number(line, "waiting");
  step.flops = Number(line, "flops");
  step.resident_bytes = static_cast<uint64_t>(Integer(line, "resident_bytes"));
  step.seconds = Number(line, "seconds");
  step.skipped = Flag(line, "skipped");
  if (!history->steps.empty() && history->steps.back().step >= step.step) DropAfter(step.step - 1, history);
  history->steps.push_back(step);
}

void AddEval(const json& line, RunHistory* history) {
  EvalReport eval;
  eval.step = Integer(line, "step");
  eval.epoch = Number(line, "epoch");
  eval.loss = Number(line, "eval_loss");
  eval.token_accuracy = Number(line, "eval_token_accuracy");
  eval.records = Integer(line, "eval_records");
  eval.seconds = Number(line, "eval_seconds");
  if (line.contains("eval_exact_match")) {
    eval.exact_match = Number(line, "eval_exact_match");
    eval.answers = Integer(line, "eval_answers");
  }
  eval.best = Flag(line, "best");
  std::erase_if(history->evals, [&](const EvalReport& other) { return other.step >= eval.step; });
  history->evals.push_back(eval);
}

void AddPlan(const json& line, RunHistory* history) {
  history->plan.clear();
  history->planned_bytes = 0;
  const auto items = line.find("items");
  if (items == line.end() || !items->is_array()) return;
  for (const json& item : *items) {
    if (!item.is_object()) continue;
    const auto bytes = static_cast<uint64_t>(Integer(item, "bytes"));
    history->plan.push_back({Text(item, "name"), bytes, Text(item, "note"), ""});
    history->planned_bytes += bytes;
  }
}

void AddEvent(const json& line, RunHistory* history) {
  RunEvent event{Text(line, "event"), Text(line, "text"), Text(line, "time"), Integer(line, "step"),
                 Number(line, "seconds")};
  if (event.kind == "begin") DropAfter(0, history);
  if (event.kind == "resumed") DropAfter(event.step, history);
  if (event.kind == "plan") AddPlan(line, history);
  history->resident_peak =
      std::max(history->resident_peak, static_cast<uint64_t>(Integer(line, "resident_peak_bytes")));
  history->events.push_back(std::move(event));
}

}  // namespace

bool AddLine(std::string_view text, RunHistory* history) {
  // Depth is bounded before parsing, as a file of brackets would exhaust the stack.
  constexpr int kDeepest = 8;
  int depth = 0;
  const auto shallow = [&](int at, json::parse_event_t, json&) {
    depth = std::max(depth, at);
    return at <= kDeepest;
  };
  const json line = json::parse(text, shallow, false);
  if (line.is_discarded() || !line.is_object() || depth > kDeepest) return false;
  if (line.contains("event")) {
    AddEvent(line, history);
  } else if (line.contains("eval_loss")) {
    AddEval(line, history);
  } else if (Integer(line, "step") > 0) {
    AddStep(line, history);
  } else {
    return false;
  }
  return true;
}

Result<RunHistory> ReadHistory(const Path& log) {
  Result<RandomAccessFile> file = RandomAccessFile::Open(log);
  if (!file.ok()) return file.failure();
  RunHistory history;
  std::string line, block(kBlock, '\0');
  const auto end_line = [&] {
    const bool blank = line.find_first_not_of(" \r") == std::string::npos;
    if (!blank && !AddLine(line, &history)) ++history.damaged_lines;
    line.clear();
  };
  for (uint64_t at = 0; at < file.value().size(); at += block.size()) {
    block.resize(static_cast<size_t>(std::min<uint64_t>(kBlock, file.value().size() - at)));
    Status read = file.value().Read(at, std::as_writable_bytes(std::span(block)));
    if (!read.ok()) return read.failure();
    for (const char c : block) {
      if (c == '\n') {
        end_line();
      } else if (line.size() <= kLongestLine) {
        line.push_back(c);  // a longer one is cut, hence damaged
      }
    }
  }
  end_line();
  return history;
}

}  // namespace rung::train
