// What resuming relies on: that damage is seen and named, that other settings are, and that a folder has one
// run.
#include "train/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/file_faults.h"
#include "train/checksums.h"
#include "train/identity.h"
#include "train/run_lock.h"
#include "train/save_schedule.h"
#include "train/tiny_run.h"

namespace rung::train {
namespace {

class CheckpointTest : public TinyRunTest {
 protected:
  // A run that was stopped with the checkpoints of its steps 2 and 3.
  TrainOptions Stopped(const std::string& out, const std::function<void(TrainOptions&)>& change = nullptr) {
    TrainOptions options = Options(out);
    if (change) change(options);
    std::atomic<bool> interrupt{false};
    on_step_ = [&](const StepReport& step) { interrupt = step.step == 3; };
    EXPECT_TRUE(Run(options, interrupt).interrupted);
    on_step_ = nullptr;
    options.resume = true;
    return options;
  }

  static void Write(const Path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
};

// In place: a file that is written anew is flushed to the disk by some file systems, a thousand times here.
void WriteByte(const Path& path, size_t at, char byte) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at)).put(byte);
}

// `what` was done to a file of checkpoint-3.
void ExpectNamed(const Path& folder, const std::string& file, const std::string& what) {
  const Result<Checkpoint> read = ReadCheckpoint(folder);
  ASSERT_FALSE(read.ok()) << what;
  EXPECT_NE(read.failure().message.find("checkpoint-3"), std::string::npos) << read.failure().message;
  EXPECT_NE(read.failure().message.find(file), std::string::npos) << read.failure().message;
}
void ExpectPassedOver(const TrainOptions& options, const std::string& file, const std::string& what) {
  ExpectNamed(options.out / "checkpoint-3", file, what);
  std::vector<std::string> damaged;
  const Result<Checkpoint> newest = NewestCheckpoint(options.out, &damaged);
  ASSERT_TRUE(newest.ok()) << what << ": " << newest.failure().message;
  EXPECT_EQ(newest.value().state.position.step, 2) << what;
  ASSERT_EQ(damaged.size(), 1u) << what;
  EXPECT_NE(damaged[0].find(file), std::string::npos) << damaged[0];
}

TEST_F(CheckpointTest, AFlippedBitAnywhereIsSeenAndAnOlderOneTaken) {
  const TrainOptions options = Stopped("run");
  const Path folder = options.out / "checkpoint-3";
  int64_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename(), whole = Bytes(entry.path());
    // Each byte of a small file; of a large one, a byte of each of 64 ranges.
    const size_t ranges = std::min<size_t>(whole.size(), whole.size() < 1024 ? 1024 : 64);
    for (size_t range = 0; range < ranges; ++range) {
      const size_t at = (whole.size() * range + range % 7) / ranges;
      WriteByte(entry.path(), at, static_cast<char>(whole[at] ^ (1 << (at % 8))));
      ExpectNamed(folder, name, fmt::format("{} byte {}", name, at));
      if (range == ranges / 2) ExpectPassedOver(options, name, fmt::format("{} byte {}", name, at));
      WriteByte(entry.path(), at, whole[at]);
    }
    for (const std::string& other : {whole.substr(0, whole.size() - 1), whole + "x", std::string()}) {
      Write(entry.path(), other);
      ExpectPassedOver(options, name, fmt::format("{} of {} bytes", name, other.size()));
    }
    std::filesystem::remove(entry.path());
    ExpectPassedOver(options, name, name + " missing");
    Write(entry.path(), whole);
    EXPECT_TRUE(ReadCheckpoint(folder).ok());
    ++files;
  }
  EXPECT_GE(files, 6);
}

TEST_F(CheckpointTest, ADamagedCheckpointIsPassedOverAndTheRunEndsTheSame) {
  const TrainOptions whole = Options("whole");
  Run(whole);
  const TrainOptions options = Stopped("run");
  Write(options.out / "checkpoint-3" / "optimizer.safetensors", "damage");
  Run(options);
  EXPECT_NE(notes_.find("damaged and passed over"), std::string::npos) << notes_;
  EXPECT_NE(notes_.find("checkpoint-3/optimizer.safetensors"), std::string::npos) << notes_;
  ASSERT_EQ(resumed_.damaged.size(), 1u);
  EXPECT_EQ(resumed_.step, 2);
  EXPECT_EQ(Outcome(whole), Outcome(options));
}

TEST_F(CheckpointTest, OnlyDamagedCheckpointsAreAnError) {
  TrainOptions options = Stopped("run");
  for (const char* name : {"checkpoint-2", "checkpoint-3"})
    std::filesystem::remove(options.out / name / "resume.json");
  EXPECT_EQ(CodeOf(options), ExitCode::kBadInput);
  EXPECT_NE(message_.find("checkpoint-2"), std::string::npos) << message_;
  EXPECT_NE(message_.find("checkpoint-3"), std::string::npos) << message_;
}

// A checkpoint that is passed over is newer than what the resumed run saves first: by number it would stay
// and what can be resumed would go.
TEST_F(CheckpointTest, DamagedOnesDoNotPushOutWhatCanBeResumed) {
  TrainOptions options = Stopped("run");
  for (const char* name : {"checkpoint-50", "checkpoint-51"})
    std::filesystem::copy(options.out / "checkpoint-3", options.out / name);
  options.save_limit = 1;
  Run(options);
  EXPECT_TRUE(ReadCheckpoint(options.out / "checkpoint-5").ok());
  EXPECT_FALSE(std::filesystem::exists(options.out / "checkpoint-4"));
}

// Names that only resemble those of unfinished and replaced folders are their owner's.
TEST_F(CheckpointTest, WhatAUserSetAsideStays) {
  const TrainOptions options = Stopped("run");
  const char* const theirs[] = {"checkpoint-25.old",
                                "checkpoint-2.tmp",
                                "checkpoint-mine.tmp",
                                ".rung-new-checkpoint-mine",
                                ".rung-old-notes",
                                "best.old",
                                "best.tmp",
                                "checkpoint-2.1.old",
                                ".rung-new-checkpoint-007"};
  for (const char* name : theirs) std::filesystem::copy(options.out / "checkpoint-2", options.out / name);
  for (const char* name : {".rung-new-checkpoint-30", ".rung-old-checkpoint-2", ".rung-new-best"})
    std::filesystem::copy(options.out / "checkpoint-2", options.out / name);
  std::filesystem::rename(options.out / "checkpoint-3", options.out / "checkpoint-3.old");
  Run(options);
  EXPECT_EQ(resumed_.step, 2);
  for (const char* name : theirs) EXPECT_TRUE(std::filesystem::exists(options.out / name)) << name;
  EXPECT_TRUE(std::filesystem::exists(options.out / "checkpoint-3.old"));
  for (const char* name : {".rung-new-checkpoint-30", ".rung-old-checkpoint-2", ".rung-new-best"})
    EXPECT_FALSE(std::filesystem::exists(options.out / name)) << name;
  EXPECT_FALSE(std::filesystem::exists(options.out / "checkpoint-30"));
}

// A killed process was replacing it where two names cannot be exchanged.
TEST_F(CheckpointTest, AReplacedCheckpointComesBack) {
  const TrainOptions options = Stopped("run");
  std::filesystem::rename(options.out / "checkpoint-3", options.out / ".rung-old-checkpoint-3");
  Run(options);
  EXPECT_EQ(resumed_.step, 3);
}

TEST_F(CheckpointTest, AnotherVersionIsNoted) {
  const TrainOptions whole = Options("whole");
  Run(whole);
  const TrainOptions options = Stopped("run");
  const Path file = options.out / "checkpoint-3" / "resume.json";
  std::string text = Bytes(file);
  const std::string key = "\"rung_version\": \"";
  const size_t at = text.find(key);
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(at, text.find('\n', at) - at, key + "0.0.0\",");
  Write(file, text);
  ASSERT_TRUE(WriteChecksums(options.out / "checkpoint-3").ok());
  Run(options);
  EXPECT_NE(notes_.find("checkpoint-3 was made by rung 0.0.0, this is rung "), std::string::npos) << notes_;
  EXPECT_EQ(Outcome(whole), Outcome(options));
}

TEST_F(CheckpointTest, TheSameVersionIsNotNoted) {
  Run(Stopped("run"));
  EXPECT_EQ(notes_.find("was made by"), std::string::npos) << notes_;
}

TEST_F(CheckpointTest, ListsWhatSha256sumChecks) {
  const TrainOptions options = Stopped("run");
  const Path folder = options.out / "checkpoint-3";
  const auto check = [&] {
    return std::system(fmt::format("cd '{}' && sha256sum --check --strict --status {} 2>/dev/null",
                                   folder.string(), kChecksums)
                           .c_str());
  };
  EXPECT_EQ(check(), 0);
  Write(folder / "resume.json", "{}");
  EXPECT_NE(check(), 0);
}

TEST_F(CheckpointTest, AnInterruptBeforeTheFirstStepSavesNothing) {
  TrainOptions options = Options("run");
  std::atomic<bool> interrupt{false};
  on_plan_ = [&] { interrupt = true; };
  const RunResult result = Run(options, interrupt);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 0);
  EXPECT_FALSE(HasCheckpoint(options.out));
  options.resume = true;
  EXPECT_EQ(Run(options).steps, 6);
}

// Usually among the first of the 200 micro-batches of the third step, and never the reason for other bytes.
TEST_F(CheckpointTest, AnInterruptWithinAStepKeepsTheBytes) {
  std::string records;
  for (int i = 0; i < 20; ++i) records += Bytes(folder_ / "train.jsonl");
  Write(folder_ / "train.jsonl", records);
  const auto long_steps = [&](const std::string& out) {
    TrainOptions options = Options(out);
    options.gradient_accumulation = 1000;
    options.max_steps = 3;
    return options;
  };
  const TrainOptions whole = long_steps("whole");
  Run(whole);
  TrainOptions options = long_steps("run");
  std::atomic<bool> interrupt{false};
  std::thread later;
  on_step_ = [&](const StepReport& step) {
    if (step.step == 2) later = std::thread([&] { interrupt = true; });
  };
  const RunResult result = Run(options, interrupt);
  later.join();
  on_step_ = nullptr;
  if (result.interrupted) {
    EXPECT_EQ(result.steps, 2);
    options.resume = true;
    Run(options);
    EXPECT_EQ(resumed_.step, 2);
  }
  const std::string file = "adapter_model.safetensors";
  EXPECT_TRUE(Bytes(whole.out / file) == Bytes(options.out / file));
}

TEST_F(CheckpointTest, DifferencesAreNamedAndMayBeForced) {
  TrainOptions options = Stopped("run");
  options.seed = 7;
  options.learning_rate = 0.5;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  EXPECT_NE(message_.find("\n  seed: then 42, now 7\n"), std::string::npos) << message_;
  EXPECT_NE(message_.find("\n  learning_rate: then 0.00"), std::string::npos) << message_;
  EXPECT_EQ(message_.find("tokens"), std::string::npos) << message_;
  options.resume_force = true;
  EXPECT_EQ(CodeOf(options), ExitCode::kDone) << message_;
  EXPECT_NE(notes_.find("seed: then 42, now 7"), std::string::npos) << notes_;
  ASSERT_EQ(resumed_.differences.size(), 2u);
  EXPECT_EQ(resumed_.differences[1], "seed: then 42, now 7");
}

TEST_F(CheckpointTest, WhatDoesNotFitCannotBeForced) {
  const std::function<void(TrainOptions&)> changes[] = {
      [](TrainOptions& o) { o.method = Method::kLora; }, [](TrainOptions& o) { o.ladder.width = 0.5; },
      [](TrainOptions& o) { o.optimizer.moments = Moments::k8Bit; }};
  int i = 0;
  for (const auto& change : changes) {
    TrainOptions options = Stopped(fmt::format("run{}", i++));
    change(options);
    options.resume_force = true;
    EXPECT_EQ(CodeOf(options), ExitCode::kBadInput) << i;
    EXPECT_NE(message_.find("checkpoint-3"), std::string::npos) << message_;
  }
}

// Fewer micro-batches in an epoch than were done of it.
TEST_F(CheckpointTest, OtherDataMayBeShorter) {
  TrainOptions options = Stopped("run");
  const std::string all = Bytes(options.data[0].path);
  options.data = {{folder_ / "short.jsonl"}};
  Write(options.data[0].path, all.substr(0, all.find('\n') + 1));
  options.resume_force = true;
  EXPECT_EQ(CodeOf(options), ExitCode::kDone) << message_;
}

TEST_F(CheckpointTest, ASecondRunOnAFolderIsRefused) {
  const TrainOptions options = Options("run");
  int refused = 0;
  on_step_ = [&](const StepReport&) {
    for (const bool resume : {false, true}) {
      TrainOptions second = options;
      second.resume = resume;
      EXPECT_EQ(CodeOf(second), ExitCode::kUsage);
      EXPECT_NE(message_.find(fmt::format("process {} on ", ::getpid())), std::string::npos) << message_;
      ++refused;
    }
  };
  Run(options);
  EXPECT_EQ(refused, 12);
}

TEST_F(CheckpointTest, ADeadProcessLocksNothing) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = RunLock::TakeIfThere(folder_);
    if (::write(ready[1], lock.ok() ? "y" : "n", 1) == 1) ::pause();
    std::_Exit(1);
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  const auto second = RunLock::TakeIfThere(folder_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.failure().code, ExitCode::kUsage);
  EXPECT_NE(second.failure().message.find(fmt::format("process {} on ", child)), std::string::npos);
  ::kill(child, SIGKILL);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run.lock"));
  EXPECT_TRUE(RunLock::TakeIfThere(folder_).ok());
  ::close(ready[0]);
  ::close(ready[1]);
}

// A dry run asks by a shared lock. One that is given back before the run looks shows nothing: hence trials.
TEST_F(CheckpointTest, ARunThatIsAskedForMeanwhileBegins) {
  WriteTextFile(folder_ / "run.lock", "").OrThrow();
  int begun = 0;
  for (int trial = 0; trial < 5; ++trial) {
    const int descriptor = ::open((folder_ / "run.lock").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(::flock(descriptor, LOCK_SH | LOCK_NB), 0);
    std::thread asks([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(15));
      ::close(descriptor);
    });
    begun += RunLock::TakeIfThere(folder_).ok();
    asks.join();
  }
  EXPECT_GT(begun, 0);
}

// The probe of another start takes it away.
TEST_F(CheckpointTest, AFolderThatGoesAwayWhileARunBeginsIsMadeAgain) {
  EXPECT_FALSE(RunLock::TakeIfThere(folder_ / "none").OrThrow().has_value());
  const TrainOptions options = Options("run");
  std::filesystem::create_directories(options.out);
  const FileFaults faults({.fault = Fault::kFail, .count = 3, .error = ENOENT, .only = "open"});
  EXPECT_EQ(CodeOf(options), ExitCode::kDone) << message_;
}

TEST(SaveScheduleTest, SavesByStepsAndMinutes) {
  const SaveSchedule::Clock::time_point start{};
  const auto after = [&](double seconds) {
    return start +
           std::chrono::duration_cast<SaveSchedule::Clock::duration>(std::chrono::duration<double>(seconds));
  };
  SaveSchedule both(100, 10.0, start);
  EXPECT_FALSE(both.Due(99, after(599)));
  EXPECT_TRUE(both.Due(99, after(600)));
  EXPECT_TRUE(both.Due(100, after(1)));
  both.Saved(after(599));
  EXPECT_FALSE(both.Due(101, after(1198)));
  EXPECT_TRUE(both.Due(101, after(1199)));
  EXPECT_FALSE(SaveSchedule(0, 0.0, start).Due(100, after(1e6)));
  EXPECT_TRUE(SaveSchedule(0, 0.5, start).Due(1, after(30)));
  EXPECT_FALSE(SaveSchedule(7, 0.0, start).Due(8, after(1e6)));
}

TEST(SaveScheduleTest, PausesDoubleToTenMinutes) {
  SaveSchedule::Clock::time_point now{};
  SaveSchedule schedule(1, 0.0, now);
  for (const int64_t seconds : {60, 120, 240, 480, 600, 600}) {
    EXPECT_TRUE(schedule.Due(1, now));
    EXPECT_EQ(schedule.Failed(now).count(), seconds);
    EXPECT_FALSE(schedule.Due(1, now + std::chrono::seconds(seconds - 1)));
    now += std::chrono::seconds(seconds);
  }
  EXPECT_TRUE(schedule.Due(1, now));
  schedule.Saved(now);
  EXPECT_TRUE(schedule.Due(1, now));
  EXPECT_EQ(schedule.Failed(now).count(), 60);
}

}  // namespace
}  // namespace rung::train
