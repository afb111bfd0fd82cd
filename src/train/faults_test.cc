// A run that is killed at any moment, or whose disk fails at any call, loses no more than its last steps: it
// can be resumed, and ends with the bytes of a run that nothing happened to.
#include <sys/mman.h>
#include <sys/wait.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "base/file_faults.h"
#include "model/adapter_file.h"
#include "train/checksums.h"
#include "train/evaluation.h"
#include "train/tiny_run.h"

namespace rung::train {
namespace {

using Clock = std::chrono::steady_clock;

class FaultsTest : public TinyRunTest {
 protected:
  // What a child did, where its parent sees it.
  struct Shared {
    int64_t calls = 0;
  };

  void SetUp() override {
    TinyRunTest::SetUp();
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared;
  }
  void TearDown() override {
    ::munmap(shared_, sizeof(Shared));
    TinyRunTest::TearDown();
  }

  // A process that runs and ends with its exit code.
  pid_t Begin(const TrainOptions& options, const FaultPlan& plan) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    const FileFaults faults(plan);
    const ExitCode code = CodeOf(options);
    if (code != ExitCode::kDone) fmt::print(stderr, "{}\n", message_);
    shared_->calls = FileFaults::calls();
    std::_Exit(static_cast<int>(code));
  }
  static int End(pid_t child) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  int RunToEnd(const TrainOptions& options, const FaultPlan& plan = {}) { return End(Begin(options, plan)); }
  // Every folder with the name of a checkpoint is one, and so is the adapter of a finished run. Returns
  // whether it is finished.
  bool ExpectReadable(const TrainOptions& options) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(options.out, error)) {
      const std::string name = entry.path().filename();
      if (!name.starts_with("checkpoint-")) continue;
      const Result<Checkpoint> read = ReadCheckpoint(entry.path());
      EXPECT_TRUE(read.ok()) << read.failure().message;
    }
    if (const Path best = options.out / kBestFolder; std::filesystem::exists(best)) {
      const Status verified = VerifyChecksums(best);
      EXPECT_TRUE(verified.ok()) << verified.failure().message;
    }
    if (!std::filesystem::exists(options.out / "adapter_config.json")) return false;
    const model::Config config = model::ReadConfig(options.model).OrThrow();
    const Result<model::Adapter> adapter = model::LoadAdapter(options.out, config, false, options.max_length);
    EXPECT_TRUE(adapter.ok()) << adapter.failure().message;
    return true;
  }

  struct Trial {
    TrainOptions options;
    pid_t process = 0;
    std::string what;
    bool finished = false;
  };
  void ExpectEnd(const Trial& trial, const std::vector<std::string>& outcome) {
    ASSERT_EQ(trial.process == 0 ? 0 : End(trial.process), 0);
    ASSERT_TRUE(ExpectReadable(trial.options));
    EXPECT_EQ(outcome, Outcome(trial.options));
    std::filesystem::remove_all(trial.options.out);
  }

  Shared* shared_ = nullptr;
};

TEST_F(FaultsTest, OfSeveralStartsOnANewFolderOneRuns) {
  for (int trial = 0; trial < 8; ++trial) {
    const TrainOptions options = Options(fmt::format("new{}/below", trial));
    std::vector<pid_t> started;
    for (int i = 0; i < 4; ++i) started.push_back(Begin(options, {}));
    std::map<int, int> ended;
    for (const pid_t process : started) ++ended[End(process)];
    EXPECT_EQ(ended[static_cast<int>(ExitCode::kDone)], 1);
    EXPECT_EQ(ended[static_cast<int>(ExitCode::kUsage)], 3);
  }
}

constexpr int kKills = 50, kTimed = 12;  // of which so many at random times

// With evaluations on the way: the best adapter is the result.
TEST_F(FaultsTest, ARunKilledAtAnyMomentEndsWithTheSameBytes) {
  const auto evaluated = [&](const std::string& out) {
    TrainOptions options = Options(out);
    options.eval_data = options.data;
    options.eval_steps = 2;
    return options;
  };
  const TrainOptions whole = evaluated("whole");
  const Clock::time_point begin = Clock::now();
  ASSERT_EQ(RunToEnd(whole), 0);
  const std::chrono::duration<double> duration = Clock::now() - begin;
  const std::vector<std::string> outcome = Outcome(whole);
  const int64_t calls = shared_->calls;
  ASSERT_GT(calls, 200);
  std::mt19937 random(1);
  const auto draw = [&](int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to - 1)(random);
  };
  // Two at a time: each is a thread.
  for (int i = 0; i < kKills; i += 2) {
    Trial trials[2];
    const auto each = [&](const auto& body) {
      for (int j = 0; j < 2; ++j) {
        SCOPED_TRACE(trials[j].what);
        body(trials[j], i + j);
      }
    };
    each([&](Trial& trial, int kill) {
      trial.options = evaluated(fmt::format("broken{}", kill));
      // One call of each of as many parts of the run.
      const int64_t parts = kKills - kTimed, part = kill - kTimed;
      const int64_t call = draw(calls * part / parts, calls * (part + 1) / parts);
      trial.what = kill < kTimed ? fmt::format("killed at some time, {}", kill)
                                 : fmt::format("killed at call {} of {}", call, calls);
      trial.process = Begin(trial.options, kill < kTimed ? FaultPlan{} : FaultPlan{Fault::kKill, call});
    });
    if (i < kTimed) {
      std::this_thread::sleep_for(duration * std::uniform_real_distribution<double>(0.1, 1.0)(random));
      each([&](Trial& trial, int) { ::kill(trial.process, SIGKILL); });
    }
    each([&](Trial& trial, int kill) {
      const int code = End(trial.process);
      EXPECT_TRUE(code == -SIGKILL || kill < kTimed) << code;
      trial.finished = ExpectReadable(trial.options);
      trial.options.resume = true;
      if (trial.finished || kill % 5 != 4) return;
      // Some die once more.
      RunToEnd(trial.options, {.fault = Fault::kKill, .first = draw(0, calls / 2)});
      trial.finished = ExpectReadable(trial.options);
    });
    each([&](Trial& trial, int) { trial.process = trial.finished ? 0 : Begin(trial.options, {}); });
    each([&](Trial& trial, int) { ExpectEnd(trial, outcome); });
  }
}

struct DiskCase {
  const char* name;
  FaultPlan plan;
};
constexpr DiskCase kDiskCases[] = {
    {"short writes", {.fault = Fault::kShortWrite, .count = 3, .only = "pwrite"}},
    {"no space to write", {.fault = Fault::kFail, .error = ENOSPC, .only = "pwrite"}},
    {"no space for a while", {.fault = Fault::kFail, .count = 40, .error = ENOSPC, .only = "pwrite"}},
    {"no space for a file", {.fault = Fault::kFail, .error = ENOSPC, .only = "open"}},
    {"no space for a folder", {.fault = Fault::kFail, .error = ENOSPC, .only = "mkdir"}},
    {"failed write", {.fault = Fault::kFail, .only = "pwrite"}},
    {"failed rename", {.fault = Fault::kFail, .only = "rename"}},
    {"failed sync", {.fault = Fault::kFail, .only = "fsync"}},
    {"failed removal", {.fault = Fault::kFail, .only = "unlink"}},
    {"a disk that is gone", {.fault = Fault::kFail, .count = 1 << 20}}};

// The run goes on with the same result, or ends with a message; what it saved before stays.
TEST_F(FaultsTest, ADiskThatFailsAtAnyCallCostsNoCheckpoint) {
  const TrainOptions whole = Options("whole");
  Run(whole);
  const std::vector<std::string> outcome = Outcome(whole);
  std::mt19937 random(2);
  for (const DiskCase& disk : kDiskCases) {
    int64_t calls = 0;
    {
      TrainOptions options = Options(fmt::format("{} counted", disk.name));
      const FileFaults faults({.only = disk.plan.only});
      Run(options);
      calls = FileFaults::calls();
    }
    for (int part = 0; part < 3; ++part) {
      TrainOptions options = Options(fmt::format("{} {}", disk.name, part));
      FaultPlan plan = disk.plan;
      plan.first =
          std::uniform_int_distribution<int64_t>(calls * part / 3, calls * (part + 1) / 3 - 1)(random);
      SCOPED_TRACE(fmt::format("{} at call {} of {}", disk.name, plan.first, calls));
      notes_.clear();
      ExitCode code;
      {
        const FileFaults faults(plan);
        code = CodeOf(options);
        EXPECT_GT(FileFaults::calls(), plan.first);
      }
      const bool finished = ExpectReadable(options);
      if (code == ExitCode::kDone) {
        EXPECT_TRUE(finished);
      } else {
        EXPECT_EQ(code, ExitCode::kFailed) << message_;
        EXPECT_NE(message_.find(std::strerror(plan.error)), std::string::npos) << message_;
        EXPECT_NE(message_.find(options.out.filename().string()), std::string::npos) << message_;
        options.resume = true;
        if (!finished) {
          ASSERT_EQ(CodeOf(options), ExitCode::kDone) << message_;
        }
      }
      EXPECT_TRUE(Bytes(options.out / "adapter_model.safetensors") == outcome[0]);
    }
  }
}

TEST_F(FaultsTest, AFullDiskIsSaidAndTheRunGoesOn) {
  const TrainOptions options = Options("run");
  int64_t before = 0;
  on_step_ = [&](const StepReport& step) {
    if (step.step == 3) before = FileFaults::calls();
  };
  {
    const FileFaults counted({.only = "pwrite"});
    Run(options);
  }
  std::filesystem::remove_all(options.out);
  // Full from the third save on, and so when the adapter is written, until someone has made room.
  const FileFaults faults({.fault = Fault::kFail,
                           .first = before,
                           .count = 1 << 20,
                           .error = ENOSPC,
                           .only = "pwrite",
                           .seconds = 100});
  const RunResult result = Run(options);
  EXPECT_EQ(result.steps, 6);
  EXPECT_NE(notes_.find("checkpoint not saved"), std::string::npos) << notes_;
  EXPECT_NE(notes_.find("No space left on device; the run goes on and tries again in 1 minute\n"),
            std::string::npos)
      << notes_;
  EXPECT_NE(notes_.find("step 6 is not saved"), std::string::npos) << notes_;
  EXPECT_NE(notes_.find("trying again in 120 s"), std::string::npos) << notes_;
  EXPECT_EQ(FileFaults::slept(), 60 + 120);
  EXPECT_TRUE(ReadCheckpoint(options.out / "checkpoint-2").ok());
  EXPECT_FALSE(std::filesystem::exists(options.out / "checkpoint-3"));
  EXPECT_FALSE(std::filesystem::exists(options.out / ".rung-new-checkpoint-3")) << "it takes room";
  EXPECT_TRUE(ExpectReadable(options));
}

TEST_F(FaultsTest, ADiskThatStaysFullEndsTheRunAfterAnHour) {
  const TrainOptions options = Options("run");
  int64_t end = 0;
  {
    const FileFaults counted({});
    on_step_ = [&](const StepReport& step) {
      if (step.step == step.total_steps) end = FileFaults::calls();
    };
    Run(options);
  }
  std::filesystem::remove_all(options.out);
  const FileFaults faults({.fault = Fault::kFail, .first = end, .count = 1 << 20, .error = ENOSPC});
  EXPECT_EQ(CodeOf(options), ExitCode::kFailed);
  EXPECT_NE(message_.find("step 6 is not saved"), std::string::npos) << message_;
  EXPECT_NE(message_.find("--resume"), std::string::npos) << message_;
  EXPECT_GE(FileFaults::slept(), 3000);
  EXPECT_LE(FileFaults::slept(), 3600);
  EXPECT_TRUE(ReadCheckpoint(options.out / "checkpoint-5").ok());
}

// A run that waits for room after its last step is told to end.
TEST_F(FaultsTest, ASignalEndsTheWaitForRoom) {
  int64_t end = 0;
  {
    const TrainOptions counted = Options("counted");
    const FileFaults faults({});
    on_step_ = [&](const StepReport& step) {
      if (step.step == step.total_steps) end = FileFaults::calls();
    };
    Run(counted);
  }
  std::atomic<bool> interrupt{false};
  on_step_ = [&](const StepReport& step) { interrupt = step.step == step.total_steps; };
  TrainOptions options = Options("stays full");
  {
    const FileFaults faults({.fault = Fault::kFail, .first = end, .count = 1 << 20, .error = ENOSPC});
    try {
      Run(options, interrupt);
      FAIL() << "nothing could be saved";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInterrupted);
      EXPECT_NE(std::string(error.what()).find("step 6 is not saved: "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
    }
    EXPECT_EQ(FileFaults::slept(), 0);
  }
  EXPECT_FALSE(ExpectReadable(options));
  // There is room by then: it is a finished run.
  interrupt = false;
  options = Options("has room");
  const FileFaults faults({.fault = Fault::kFail, .first = end, .count = 1, .error = ENOSPC});
  EXPECT_FALSE(Run(options, interrupt).interrupted);
  EXPECT_NE(notes_.find("step 6 is not saved"), std::string::npos) << notes_;
  EXPECT_TRUE(ExpectReadable(options));
}

}  // namespace
}  // namespace rung::train
