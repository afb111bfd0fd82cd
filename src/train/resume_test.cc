// --resume: what is gone on from, what is refused and when, and what becomes of a run that is finished.
#include <map>
#include <random>
#include <set>

#include "model/adapter_file.h"
#include "train/checkpoint.h"
#include "train/run_lock.h"
#include "train/tiny_run.h"
#include "train/trainer_state.h"

namespace rung::train {
namespace {

class ResumeTest : public TinyRunTest {
 protected:
  RunResult RunUpTo(const TrainOptions& options, int64_t step) {
    std::atomic<bool> interrupt{false};
    on_step_ = [&](const StepReport& report) { interrupt = report.step == step; };
    const RunResult result = Run(options, interrupt);
    on_step_ = nullptr;
    return result;
  }
  ExitCode PreviewCode(const TrainOptions& options) {
    try {
      PreviewTraining(options, {});
    } catch (const Error& error) {
      message_ = error.what();
      return error.code();
    }
    return ExitCode::kDone;
  }
  // Names and bytes of all that is there.
  static std::map<std::string, std::string> Content(const Path& folder) {
    std::map<std::string, std::string> content;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      content[entry.path().string()] = entry.is_directory() ? "" : Bytes(entry.path());
    }
    return content;
  }
  void ExpectSaid(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  }
};

TEST_F(ResumeTest, AFinishedRunIsLeftAsItIs) {
  TrainOptions options = Options("run");
  Run(options);
  const std::map<std::string, std::string> content = Content(options.out);
  options.resume = true;
  const auto expect_finished = [&](const TrainOptions& asked) {
    const RunResult result = Run(asked);
    ASSERT_TRUE(result.finished_before.has_value());
    EXPECT_EQ(result.finished_before->steps, 6);
    EXPECT_EQ(result.finished_before->total_steps, 6);
    EXPECT_TRUE(PreviewTraining(asked, {}).finished_before.has_value());
    EXPECT_TRUE(Content(options.out) == content);
  };
  expect_finished(options);
  TrainOptions fewer = options;
  fewer.max_steps = 0;
  fewer.epochs = 0.5;
  expect_finished(fewer);
  EXPECT_EQ(notes_.find("other settings"), std::string::npos) << notes_;
  TrainOptions other = options;
  other.learning_rate = 1e-4;
  expect_finished(other);
  ExpectSaid(notes_, "learning_rate: then");
  // As many steps need no data.
  other.data = {{folder_ / "gone.jsonl"}};
  expect_finished(other);
  // Nothing left to do needs no disk that can be written to.
  const FileFaults faults({.fault = Fault::kFail, .count = 1 << 20, .error = EROFS, .only = "mkdir"});
  expect_finished(options);
  options.max_steps = 8;
  options.resume_force = true;
  for (const auto& code : {CodeOf(options), PreviewCode(options)}) {
    EXPECT_EQ(code, ExitCode::kFailed);
    ExpectSaid(message_, "Read-only");
  }
}

TEST_F(ResumeTest, AFinishedRunGoesOnWhereMoreIsAskedFor) {
  TrainOptions options = Options("run");
  Run(options);
  options.resume = true;
  options.max_steps = 8;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  ExpectSaid(message_, "steps: then 6, now 8");
  ExpectSaid(message_, "--resume-force");
  TrainOptions early = options;
  early.data = {{folder_ / "gone.jsonl"}};
  EXPECT_EQ(CodeOf(early), ExitCode::kUsage);
  ExpectSaid(message_, "steps: then 6, now 8");
  // By epochs it is the data that says how many.
  early = options;
  early.max_steps = 0;
  early.epochs = 20.0;
  EXPECT_EQ(CodeOf(early), ExitCode::kUsage);
  ExpectSaid(message_, "steps: then 6, now ");
  options.resume_force = true;
  EXPECT_TRUE(RunUpTo(options, 7).interrupted);
  // It is not the earlier one's adapter, which is still there, that decides.
  EXPECT_EQ(resumed_.step, 5);
  EXPECT_TRUE(std::filesystem::exists(options.out / model::kAdapterConfig));
  // Nor a record that is lost: the log says the same.
  WriteTextFile(options.out / kTrainerState, "damage").OrThrow();
  options.resume_force = false;
  const RunResult result = Run(options);
  EXPECT_FALSE(result.finished_before.has_value());
  EXPECT_EQ(result.steps, 8);
  EXPECT_EQ(resumed_.step, 7);
  EXPECT_EQ(Run(options).finished_before->total_steps, 8);
  std::filesystem::remove(options.out / kTrainerState);
  EXPECT_EQ(Run(options).finished_before->total_steps, 0);
}

TEST_F(ResumeTest, AnAdapterOfAnotherProgramIsNoRun) {
  TrainOptions options = Options("run");
  std::filesystem::copy("tests/data/lora/peft_llama3", options.out);
  options.resume = true;
  const std::map<std::string, std::string> content = Content(options.out);
  for (const char* state :
       {"", R"({"global_step": 6, "max_steps": 6, "log_history": [{"train_runtime": 1}]})"}) {
    if (*state != '\0') WriteTextFile(options.out / kTrainerState, state).OrThrow();
    for (const auto& code : {CodeOf(options), PreviewCode(options)}) {
      EXPECT_EQ(code, ExitCode::kUsage);
      ExpectSaid(message_, "an adapter of another program");
    }
  }
  std::filesystem::remove(options.out / kTrainerState);
  EXPECT_TRUE(Content(options.out) == content);
}

TEST_F(ResumeTest, AnInterruptBeforeItGoesOnStandsWhereItStood) {
  TrainOptions options = Options("run");
  RunUpTo(options, 2);
  options.resume = true;
  const std::atomic<bool> interrupt{true};
  const RunResult result = Run(options, interrupt);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 2);
}

TEST_F(ResumeTest, AFinishedRunWithoutACheckpointDoesNotGoOn) {
  TrainOptions options = Options("run");
  options.save_steps = 0;
  Run(options);
  options.resume = true;
  options.max_steps = 8;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  ExpectSaid(message_, "no checkpoint to go on from");
  // Without its record nobody knows how long it was.
  std::filesystem::remove(options.out / kTrainerState);
  EXPECT_EQ(Run(options).finished_before->total_steps, 0);
  options.max_steps = 0;
  options.data = {{folder_ / "gone.jsonl"}};
  EXPECT_EQ(Run(options).finished_before->total_steps, 0);
}

TEST_F(ResumeTest, OneBitOfTheModelIsAnotherModel) {
  TrainOptions options = Options("run");
  const Path model = folder_ / "model";
  std::filesystem::copy(options.model, model);
  options.model = model;
  RunUpTo(options, 2);
  options.resume = true;
  std::mt19937 random(3);
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string whole = Bytes(entry.path());
    for (int trial = 0; trial < 12; ++trial) {
      const size_t at = trial == 0   ? whole.size() - 1
                        : trial == 1 ? 0
                                     : std::uniform_int_distribution<size_t>(0, whole.size() - 1)(random);
      SCOPED_TRACE(at);
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (trial % 8)));
      WriteTextFile(entry.path(), flipped).OrThrow();
      EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
      ExpectSaid(message_, "model file " + entry.path().filename().string() + ": then ");
    }
    // What takes no time to refuse is refused before the model is read.
    TrainOptions other = options;
    other.seed = 1;
    EXPECT_EQ(CodeOf(other), ExitCode::kUsage);
    ExpectSaid(message_, "seed: then 42, now 1");
    ExpectSaid(message_, "(model and data are not read yet, and not compared)");
    EXPECT_EQ(message_.find("model file"), std::string::npos) << message_;
    WriteTextFile(entry.path(), whole).OrThrow();
  }
  WriteTextFile(model / "other.safetensors", "nothing that the model reads").OrThrow();
  EXPECT_EQ(Run(options).steps, 6);
}

TEST_F(ResumeTest, WhatNeedsNoDataIsRefusedBeforeItIsRead) {
  TrainOptions options = Options("run");
  RunUpTo(options, 2);
  options.data = {{folder_ / "gone.jsonl"}};
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  ExpectSaid(message_, "holds an earlier run");
  options.resume = true;
  options.seed = 1;
  options.max_steps = 7;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  ExpectSaid(message_, "seed: then 42, now 1");
  ExpectSaid(message_, "not compared");
  ExpectSaid(message_, "\n  steps: then 6, now 7");
  options.seed = 42;
  options.max_steps = 0;
  EXPECT_EQ(CodeOf(options), ExitCode::kBadInput);
  options.out = folder_ / "train.jsonl" / "run";
  EXPECT_EQ(CodeOf(options), ExitCode::kFailed);
  ExpectSaid(message_, "cannot create");
  options.eval.patience = 2;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
}

TEST_F(ResumeTest, ABestFolderOfSomebodyElseStays) {
  TrainOptions options = Options("run");
  std::filesystem::create_directories(options.out / "best" / "below");
  WriteTextFile(options.out / "best" / "notes.txt", "mine").OrThrow();
  for (const bool resume : {false, true}) {
    options.resume = resume;
    for (const auto& code : {CodeOf(options), PreviewCode(options)}) {
      EXPECT_EQ(code, ExitCode::kUsage);
      ExpectSaid(message_, "best is not of a run");
    }
  }
  EXPECT_EQ(Bytes(options.out / "best" / "notes.txt"), "mine");
  // Put there later it is in nobody's way, until there are evaluations.
  std::filesystem::rename(options.out / "best", folder_ / "best");
  RunUpTo(options, 2);
  std::filesystem::rename(folder_ / "best", options.out / "best");
  TrainOptions evaluated = options;
  evaluated.eval_data = evaluated.data;
  evaluated.eval_steps = 1;
  evaluated.resume_force = true;
  EXPECT_EQ(CodeOf(evaluated), ExitCode::kUsage);
  ExpectSaid(message_, "best is not of a run");
  EXPECT_EQ(Run(options).steps, 6);
  EXPECT_EQ(Bytes(options.out / "best" / "notes.txt"), "mine");
}

TEST_F(ResumeTest, ADryRunRefusesTheFolderThatTheRunWould) {
  TrainOptions options = Options("run");
  RunUpTo(options, 2);
  options.resume = true;
  const std::map<std::string, std::string> content = Content(folder_);
  {
    const std::optional<RunLock> held = RunLock::TakeIfThere(options.out).OrThrow();
    for (const auto& code : {CodeOf(options), PreviewCode(options)}) {
      EXPECT_EQ(code, ExitCode::kUsage);
      ExpectSaid(message_, "is working on this run");
    }
  }
  EXPECT_EQ(PreviewCode(options), ExitCode::kDone) << message_;
  for (const Path& out : {options.out, folder_ / "new" / "below", folder_ / "train.jsonl" / "below"}) {
    SCOPED_TRACE(out);
    options.out = out;
    const FileFaults faults({.fault = Fault::kFail, .count = 1 << 20, .error = EROFS, .only = "mkdir"});
    EXPECT_EQ(PreviewCode(options), ExitCode::kFailed);
    const std::string preview = message_;
    EXPECT_EQ(CodeOf(options), ExitCode::kFailed);
    EXPECT_EQ(message_, preview);
  }
  options.out = folder_ / "new" / "below";
  EXPECT_EQ(PreviewCode(options), ExitCode::kDone) << message_;
  EXPECT_EQ(PreviewTraining(options, {}).begin.resume.step, 0);
  std::map<std::string, std::string> now = Content(folder_);
  // Who holds the lock is written into its file.
  now[(folder_ / "run" / "run.lock").string()] = content.at((folder_ / "run" / "run.lock").string());
  EXPECT_TRUE(now == content);
}

}  // namespace
}  // namespace rung::train
