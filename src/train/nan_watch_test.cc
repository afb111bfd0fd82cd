// Numbers that are not finite, planted where one can say which operation meets them first.
#include "train/nan_watch.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "data/packer.h"
#include "io/safetensors.h"
#include "train/tiny_run.h"

namespace rung::train {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class NanWatchTest : public TinyRunTest {
 protected:
  // A copy of the model with one number of a tensor replaced.
  Path Damaged(const std::string& tensor, float value) const {
    const Path model = folder_ / "model";
    std::filesystem::remove_all(model);
    std::filesystem::copy("tests/data/models/tinystories-656k", model,
                          std::filesystem::copy_options::recursive);
    const Path file = model / "model.safetensors";
    const io::TensorEntry entry = *io::Safetensors::Open(file).OrThrow().Find(tensor);
    std::string bytes = Bytes(file);
    std::memcpy(bytes.data() + entry.offset, &value, sizeof value);
    EXPECT_TRUE(WriteTextFile(file, bytes).ok());
    return model;
  }

  TrainOptions Watched(const std::string& out) const {
    TrainOptions options = Options(out);
    options.max_skipped = 3;
    options.ladder.taps = "all";
    options.ladder.rejoin = 0;
    return options;
  }
  // The same at one learning rate from the first step on.
  TrainOptions Steady(const std::string& out) const {
    TrainOptions options = Watched(out);
    options.schedule = Schedule::kConstant;
    options.warmup_ratio = 0.0;
    return options;
  }
};

TEST_F(NanWatchTest, ADamagedFrozenWeightIsFoundByItsLayer) {
  const struct {
    const char* tensor;
    float value;
    const char* op;
  } cases[] = {{"model.layers.1.input_layernorm.weight", kNan, "rms_norm in layer 1: "},
               {"model.layers.0.post_attention_layernorm.weight", kInf, "rms_norm in layer 0: "},
               {"model.norm.weight", kNan, "rms_norm in the head: "}};
  for (const auto& c : cases) {
    for (const Method method : {Method::kLadder, Method::kLora}) {
      SCOPED_TRACE(std::string(c.tensor) + " " + NameOf(method));
      TrainOptions options = Watched("run");
      options.model = Damaged(c.tensor, c.value);
      options.method = method;
      std::filesystem::remove_all(options.out);
      if (method == Method::kLora) options.ladder = {}, options.lora.r = 4;
      EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
      EXPECT_NE(message_.find(c.op), std::string::npos) << message_;
      EXPECT_NE(message_.find("3 steps in a row"), std::string::npos) << message_;
      EXPECT_NE(message_.find("nothing was learned"), std::string::npos) << message_;
    }
  }
}

// One channel of one norm: as many numbers as the micro-batch has rows.
TEST_F(NanWatchTest, NumbersAreCounted) {
  TrainOptions options = Watched("run");
  options.model = Damaged("model.layers.1.input_layernorm.weight", kNan);
  options.gradient_accumulation = 1;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  const size_t at = message_.find("layer 1: ");
  ASSERT_NE(at, std::string::npos) << message_;
  int64_t bad = 0, size = 0;
  ASSERT_EQ(std::sscanf(message_.c_str() + at, "layer 1: %ld of %ld numbers", &bad, &size), 2) << message_;
  EXPECT_GT(bad, 0);
  // (rows, 128) normed, and for layers that are crossed a statistic a row.
  EXPECT_EQ(size, bad * 128) << message_;
}

TEST_F(NanWatchTest, ADamagedParameterIsFoundByItsRung) {
  const model::Config config = model::ReadConfig("tests/data/models/tinystories-656k").OrThrow();
  const TrainOptions options = Watched("run");
  const model::Backbone backbone = model::Backbone::Load(options.model, options.backbone).OrThrow();
  const model::ModelText text = model::LoadText(options.model, false, "", config.V).OrThrow();
  const EncodedData data = LoadData(options.data, data::Part::kAll, text, options);
  const data::EpochPlan plan = data::PlanEpoch(data.rows, options.tokens, 1, 0).OrThrow();
  const data::Batch batch = data::MakeBatch(plan, 0, data.examples);
  const model::AdapterSpec spec = ResolveAdapter(options, config).OrThrow();
  std::vector<std::string> names;
  model::Adapter::Planned(config, spec, 48).ForEachParam([&](nn::Param& p) { names.push_back(p.name); });
  int found = 0;
  for (const std::string& name : names) {
    model::Adapter adapter = model::Adapter::Make(config, spec, 1, true, 48);
    adapter.ForEachParam([&](nn::Param& param) {
      if (param.name == name) Out{param.value}.as<float>()[0] = kNan;
    });
    const StepPlan step =
        PlanStep(options.compute.context, options.compute.compute, backbone, &adapter, batch, true);
    const Slab slab(step.peak.bytes);
    Exec ex(Arena(slab.base(), slab.bytes()), options.compute.context, options.compute.compute);
    const auto finding = WatchMicroBatch(ex, backbone, adapter, batch, 1);
    EXPECT_FALSE(ex.watched());
    ASSERT_TRUE(finding) << name;
    SCOPED_TRACE(name + " -> " + finding->text());
    EXPECT_GT(finding->not_finite, 0);
    EXPECT_TRUE(DamagedParameter(adapter).starts_with(name + ": 1 of ")) << DamagedParameter(adapter);
    // "rungs.1.…", "taps.1.…": met by that rung, not before.
    const size_t dot = name.find('.');
    if (dot != std::string::npos && std::isdigit(static_cast<unsigned char>(name[dot + 1]))) {
      EXPECT_EQ(finding->part, "rung");
      EXPECT_EQ(finding->index, std::stoll(name.substr(dot + 1)));
      ++found;
    } else {
      EXPECT_EQ(finding->part, "the ladder's output");
    }
  }
  EXPECT_GT(found, 4);
  // And nothing is found where nothing is wrong.
  model::Adapter whole = model::Adapter::Make(config, spec, 1, true, 48);
  const Slab slab(
      PlanStep(options.compute.context, options.compute.compute, backbone, &whole, batch, true).peak.bytes);
  Exec ex(Arena(slab.base(), slab.bytes()), options.compute.context, options.compute.compute);
  EXPECT_FALSE(WatchMicroBatch(ex, backbone, whole, batch, 1));
  EXPECT_EQ(DamagedParameter(whole), "");
}

TEST_F(NanWatchTest, AnAbsurdLearningRateKeepsWhatWasGood) {
  TrainOptions options = Steady("run");
  options.learning_rate = 1e38;
  options.max_steps = 20;
  options.nan_watch = true;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  EXPECT_NE(message_.find("3 steps in a row"), std::string::npos) << message_;
  // Told at the first skipped step too.
  EXPECT_NE(notes_.find("is skipped: the first was "), std::string::npos) << notes_;
  EXPECT_FALSE(std::filesystem::exists(options.out / "adapter_config.json"));
  // What is there is whole, and its numbers are finite.
  for (const auto& entry : std::filesystem::directory_iterator(options.out)) {
    if (!entry.path().filename().string().starts_with("checkpoint-")) continue;
    EXPECT_TRUE(ReadCheckpoint(entry.path()).ok()) << entry.path();
    const io::Safetensors file = io::Safetensors::Open(entry.path() / "adapter_model.safetensors").OrThrow();
    for (const auto& [name, tensor] : file.tensors()) {
      std::vector<float> values(tensor.bytes / sizeof(float));
      ASSERT_TRUE(file.Read(tensor, 0, std::as_writable_bytes(std::span(values))).ok());
      EXPECT_EQ(CountNotFinite(View(values.data(), 1, static_cast<int64_t>(values.size()))), 0);
    }
  }
}

// Weights that are large but finite: the gradient of a step overflows, the step is skipped, the weights stay.
TEST_F(NanWatchTest, ARunOfSkippedStepsSavesTheWeightsBeforeIt) {
  TrainOptions options = Steady("run");
  options.learning_rate = 1e36;
  options.max_steps = 20;
  options.save_steps = 0;
  options.save_minutes = 0;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  EXPECT_NE(message_.find("are saved in"), std::string::npos) << message_;
  std::vector<std::string> damaged;
  const Checkpoint checkpoint = NewestCheckpoint(options.out, &damaged).OrThrow();
  EXPECT_GE(checkpoint.state.position.step, 3);
  EXPECT_EQ(checkpoint.state.skipped_in_row, 3);
}

// Either way that the message names goes on.
TEST_F(NanWatchTest, AForcedResumeCountsSkippedStepsAnew) {
  TrainOptions options = Steady("run");
  options.max_steps = 20;
  std::atomic<bool> interrupt{false};
  on_step_ = [&](const StepReport& step) { interrupt = step.step == 2; };
  EXPECT_TRUE(Run(options, interrupt).interrupted);
  on_step_ = nullptr;
  options.resume = options.resume_force = true;
  options.save_steps = 0;
  options.save_minutes = 0;
  options.learning_rate = 1e36;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  std::vector<std::string> damaged;
  const int64_t saved = NewestCheckpoint(options.out, &damaged).OrThrow().state.position.step;
  ASSERT_GT(saved, 3);
  EXPECT_NE(message_.find(fmt::format("saved in {}/checkpoint-{}", options.out.string(), saved)),
            std::string::npos)
      << message_;
  EXPECT_NE(message_.find("checkpoint-1, checkpoint-2"), std::string::npos) << message_;
  EXPECT_NE(message_.find("rename"), std::string::npos) << message_;
  // These weights give no finite gradient at any rate: as many steps are tried as in the beginning.
  options.learning_rate = 1e-3;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  EXPECT_NE(message_.find(fmt::format("3 steps in a row had a loss or gradient that is not finite (step {})",
                                      saved + 3)),
            std::string::npos)
      << message_;
  for (const int64_t step : {saved, saved + 3}) {
    const Path newest = options.out / fmt::format("checkpoint-{}", step);
    std::filesystem::rename(newest, newest.string() + ".old");
  }
  EXPECT_EQ(CodeOf(options), ExitCode::kDone) << message_;
  EXPECT_EQ(resumed_.step, 2);
  EXPECT_TRUE(std::filesystem::exists(options.out / fmt::format("checkpoint-{}.old", saved)));
}

// The same run decides the same, wherever it was interrupted.
TEST_F(NanWatchTest, AResumedRunCountsOnItsSkippedSteps) {
  TrainOptions options = Steady("run");
  options.max_steps = 20;
  options.learning_rate = 1e36;
  std::atomic<bool> interrupt{false};
  int64_t skipped = 0, at = 0;
  on_step_ = [&](const StepReport& step) {
    skipped += step.skipped;
    interrupt = skipped == 2;
    at = step.step;
  };
  EXPECT_TRUE(Run(options, interrupt).interrupted);
  on_step_ = nullptr;
  options.resume = true;
  EXPECT_EQ(CodeOf(options), ExitCode::kNonFinite);
  EXPECT_NE(message_.find(fmt::format("(step {})", at + 1)), std::string::npos) << message_;
}

class InterruptedTest : public NanWatchTest {
 protected:
  // A run of two good steps that is forced on with other options and interrupted when `when` says so.
  TrainOptions Good() {
    TrainOptions options = Steady("run");
    options.max_steps = 20;
    options.save_steps = 0;
    options.save_minutes = 0;
    options.save_limit = 1;
    EXPECT_EQ(RunUntil(options, [](const StepReport& step) { return step.step == 2; }), ExitCode::kDone);
    options.resume = options.resume_force = true;
    options.max_skipped = 1'000'000;
    return options;
  }
  ExitCode RunUntil(const TrainOptions& options, const std::function<bool(const StepReport&)>& when) {
    std::atomic<bool> interrupt{false};
    on_step_ = [&](const StepReport& step) { interrupt = when(step); };
    try {
      EXPECT_TRUE(Run(options, interrupt).interrupted);
    } catch (const Error& error) {
      message_ = error.what();
      return error.code();
    }
    return ExitCode::kDone;
  }
  static int64_t NewestStep(const TrainOptions& options) {
    std::vector<std::string> damaged;
    return NewestCheckpoint(options.out, &damaged).OrThrow().state.position.step;
  }
};

TEST_F(InterruptedTest, DamagedWeightsAreNotSavedAndTheGoodOnesStay) {
  TrainOptions options = Good();
  options.learning_rate = 1e39;
  const auto fifth = [](const StepReport& step) { return step.step == 5; };
  EXPECT_EQ(RunUntil(options, fifth), ExitCode::kNonFinite);
  EXPECT_NE(message_.find("the weights are damaged and not saved"), std::string::npos) << message_;
  EXPECT_NE(message_.find("goes on from checkpoint-2"), std::string::npos) << message_;
  EXPECT_EQ(CheckpointSteps(options.out), std::vector<int64_t>{2});
  EXPECT_EQ(NewestStep(options), 2);
  options.learning_rate = 0.0;
  on_step_ = nullptr;
  EXPECT_EQ(CodeOf(options), ExitCode::kDone) << message_;
}

TEST_F(InterruptedTest, ASaveAmongSkippedStepsPushesOutNone) {
  TrainOptions options = Good();
  options.learning_rate = 1e36;
  int64_t skipped = 0, at = 0;
  const auto second = [&](const StepReport& step) {
    at = step.step;
    return (skipped += step.skipped) == 2;
  };
  EXPECT_EQ(RunUntil(options, second), ExitCode::kDone) << message_;
  EXPECT_EQ(CheckpointSteps(options.out), (std::vector<int64_t>{2, at}));
  EXPECT_NE(notes_.find(fmt::format("skipped steps in a row: 2; checkpoint-{} has the weights before", at)),
            std::string::npos)
      << notes_;
  EXPECT_NE(notes_.find("earlier ones are checkpoint-2"), std::string::npos) << notes_;
}

}  // namespace
}  // namespace rung::train
