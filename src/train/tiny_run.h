// For tests: a run of a few steps with the TinyStories model, in which everything happens that a long run
// does.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/file_faults.h"
#include "base/test_support.h"
#include "train/run.h"

namespace rung::train {

class TinyRunTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    const std::string all = Bytes("examples/stories/train.jsonl");
    size_t end = 0;
    for (int record = 0; record < 10; ++record) end = all.find('\n', end) + 1;
    Write("train.jsonl", all.substr(0, end));
  }

  // A checkpoint after each of six steps of two micro-batches, and the second epoch begins within them. In
  // one thread: that can be forked.
  TrainOptions Options(const std::string& out) const {
    TrainOptions options;
    options.model = "tests/data/models/tinystories-656k";
    options.data = {{folder_ / "train.jsonl"}};
    options.data_options.cache = Path();
    options.out = folder_ / out;
    options.compute.context = {cpu::BestIsa(), 1};
    options.tokens = options.max_length = 48;
    options.gradient_accumulation = 2;
    options.max_steps = 6;
    options.save_steps = 1;
    return options;
  }

  RunResult Run(const TrainOptions& options) {
    const std::atomic<bool> interrupt{false};
    return Run(options, interrupt);
  }
  RunResult Run(const TrainOptions& options, const std::atomic<bool>& interrupt) {
    RunEvents events;
    events.on_plan = [&](const MemoryPlan&, const model::AdapterSpec&, const model::Config&) {
      if (on_plan_) on_plan_();
    };
    events.on_step = [&](const StepReport& step) {
      if (on_step_) on_step_(step);
    };
    events.on_note = [&](const std::string& line) { notes_ += line + "\n"; };
    events.on_resume = [&](const ResumeReport& report) { resumed_ = report; };
    return RunTraining(options, events, interrupt);
  }
  ExitCode CodeOf(const TrainOptions& options) {
    try {
      Run(options);
    } catch (const Error& error) {
      message_ = error.what();
      return error.code();
    }
    return ExitCode::kDone;
  }

  static std::string Bytes(const Path& path) { return ReadTextFile(path, 1 << 26).OrThrow(); }
  // The result, and the moments of the last checkpoint, which is that of the last step but one.
  static std::vector<std::string> Outcome(const TrainOptions& options) {
    const Path last = options.out / fmt::format("checkpoint-{}", options.max_steps - 1);
    return {Bytes(options.out / "adapter_model.safetensors"), Bytes(options.out / "adapter_config.json"),
            Bytes(last / "adapter_model.safetensors"), Bytes(last / "optimizer.safetensors")};
  }

  const FileFaults faultless_{FaultPlan{}};  // nor does a test wait for a disk to sync
  std::function<void()> on_plan_;
  std::function<void(const StepReport&)> on_step_;
  std::string notes_, message_;
  ResumeReport resumed_;
};

}  // namespace rung::train
