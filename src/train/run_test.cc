// Whole runs with the TinyStories model and the stories example: what a user would lose sleep over.
#include "train/run.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/file_faults.h"
#include "base/test_support.h"
#include "io/json_file.h"
#include "model/adapter_file.h"
#include "train/trainer.h"

namespace rung::train {
namespace {

const Path kModel = "tests/data/models/tinystories-656k";
const Path kData = "examples/stories";

class RunTest : public FolderTest {
 protected:
  TrainOptions Options(const std::string& out) const {
    TrainOptions options;
    options.model = kModel;
    options.data = {{kData / "train.jsonl"}};
    options.out = folder_ / out;
    options.compute.context = {cpu::BestIsa(), 2};
    options.compute.compute = cpu::BestIsa() == cpu::Isa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
    options.backbone.compute = options.compute.compute;
    options.tokens = 128;
    options.max_length = 96;
    options.max_steps = 12;
    return options;
  }

  std::string FileBytes(const Path& path) const { return ReadTextFile(path, 1 << 26).OrThrow(); }

  // Runs; interrupts after `interrupt_at` steps when it is above 0.
  RunResult Run(const TrainOptions& options, int64_t interrupt_at = 0) {
    std::atomic<bool> interrupt{false};
    RunEvents events;
    events.on_step = [&](const StepReport& step) {
      losses_.push_back(step.loss);
      flops_.push_back(step.flops);
      first_epoch_ += step.epoch < 1.0 + 1e-9 ? 1 : 0;
      if (step.step == interrupt_at) interrupt = true;
    };
    events.on_eval = [&](const EvalReport& eval) { evals_.push_back(eval); };
    events.on_note = [&](const std::string& line) { notes_ += line + "\n"; };
    return RunTraining(options, events, interrupt);
  }

  ExitCode CodeOf(const TrainOptions& options, std::string* message = nullptr) {
    try {
      Run(options);
    } catch (const Error& error) {
      if (message) *message = error.what();
      return error.code();
    }
    return ExitCode::kDone;
  }

  std::vector<double> losses_, flops_;
  int64_t first_epoch_ = 0;  // steps of it
  std::vector<EvalReport> evals_;
  std::string notes_;
};

TEST_F(RunTest, LearnsAndWritesAnAdapter) {
  TrainOptions options = Options("run");
  options.eval_data = {{kData / "valid.jsonl"}};
  options.max_steps = 60;
  options.eval_steps = 30;
  const RunResult result = Run(options);
  EXPECT_EQ(result.steps, 60);
  EXPECT_FALSE(result.interrupted);
  ASSERT_EQ(evals_.size(), 2u);
  EXPECT_LT(evals_[1].loss, 0.5 * losses_[0]);
  const model::Config config = model::ReadConfig(kModel).OrThrow();
  const model::Adapter ladder = model::LoadAdapter(options.out, config, false, 96).OrThrow();
  EXPECT_EQ(ladder.ladder()->spec().S, 32);
  EXPECT_GT(ladder.ladder()->spec().output_scale, 0.0f);
}

TEST_F(RunTest, SameSeedSameBytesOtherSeedOtherBytes) {
  TrainOptions options = Options("a");
  Run(options);
  options.out = folder_ / "b";
  Run(options);
  options.out = folder_ / "c";
  options.seed = 7;
  Run(options);
  const std::string file = "adapter_model.safetensors";
  EXPECT_TRUE(FileBytes(folder_ / "a" / file) == FileBytes(folder_ / "b" / file));
  EXPECT_TRUE(FileBytes(folder_ / "a" / file) != FileBytes(folder_ / "c" / file));
}

TEST_F(RunTest, ResumedRunEndsWithTheSameBytes) {
  TrainOptions whole = Options("whole");
  whole.gradient_accumulation = 2;
  Run(whole);
  TrainOptions broken = Options("broken");
  broken.gradient_accumulation = 2;
  EXPECT_TRUE(Run(broken, 5).interrupted);
  EXPECT_FALSE(std::filesystem::exists(broken.out / "adapter_config.json"));
  broken.resume = true;
  EXPECT_EQ(Run(broken).steps, 12);
  const std::string file = "adapter_model.safetensors";
  EXPECT_TRUE(FileBytes(whole.out / file) == FileBytes(broken.out / file));
}

TEST_F(RunTest, ResumeRefusesWhateverWouldChangeTheBits) {
  const TrainOptions options = Options("run");
  Run(options, 5);
  const std::map<std::string, std::function<void(TrainOptions&)>> changes = {
      {"learning_rate: ", [](TrainOptions& o) { o.learning_rate = 1e-4; }},
      {"seed: then 42, now 1", [](TrainOptions& o) { o.seed = 1; }},
      {"threads: ", [](TrainOptions& o) { o.compute.context.threads = 1; }},
      {"isa: ",
       [](TrainOptions& o) {
         o.compute.context.isa = cpu::Isa::kBaseline;
         o.compute.compute = o.backbone.compute = DType::kF32;
       }},
      {"output_scale: then 1, now 2", [](TrainOptions& o) { o.ladder.output_scale = 2.0; }},
      {"quantize: ", [](TrainOptions& o) { o.backbone.recipe.matrices = model::Quantize::kNone; }},
      {"data: ", [](TrainOptions& o) { o.data = {{kData / "valid.jsonl"}}; }},
      {"weight_decay: then 0, now 0.1", [](TrainOptions& o) { o.optimizer.weight_decay = 0.1; }}};
  for (const auto& [key, change] : changes) {
    TrainOptions changed = options;
    changed.resume = true;
    change(changed);
    std::string message;
    EXPECT_EQ(CodeOf(changed, &message), ExitCode::kUsage) << key;
    EXPECT_NE(message.find(key), std::string::npos) << key << " in " << message;
  }
}

TEST_F(RunTest, InterruptThatCannotSaveIsAFailure) {
  TrainOptions options = Options("run");
  std::filesystem::create_directories(options.out);
  // A file in the place of the run's folder.
  std::atomic<bool> interrupt{false};
  RunEvents events;
  events.on_step = [&](const StepReport& step) {
    interrupt = step.step == 3;
    if (interrupt) std::filesystem::rename(options.out, folder_ / "moved");
    if (interrupt) WriteTextFile(options.out, "in the way").OrThrow();
  };
  const FileFaults no_waiting({});
  EXPECT_THROW(RunTraining(options, events, interrupt), Error);
}

TEST_F(RunTest, MaxLengthBeyondTheContextIsRefused) {
  TrainOptions options = Options("run");
  options.max_length = options.tokens = 1 << 20;
  std::string message;
  EXPECT_EQ(CodeOf(options, &message), ExitCode::kUsage);
  EXPECT_NE(message.find("--max-length"), std::string::npos) << message;
}

TEST_F(RunTest, RefusesAFolderThatHoldsARun) {
  const TrainOptions options = Options("run");
  std::string message;
  Run(options, 5);
  EXPECT_EQ(CodeOf(options, &message), ExitCode::kUsage);
  EXPECT_NE(message.find("go on with --resume"), std::string::npos) << message;
  TrainOptions resumed = options;
  resumed.resume = true;
  Run(resumed);
  EXPECT_EQ(CodeOf(options, &message), ExitCode::kUsage);
  EXPECT_NE(message.find("another --out"), std::string::npos) << message;
}

TEST_F(RunTest, KeepsTheNewestCheckpoints) {
  TrainOptions options = Options("run");
  options.save_steps = 2;
  options.save_limit = 2;
  Run(options);
  EXPECT_FALSE(std::filesystem::exists(options.out / "checkpoint-6"));
  EXPECT_TRUE(std::filesystem::exists(options.out / "checkpoint-8"));
  EXPECT_TRUE(std::filesystem::exists(options.out / "checkpoint-10"));
}

TEST_F(RunTest, MemoryLimitIsRefusedBeforeAnythingIsWritten) {
  TrainOptions options = Options("run");
  options.memory_limit = 1 << 20;
  std::string message;
  EXPECT_EQ(CodeOf(options, &message), ExitCode::kNoMemory);
  EXPECT_NE(message.find("largest:"), std::string::npos) << message;
  EXPECT_NE(message.find("--"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(options.out));
}

TEST_F(RunTest, DataWithoutAnyTargetIsRefused) {
  TrainOptions options = Options("run");
  options.data = {{folder_ / "empty.jsonl"}};
  ASSERT_TRUE(WriteTextFile(options.data.front().path, "{\"prompt\": \"a\", \"completion\": \"\"}\n").ok());
  options.raw = true;
  EXPECT_EQ(CodeOf(options), ExitCode::kBadInput);
  options.data = {{folder_ / "missing.jsonl"}};
  options.out = folder_ / "run2";
  EXPECT_EQ(CodeOf(options), ExitCode::kBadInput);
}

TEST_F(RunTest, AdapterOfAnotherModelIsRefused) {
  const TrainOptions options = Options("run");
  Run(options);
  const model::Config other = model::ReadConfig("tests/data/families/llama3").OrThrow();
  const Result<model::Adapter> loaded = model::LoadAdapter(options.out, other, false, 96);
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.failure().message.find("was trained for"), std::string::npos) << loaded.failure().message;
}

// Every method, memory policy and optimizer trains, resumes to the same bytes, and stays within its plan.
TEST_F(RunTest, EveryMethodLearnsAndResumes) {
  const std::pair<const char*, std::function<void(TrainOptions&)>> cases[] = {
      {"xladder",
       [](TrainOptions& o) {
         o.method = Method::kXladder;
         o.ladder.delta = 2;
       }},
      {"plain",
       [](TrainOptions& o) {
         o.ladder.kind = model::RungKind::kPlain;
         o.ladder.rungs = 4;
       }},
      {"rejoin",
       [](TrainOptions& o) {
         o.ladder.rejoin = 1;
         o.policy.blocks = model::BlockMemory::kRecompute;
         o.policy.taps = model::TapStorage::kInt8;
       }},
      {"pooled", [](TrainOptions& o) { o.ladder.tap_map = model::TapMap::kPooled; }},
      {"lora",
       [](TrainOptions& o) {
         o.method = Method::kLora;
         o.lora.r = 8;
         o.lora.dropout = 0.1;
         o.optimizer.moments = Moments::k8Bit;
       }},
      {"both", [](TrainOptions& o) {
         o.ladder.rejoin = 1;
         o.lora.r = 4;
       }}};
  for (const auto& [name, change] : cases) {
    SCOPED_TRACE(name);
    TrainOptions whole = Options(std::string(name) + "-whole"),
                 broken = Options(std::string(name) + "-broken");
    change(whole);
    change(broken);
    losses_.clear();
    [[maybe_unused]] const RunResult result = Run(whole);
    EXPECT_LT(losses_.back(), losses_.front());
#ifndef __SANITIZE_ADDRESS__  // which keeps what was freed
    EXPECT_LE(result.resident_peak, 2 * result.planned_bytes);
#endif
    EXPECT_TRUE(Run(broken, 5).interrupted);
    broken.resume = true;
    EXPECT_EQ(Run(broken).steps, 12);
    for (const char* file : {"adapter_model.safetensors", "adapter_config.json"}) {
      EXPECT_TRUE(FileBytes(whole.out / file) == FileBytes(broken.out / file)) << file;
    }
  }
}

TEST_F(RunTest, TapCacheGivesTheSameBytesWithoutTheBackbone) {
  for (const int64_t rejoin : {0, 1}) {
    for (const model::TapStorage storage : {model::TapStorage::kCompute, model::TapStorage::kInt8}) {
      SCOPED_TRACE(fmt::format("rejoin {} storage {}", rejoin, static_cast<int>(storage)));
      const std::string name = fmt::format("{}-{}", rejoin, static_cast<int>(storage));
      TrainOptions live = Options(name + "-live"), cached = Options(name + "-cached");
      for (TrainOptions* options : {&live, &cached}) {
        options->max_steps = 0;
        options->epochs = 3.0;
        options->ladder.rejoin = rejoin;
        options->policy.taps = storage;
      }
      cached.tap_cache = folder_ / "taps";
      losses_.clear();
      flops_.clear();
      Run(live);
      const std::vector<double> live_losses = std::exchange(losses_, {}),
                                live_flops = std::exchange(flops_, {});
      first_epoch_ = 0;
      Run(cached);
      EXPECT_EQ(live_losses, losses_);
      // The layers below the joining point run in the first epoch alone.
      const auto first = static_cast<size_t>(first_epoch_);
      ASSERT_EQ(flops_.size(), live_flops.size());
      ASSERT_GT(first, 0u);
      ASSERT_LT(first, flops_.size());
      for (size_t i = 0; i < flops_.size(); ++i) {
        if (i < first) {
          EXPECT_EQ(flops_[i], live_flops[i]) << i;
        } else {
          EXPECT_LT(flops_[i], live_flops[i]) << i;
        }
      }
      EXPECT_TRUE(FileBytes(live.out / "adapter_model.safetensors") ==
                  FileBytes(cached.out / "adapter_model.safetensors"));
      // A second run finds everything there; one with a damaged store computes what is missing.
      TrainOptions again = cached;
      again.out = folder_ / (name + "-again");
      notes_.clear();
      flops_.clear();
      Run(again);
      EXPECT_NE(notes_.find("are already there"), std::string::npos) << notes_;
      ASSERT_EQ(flops_.size(), live_flops.size());
      for (size_t i = 0; i < flops_.size(); ++i) EXPECT_LT(flops_[i], live_flops[i]) << i;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(cached.tap_cache)) {
        if (entry.path().filename() != "taps") continue;
        std::FILE* file = std::fopen(entry.path().c_str(), "r+b");
        std::fseek(file, 100, SEEK_SET);
        std::fputs("damage", file);
        std::fclose(file);
      }
      again.out = folder_ / (name + "-damaged");
      notes_.clear();
      Run(again);
      EXPECT_NE(notes_.find("computed instead"), std::string::npos) << notes_;
      EXPECT_TRUE(FileBytes(live.out / "adapter_model.safetensors") ==
                  FileBytes(again.out / "adapter_model.safetensors"));
    }
  }
}

// Each pattern of the recipe is in the key of the cache, however many there are.
TEST_F(RunTest, ATapCacheIsOfALongRecipeToo) {
  TrainOptions options = Options("long");
  options.max_steps = 1;
  options.tap_cache = folder_ / "taps";
  for (int i = 0; i < 400; ++i) {
    options.backbone.recipe.patterns.emplace_back(fmt::format("model.layers.{}.mlp.down_proj", i),
                                                  model::Quantize::kF32);
  }
  EXPECT_EQ(Run(options).steps, 1);
  const auto found = [&](const char* out) {
    options.out = folder_ / out;
    notes_.clear();
    EXPECT_EQ(Run(options).steps, 1);
    return notes_.find("are already there") != std::string::npos;
  };
  EXPECT_TRUE(found("again"));
  options.backbone.recipe.patterns.back().second = model::Quantize::kBf16;
  EXPECT_FALSE(found("other"));
}

// What is pooled was standardised: with the numbers of that run, which its seed decides.
TEST_F(RunTest, ATapCacheOfPooledTapsIsOfOneCalibration) {
  for (const uint64_t seed : {uint64_t{1}, uint64_t{2}}) {
    TrainOptions live = Options(fmt::format("live{}", seed)), cached = Options(fmt::format("cached{}", seed));
    for (TrainOptions* options : {&live, &cached}) {
      options->max_steps = 0;
      options->epochs = 2.0;
      options->seed = seed;
      options->ladder.tap_map = model::TapMap::kPooled;
    }
    cached.tap_cache = folder_ / "taps";
    Run(live);
    Run(cached);
    EXPECT_TRUE(FileBytes(live.out / "adapter_model.safetensors") ==
                FileBytes(cached.out / "adapter_model.safetensors"));
  }
}

// Few rows: a leftover batch of one short example, and an odd number of low-rank columns.
TEST_F(RunTest, ATapCacheHoldsForTinyBatchesToo) {
  TrainOptions live = Options("live"), cached = Options("cached");
  const Path data = folder_ / "short.jsonl";
  std::string lines;
  for (int i = 0; i < 9; ++i) lines += fmt::format("{{\"prompt\": \"a\", \"completion\": \"{}\"}}\n", i);
  ASSERT_TRUE(WriteTextFile(data, lines).ok());
  for (TrainOptions* options : {&live, &cached}) {
    options->data = {{data}};
    options->raw = true;
    options->max_steps = 0;
    options->epochs = 4.0;
    options->tokens = 14;  // a few examples, then one alone
    options->max_length = 14;
    options->gradient_accumulation = 2;
  }
  cached.tap_cache = folder_ / "taps";
  losses_.clear();
  Run(live);
  const std::vector<double> live_losses = std::exchange(losses_, {});
  Run(cached);
  EXPECT_EQ(live_losses, losses_);
}

// The settings of a folder decide the computation as much as its weights do.
TEST_F(RunTest, AModelWithOtherSettingsIsNotResumed) {
  TrainOptions options = Options("run");
  const Path model = folder_ / "model";
  std::filesystem::copy(kModel, model, std::filesystem::copy_options::recursive);
  options.model = model;
  Run(options, 3);
  options.resume = true;
  std::string text = ReadTextFile(model / "config.json", 1 << 20).OrThrow();
  text.insert(text.find('{') + 1, "\"sliding_window\": null, ");
  ASSERT_TRUE(WriteTextFile(model / "config.json", text).ok());
  std::string message;
  EXPECT_EQ(CodeOf(options, &message), ExitCode::kUsage);
  EXPECT_NE(message.find("model file config.json: "), std::string::npos) << message;
}

TEST_F(RunTest, ATapCacheHasARecordOnceHoweverOftenItIsTrained) {
  std::string lines;
  for (int i = 0; i < 9; ++i)
    lines += fmt::format("{{\"prompt\": \"Once\", \"completion\": \"{} upon\"}}\n", i);
  const Path data = Write("short.jsonl", lines);
  std::map<std::string, uintmax_t> bytes;
  for (const double weight : {1.0, 2.0}) {
    const std::string name = fmt::format("{}", weight);
    TrainOptions live = Options(name + "-live"), cached = Options(name + "-cached");
    for (TrainOptions* options : {&live, &cached}) {
      options->data = {{data, weight}};
      options->raw = true;
      options->max_steps = 0;
      options->epochs = 2.0;
    }
    cached.tap_cache = folder_ / name;
    losses_.clear();
    Run(live);
    const std::vector<double> live_losses = std::exchange(losses_, {});
    Run(cached);
    EXPECT_EQ(live_losses, losses_);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(cached.tap_cache)) {
      if (entry.path().filename() == "taps") bytes[name] = entry.file_size();
    }
  }
  EXPECT_GT(bytes["1"], 0u);
  EXPECT_EQ(bytes["2"], bytes["1"]);
}

TEST_F(RunTest, ATapCacheThatIsTooLargeIsRefusedBeforeTheRun) {
  TrainOptions options = Options("run");
  options.tap_cache = folder_ / "taps";
  options.tap_cache_limit = 1 << 16;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  EXPECT_FALSE(std::filesystem::exists(options.out));
  options.method = Method::kLora;
  options.tap_cache_limit = uint64_t{1} << 34;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
}

TEST_F(RunTest, InterpolateAndFreeRungsAndAccumulationRun) {
  TrainOptions options = Options("run");
  options.ladder.gate = model::Gate::kInterpolate;
  options.ladder.rungs = 4;
  options.policy.rungs = model::RungMemory::kRecompute;
  options.gradient_accumulation = 2;
  const RunResult result = Run(options);
  EXPECT_EQ(result.steps, 12);
  EXPECT_LT(losses_.back(), losses_.front());
}

}  // namespace
}  // namespace rung::train
