#include "train/plan_search.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/shapes.h"
#include "nn/block.h"
#include "train/fisher.h"

namespace rung::train {
namespace {

constexpr const char* kConfig = "tests/data/plan/config.json";

TrainOptions Options(Method method) {
  TrainOptions options;
  options.method = method;
  options.compute.context = {cpu::Isa::kBaseline, 2};
  return options;
}

constexpr Method kMethods[] = {Method::kLadder, Method::kXladder, Method::kLora};
constexpr model::BlockMemory kBlocks[] = {model::BlockMemory::kKeep, model::BlockMemory::kRecompute};

uint64_t Bytes(const MemoryPlan& plan, const std::string& name) {
  for (const PlanItem& item : plan.items) {
    if (item.name == name) return item.bytes;
  }
  return 0;
}

TEST(PlanSearchTest, EveryShapePlansForEveryMethod) {
  for (const std::string& name : model::ShapeNames()) {
    const PlanModel model(model::ShapeOf(name).OrThrow());
    for (const Method method : kMethods) {
      for (const model::BlockMemory blocks : kBlocks) {
        TrainOptions options = Options(method);
        options.policy.blocks = blocks;
        Result<PlannedRun> run = PlanRun(model, options, options.max_length);
        ASSERT_TRUE(run.ok()) << name << " " << NameOf(method) << ": " << run.failure().message;
        // More than the 4-bit weights alone, less than the 16-bit model twice over, but for models so small
        // that what a step keeps is as much.
        const auto parameters = static_cast<uint64_t>(model.config().parameter_count());
        const uint64_t kept = parameters < 400'000'000 ? 400'000'000 : 0;
        EXPECT_GT(run.value().memory.total(), parameters / 2) << name;
        EXPECT_LT(run.value().memory.total(), 4 * parameters + kept) << name << " " << NameOf(method);
        EXPECT_GT(run.value().memory.step.flops, 2.0 * static_cast<double>(parameters)) << name;
      }
    }
  }
}

// By hand, from the shapes of tests/data/plan/config.json: C 128, F 352, q and o 128, k and v 64, V 1000.
TEST(PlanSearchTest, ItemsOfASmallModelAsCountedByHand) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  TrainOptions options = Options(Method::kLora);
  options.lora.r = 8;
  const PlannedRun run = PlanRun(model, options, 512).OrThrow();
  const int64_t pairs = 6 * 8 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 352));
  EXPECT_EQ(run.parameters, pairs);
  EXPECT_EQ(Bytes(run.memory, "parameters"), static_cast<uint64_t>(4 * pairs));
  EXPECT_EQ(Bytes(run.memory, "gradients"), static_cast<uint64_t>(4 * pairs));
  EXPECT_EQ(Bytes(run.memory, "optimizer"), static_cast<uint64_t>(8 * pairs));
  EXPECT_EQ(run.end_bytes, 2 * 1000 * 128 * 2);
  TrainOptions ladder = Options(Method::kLadder);
  ladder.ladder.taps = "1,3,5";
  ladder.ladder.rejoin = 0;
  EXPECT_EQ(Bytes(PlanRun(model, ladder, 512).OrThrow().memory, "taps"), 3u * 512 * 128 * 4);
}

// Cosines and sines of 1,024 positions for 32 channels of a head, of layers with a window apart where they
// turn otherwise; of none where no layer turns. A ladder has its own, and two statistics of 128 channels a
// tap.
TEST(PlanSearchTest, EveryTableOfAnglesIsPlanned) {
  model::Config config = model::ReadConfig(kConfig).OrThrow();
  TrainOptions options = Options(Method::kLora);
  options.max_length = 1024;
  const auto tables = [&] {
    return Bytes(PlanRun(PlanModel(config), options, 512).OrThrow().memory, "tables");
  };
  EXPECT_EQ(tables(), 1024u * 32 * 4);
  config.window = 64;
  config.windowed = {0, 2};
  config.local_rope = config.rope;
  EXPECT_EQ(tables(), 2 * 1024u * 32 * 4);
  config.rope.rotary = 8;
  EXPECT_EQ(tables(), 1024u * (8 + 32) * 4);
  config.no_rope = true;
  EXPECT_EQ(tables(), 0u);
  options = Options(Method::kLadder);
  options.max_length = 1024;
  options.ladder.taps = "0,1";
  const uint64_t statistics = 2u * 2 * 128 * 4;
  EXPECT_EQ(tables(), statistics);
  options.ladder.rotary = true;
  EXPECT_EQ(tables(), 1024u * 32 * 4 + statistics);
  config.no_rope = false;
  options.ladder.rotary = false;
  EXPECT_EQ(tables(), 1024u * (8 + 32) * 4 + statistics);
}

// What a ladder begins with is measured before anything of the step is there: the run needs the larger of the
// two. A layer has 2 (128 + 64) 128 + 3 * 352 * 128 weights.
TEST(PlanSearchTest, FisherInformationIsPlannedFromTheStart) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  TrainOptions options = Options(Method::kLadder);
  options.ladder.taps = "1,3,5";
  options.ladder.rejoin = 0;
  for (const int64_t tokens : {64, 16384}) {
    options.tokens = tokens;
    options.ladder.init = LadderInit::kPruned;
    const MemoryPlan pruned = PlanRun(model, options, 64).OrThrow().memory;
    options.ladder.init = LadderInit::kFisher;
    const MemoryPlan fisher = PlanRun(model, options, 64).OrThrow().memory;
    const model::Backbone backbone = model.Plan(options.backbone).OrThrow();
    data::Example example{std::vector<int32_t>(65), std::vector<uint8_t>(65, 1), 0};
    example.learn[0] = 0;
    const Fisher::Need need = Fisher::Plan(options.compute, backbone, {1, 3, 5}, {&example, 1});
    constexpr uint64_t kLayer = 4 * (2 * (128 + 64) * 128 + 3 * 352 * 128);
    EXPECT_EQ(need.importances, 3 * kLayer);
    EXPECT_EQ(need.layer, 2 * kLayer);
    uint64_t lasting = 0;
    for (const char* item : {"weights", "tables", "tokenizer and data", "program"})
      lasting += Bytes(pruned, item);
    EXPECT_EQ(fisher.total(), std::max(pruned.total(), lasting + need.total()));
    EXPECT_EQ(Bytes(fisher, "importance") > 0, tokens == 64);
  }
}

// The prototype's setting on a model of 1,536 channels, by hand, everything with a bias: one projection for
// both taps 1536 x 128, back up 128 x 1536, and four rungs of q, k, v 128 x 128 and an MLP of 512. 196,736 +
// 198,144 + 4 (3 x 16,512 + 66,048 + 65,664).
TEST(PlanSearchTest, ParametersOfPlainRungs) {
  const PlanModel model(model::ShapeOf("qwen2.5-1.5b").OrThrow());
  TrainOptions options = Options(Method::kLadder);
  options.ladder.kind = model::RungKind::kPlain;
  options.ladder.width = 128;
  options.ladder.taps = "10,15";
  options.ladder.rungs = 4;
  EXPECT_EQ(PlanRun(model, options, 512).OrThrow().parameters, 1'119'872);
}

// What the method promises for 7 billion parameters: one sequence of 2,048 tokens in bf16, wherever this test
// runs.
TEST(PlanSearchTest, ALadderBesideSevenBillionNeedsHalfOfLoraOrLess) {
  const PlanModel model(model::ShapeOf("qwen2.5-7b").OrThrow());
  const auto total = [&](Method method, bool quantize_embeddings, std::optional<int64_t> rejoin = 0) {
    TrainOptions options = Options(method);
    options.ladder.rejoin = rejoin;
    options.compute = {{cpu::Isa::kAvx512Bf16, 2}, DType::kBf16};
    options.backbone.compute = DType::kBf16;
    if (quantize_embeddings) options.backbone.recipe.embeddings = options.backbone.recipe.matrices;
    options.tokens = options.max_length = 2048;
    return PlanRun(model, options, 2048).OrThrow().memory.total();
  };
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  const uint64_t ladder = total(Method::kLadder, false), keep = total(Method::kLora, false);
  EXPECT_LE(total(Method::kLadder, true), 6 * kGiB);
  EXPECT_LE(ladder, 12 * kGiB);
  EXPECT_LE(total(Method::kLadder, false, std::nullopt), 12 * kGiB);
  EXPECT_GT(keep, 12 * kGiB);
  EXPECT_LE(static_cast<double>(ladder) / static_cast<double>(keep), 0.5);
}

// By hand: C 128, three taps in f32; the residual stream in f32 of learned rows, or of all where a ladder
// rejoins.
TEST(PlanSearchTest, TapCacheOfATokenAsCountedByHand) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  TrainOptions options = Options(Method::kLadder);
  options.ladder.taps = "1,3,5";
  options.ladder.rejoin = 0;
  const auto expect = [&](uint64_t row, uint64_t target) {
    const PlannedRun run = PlanRun(model, options, 512).OrThrow();
    EXPECT_EQ(run.cache_row_bytes, row);
    EXPECT_EQ(run.cache_target_bytes, target);
  };
  expect(3 * 128 * 4, 128 * 4);
  options.policy.taps = model::TapStorage::kInt8;
  expect(3 * (128 + 4), 128 * 4);
  options.ladder.taps = "1,3";
  options.ladder.rejoin = 2;
  expect(2 * (128 + 4) + 128 * 4, 0);
  options.method = Method::kLora;
  options.ladder = {};
  expect(0, 0);
}

// What the search relies on, over several tiles of an MLP's rows.
TEST(PlanSearchTest, BytesOnlyGrowWithTokens) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  for (const Method method : kMethods) {
    for (const model::BlockMemory blocks : kBlocks) {
      TrainOptions options = Options(method);
      options.policy.blocks = blocks;
      uint64_t last = 0;
      for (int64_t tokens = kFitStep; tokens <= 3 * nn::BlockShape{}.mlp_rows; tokens += kFitStep) {
        options.tokens = tokens;
        options.max_length = std::min<int64_t>(tokens, 1024);
        const uint64_t bytes = PlanRun(model, options, options.max_length).OrThrow().memory.total();
        EXPECT_GT(bytes, last) << NameOf(method) << " at " << tokens;
        last = bytes;
      }
    }
  }
}

TEST(PlanSearchTest, TheLargestFitsAndOneStepMoreDoesNot) {
  const PlanModel models[] = {PlanModel::Open(kConfig).OrThrow(),
                              PlanModel(model::ShapeOf("qwen2.5-0.5b").OrThrow())};
  for (const PlanModel& model : models) {
    for (const Method method : kMethods) {
      for (const uint64_t limit : {uint64_t{70} << 20, uint64_t{800} << 20, uint64_t{3} << 30}) {
        const TrainOptions options = Options(method);
        const int64_t longest = 1000;  // not a multiple of the step
        const Fit fit = LargestFit(model, options, longest, limit).OrThrow();
        const auto bytes = [&](int64_t tokens) {
          TrainOptions at = options;
          at.tokens = tokens;
          at.max_length = std::min(tokens, longest);
          return PlanRun(model, at, at.max_length).OrThrow().memory.total();
        };
        EXPECT_GT(bytes(fit.tokens + kFitStep), limit) << NameOf(method);
        if (fit.tokens == 0) continue;
        EXPECT_EQ(fit.tokens % kFitStep, 0);
        EXPECT_EQ(fit.sequence, std::min(fit.tokens, longest));
        EXPECT_LE(bytes(fit.tokens), limit) << NameOf(method);
        EXPECT_EQ(fit.run.memory.total(), bytes(fit.tokens));
      }
    }
  }
}

TEST(PlanSearchTest, NothingFitsInLessThanTheWeights) {
  const PlanModel model(model::ShapeOf("qwen2.5-7b").OrThrow());
  const Fit fit = LargestFit(model, Options(Method::kLadder), 1024, uint64_t{3} << 30).OrThrow();
  EXPECT_EQ(fit.tokens, 0);
  EXPECT_GT(fit.run.memory.total(), uint64_t{3} << 30);
}

TEST(PlanSearchTest, PolicySetsAreThoseOfTheMethod) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  const auto flags = [&](const TrainOptions& options) {
    std::vector<std::string> texts;
    for (const PolicySet& set :
         PolicySets(model, options, ResolveAdapter(options, model.config()).OrThrow())) {
      texts.push_back(set.flags);
    }
    return texts;
  };
  EXPECT_EQ(flags(Options(Method::kLora)),
            (std::vector<std::string>{"", "--recompute", "--optimizer adamw8bit", "--quantize-embeddings",
                                      "--recompute --optimizer adamw8bit",
                                      "--recompute --optimizer adamw8bit --quantize-embeddings"}));
  std::vector<std::string> kept;
  for (const PolicySet& set :
       PolicySets(model, Options(Method::kLora),
                  ResolveAdapter(Options(Method::kLora), model.config()).OrThrow(), true)) {
    kept.push_back(set.flags);
  }
  EXPECT_EQ(kept, (std::vector<std::string>{"", "--optimizer adamw8bit", "--quantize-embeddings",
                                            "--optimizer adamw8bit --quantize-embeddings"}));
  TrainOptions ladder = Options(Method::kLadder);
  ladder.policy.rungs = model::RungMemory::kRecompute;
  ladder.backbone.recipe.embeddings = model::Quantize::kNf4;
  ladder.ladder.tap_map = model::TapMap::kPooled;
  EXPECT_EQ(flags(ladder), (std::vector<std::string>{"", "--recompute", "--optimizer adamw8bit",
                                                     "--recompute --optimizer adamw8bit"}));
  ladder.ladder.rejoin = 0;
  EXPECT_EQ(flags(ladder), (std::vector<std::string>{"", "--optimizer adamw8bit"}));
  // A GGUF file has its formats.
  const PlanModel gguf = PlanModel::Open("tests/data/models/stories260k/stories260K.gguf").OrThrow();
  for (const PolicySet& set : PolicySets(gguf, Options(Method::kLora),
                                         ResolveAdapter(Options(Method::kLora), gguf.config()).OrThrow())) {
    EXPECT_EQ(set.flags.find("quantize"), std::string::npos);
  }
}

TEST(PlanSearchTest, EveryPolicySavesMemory) {
  const PlanModel model(model::ShapeOf("qwen2.5-1.5b").OrThrow());
  for (const Method method : kMethods) {
    TrainOptions options = Options(method);
    options.tokens = options.max_length = 2048;
    const model::AdapterSpec spec = ResolveAdapter(options, model.config()).OrThrow();
    const uint64_t plain = PlanRun(model, options, 2048).OrThrow().memory.total();
    for (const PolicySet& set : PolicySets(model, options, spec)) {
      if (set.flags.empty()) continue;
      EXPECT_LT(PlanRun(model, set.Apply(options), 2048).OrThrow().memory.total(), plain) << set.flags;
    }
  }
}

}  // namespace
}  // namespace rung::train
