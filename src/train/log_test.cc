#include "train/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file_faults.h"
#include "base/test_support.h"
#include "train/history.h"

namespace rung::train {
namespace {

using nlohmann::json;
constexpr uint64_t kLimit = 1 << 24;

StepReport StepOf(int64_t step, double loss) {
  StepReport report;
  report.step = step;
  report.epoch = static_cast<double>(step) / 10.0;
  report.loss = loss;
  report.learning_rate = 1e-3;
  report.grad_norm = 0.5;
  report.tokens_per_second = 100.0;
  report.peak_share = 0.75;
  report.waiting = 0.125;
  report.tokens = 64;
  report.total_tokens = 64 * step;
  report.targets = 32;
  report.flops = 1e9;
  report.seconds = static_cast<double>(step);
  report.resident_bytes = uint64_t{3} << 30;
  return report;
}

EvalReport EvalOf(int64_t step, double loss) {
  EvalReport report;
  report.step = step;
  report.epoch = static_cast<double>(step) / 10.0;
  report.loss = loss;
  report.token_accuracy = 0.5;
  report.records = 8;
  report.seconds = 2.0;
  report.exact_match = 0.25;
  report.answers = 8;
  report.best = true;
  return report;
}

class LogTest : public FolderTest {
 protected:
  LogOptions Options(int64_t resumed_step = 0, int64_t total_steps = 10) {
    LogOptions options;
    options.out = folder_;
    options.state = {total_steps, 5, 2, 1.0};
    options.resumed_step = resumed_step;
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    return options;
  }
  std::string LogText() const { return ReadTextFile(folder_ / "train_log.jsonl", kLimit).OrThrow(); }
  RunHistory History() const { return ReadHistory(folder_ / "train_log.jsonl").OrThrow(); }
  json State() const { return json::parse(ReadTextFile(folder_ / "trainer_state.json", kLimit).OrThrow()); }

  std::vector<std::string> notes_;
};

TEST_F(LogTest, WhatIsWrittenIsReadBack) {
  {
    RunLog log(Options());
    MemoryPlan plan;
    plan.items = {{"weights", 1000, "nf4", "--quantize"}, {"arena", 234, "a step", "--tokens"}};
    log.Plan(plan);
    log.Step(StepOf(1, 2.5));
    log.Eval(EvalOf(1, 2.0));
    log.Event("note", "a file named \xff\"quoted\"\n");
    RunResult result;
    result.resident_peak = 4321;
    log.Finish(result);
  }
  const RunHistory history = History();
  EXPECT_EQ(history.damaged_lines, 0);
  ASSERT_EQ(history.steps.size(), 1u);
  const StepReport& step = history.steps[0];
  EXPECT_EQ(step.step, 1);
  EXPECT_EQ(step.loss, 2.5);
  EXPECT_EQ(step.learning_rate, 1e-3);
  EXPECT_EQ(step.grad_norm, 0.5);
  EXPECT_EQ(step.tokens, 64);
  EXPECT_EQ(step.total_tokens, 64);
  EXPECT_EQ(step.targets, 32);
  EXPECT_EQ(step.peak_share, 0.75);
  EXPECT_EQ(step.waiting, 0.125);
  EXPECT_EQ(step.flops, 1e9);
  EXPECT_EQ(step.resident_bytes, uint64_t{3} << 30);
  EXPECT_FALSE(step.skipped);
  ASSERT_EQ(history.evals.size(), 1u);
  EXPECT_EQ(history.evals[0].loss, 2.0);
  EXPECT_EQ(history.evals[0].exact_match, 0.25);
  EXPECT_TRUE(history.evals[0].best);
  ASSERT_EQ(history.plan.size(), 2u);
  EXPECT_EQ(history.plan[0].name, "weights");
  EXPECT_EQ(history.planned_bytes, 1234u);
  EXPECT_EQ(history.resident_peak, 4321u);
  std::vector<std::string> kinds;
  for (const RunEvent& event : history.events) kinds.push_back(event.kind);
  EXPECT_EQ(kinds, (std::vector<std::string>{"begin", "plan", "note", "finished"}));
  EXPECT_EQ(history.events[2].text, "a file named \xef\xbf\xbd\"quoted\"\n");
}

TEST_F(LogTest, ALossThatIsNotFiniteIsNullAndReadBackAsSuch) {
  RunLog log(Options());
  StepReport step = StepOf(1, std::numeric_limits<double>::infinity());
  step.skipped = true;
  log.Step(step);
  EXPECT_NE(LogText().find("\"loss\":null"), std::string::npos) << LogText();
  const RunHistory history = History();
  EXPECT_TRUE(std::isnan(history.steps.at(0).loss));
  EXPECT_TRUE(history.steps.at(0).skipped);
}

// The keys of transformers.TrainerState: load_from_json refuses a file with any other.
TEST_F(LogTest, TrainerStateHasTheKeysOfTransformers) {
  RunLog log(Options());
  for (int64_t s = 1; s <= 10; ++s) log.Step(StepOf(s, 3.0 - 0.1 * static_cast<double>(s)));
  log.Eval(EvalOf(10, 1.5));
  log.Best(1.5, 10, "best");
  RunResult result;
  result.seconds = 5.0;
  log.Finish(result);
  const json state = State();
  std::set<std::string> keys;
  for (const auto& item : state.items()) keys.insert(item.key());
  EXPECT_EQ(keys, (std::set<std::string>{"best_global_step",
                                         "best_metric",
                                         "best_model_checkpoint",
                                         "epoch",
                                         "eval_steps",
                                         "global_step",
                                         "is_hyper_param_search",
                                         "is_local_process_zero",
                                         "is_world_process_zero",
                                         "log_history",
                                         "logging_steps",
                                         "max_steps",
                                         "num_input_tokens_seen",
                                         "num_train_epochs",
                                         "save_steps",
                                         "stateful_callbacks",
                                         "total_flos",
                                         "train_batch_size",
                                         "trial_name",
                                         "trial_params"}));
  EXPECT_EQ(state["global_step"], 10);
  EXPECT_EQ(state["max_steps"], 10);
  EXPECT_EQ(state["num_input_tokens_seen"], 640);
  EXPECT_EQ(state["best_metric"], 1.5);
  EXPECT_EQ(state["best_model_checkpoint"], "best");
  EXPECT_EQ(state["total_flos"], 1e10);
  const json& history = state["log_history"];
  ASSERT_EQ(history.size(), 12u);
  EXPECT_EQ(history[0]["loss"], 2.9);
  EXPECT_EQ(history[10]["eval_loss"], 1.5);
  EXPECT_EQ(history[10]["eval_samples_per_second"], 4.0);
  EXPECT_NEAR(history[11]["train_loss"].get<double>(), 2.45, 1e-12);
  EXPECT_EQ(history[11]["train_steps_per_second"], 2.0);
  EXPECT_EQ(log.StateText(), ReadTextFile(folder_ / "trainer_state.json", kLimit).OrThrow());
}

TEST_F(LogTest, ALongRunsHistoryIsMeansOfSeveralSteps) {
  TrainerState state({5000, 0, 0, 1.0});
  for (int64_t s = 1; s <= 5000; ++s) {
    StepReport step = StepOf(s, static_cast<double>(s));
    if (s == 3) step.loss = std::nan(""), step.skipped = true;
    state.Add(step);
  }
  const json text = json::parse(state.Text()), history = text["log_history"];
  EXPECT_EQ(text["logging_steps"], 5);
  ASSERT_EQ(history.size(), 1000u);
  EXPECT_EQ(history[0]["loss"], 3.0);  // of 1, 2, 4, 5
  EXPECT_EQ(history[1]["loss"], 8.0);
}

TEST_F(LogTest, AResumedRunTakesUpTheHistoryAndDropsWhatItDoesAgain) {
  {
    RunLog log(Options());
    for (int64_t s = 1; s <= 5; ++s) log.Step(StepOf(s, 3.0));
    log.Eval(EvalOf(5, 2.0));
    for (int64_t s = 6; s <= 8; ++s) log.Step(StepOf(s, 9.0));
    log.Eval(EvalOf(8, 8.0));
  }
  RunLog log(Options(6));
  json state = json::parse(log.StateText());
  EXPECT_EQ(state["global_step"], 6);
  EXPECT_EQ(state["log_history"].size(), 7u);
  EXPECT_EQ(state["log_history"][5]["eval_loss"], 2.0);
  log.Step(StepOf(7, 1.0));
  const RunHistory history = History();
  ASSERT_EQ(history.steps.size(), 7u);
  EXPECT_EQ(history.steps[5].loss, 9.0);
  EXPECT_EQ(history.steps[6].loss, 1.0);
  EXPECT_EQ(history.evals.size(), 1u);
  EXPECT_EQ(json::parse(log.StateText())["log_history"].size(), 8u);
  EXPECT_TRUE(notes_.empty()) << notes_[0];
}

TEST_F(LogTest, ARunThatBeginsAnewReplacesWhatWasThere) {
  { RunLog(Options()).Step(StepOf(1, 3.0)); }
  RunLog log(Options());
  EXPECT_TRUE(History().steps.empty());
}

TEST_F(LogTest, AResumedRunWithoutALogSaysSo) {
  RunLog log(Options(4));
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("begins anew"), std::string::npos) << notes_[0];
}

TEST_F(LogTest, HalfALineDoesNotSpoilTheNext) {
  {
    RunLog log(Options());
    log.Step(StepOf(1, 3.0));
    log.Step(StepOf(2, 2.0));
  }
  const std::string text = LogText();
  ASSERT_TRUE(WriteTextFile(folder_ / "train_log.jsonl", text.substr(0, text.size() - 40)).ok());
  {
    RunLog log(Options(1));
    log.Step(StepOf(2, 1.0));
  }
  const RunHistory history = History();
  EXPECT_EQ(history.damaged_lines, 1);
  ASSERT_EQ(history.steps.size(), 2u);
  EXPECT_EQ(history.steps[1].loss, 1.0);
}

TEST_F(LogTest, AnyCutAndAnyByteIsTolerated) {
  {
    RunLog log(Options());
    MemoryPlan plan;
    plan.items = {{"weights", 1000, "nf4", ""}};
    log.Plan(plan);
    for (int64_t s = 1; s <= 3; ++s) log.Step(StepOf(s, 3.0));
    log.Eval(EvalOf(3, 2.0));
  }
  const std::string text = LogText();
  for (size_t end = 0; end < text.size(); ++end) {
    std::ofstream(folder_ / "cut") << text.substr(0, end);  // not synced, as WriteTextFile would
    EXPECT_LE(ReadHistory(folder_ / "cut").OrThrow().damaged_lines, 1);
  }
  for (const char* line :
       {"[[[[[[[[[[[[[[", "{\"step\":-1}", "{\"step\":1e300}", "{\"step\":18446744073709551615}",
        "{\"event\":\"plan\",\"items\":[1,{\"bytes\":-5,\"name\":7}]}", "null", "\xff\xfe", "{\"event\":[]}",
        "{\"step\":1,\"loss\":\"x\",\"skipped\":3}"}) {
    RunHistory history;
    AddLine(line, &history);
    for (const StepReport& step : history.steps) EXPECT_GT(step.step, 0) << line;
    EXPECT_EQ(history.planned_bytes, 0u) << line;
  }
}

TEST_F(LogTest, AFullDiskIsNotedOnceAndWhatFollowsIsWhole) {
  RunLog log(Options());
  log.Step(StepOf(1, 3.0));
  {
    const FileFaults full(
        {.fault = Fault::kFail, .first = 0, .count = 1000, .error = ENOSPC, .only = "pwrite"});
    for (int64_t s = 2; s <= 4; ++s) log.Step(StepOf(s, 3.0));
    log.Saved("checkpoint-4");
  }
  EXPECT_EQ(notes_.size(), 3u);  // log, event file, trainer_state.json
  for (const std::string& note : notes_) EXPECT_NE(note.find("No space left"), std::string::npos) << note;
  log.Step(StepOf(5, 2.0));
  EXPECT_EQ(History().damaged_lines, 0);
  ASSERT_EQ(History().steps.size(), 2u);
  EXPECT_EQ(History().steps[1].step, 5);
  EXPECT_EQ(notes_.size(), 3u);
}

TEST_F(LogTest, HalfAWriteIsFinishedOrTakenBack) {
  RunLog log(Options());
  {
    const FileFaults slow({.fault = Fault::kShortWrite, .first = 0, .count = 1000, .only = "pwrite"});
    log.Step(StepOf(1, 3.0));
  }
  EXPECT_EQ(History().damaged_lines, 0);
  EXPECT_EQ(History().steps.size(), 1u);
  EXPECT_TRUE(notes_.empty());
}

}  // namespace
}  // namespace rung::train
