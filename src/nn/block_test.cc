#include "nn/block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "nn/block_reference.h"

namespace rung::nn {
namespace {

// How a family's block differs from the plain one.
struct Case {
  const char* name;
  BlockShape shape;
  reference::Rotation rotation;
  NormKind norm = NormKind::kRms;
  float gain_offset = 0.0f;
  bool biases = false;
  bool trained = false;  // a rung: no pairs, every weight has a gradient
};

BlockShape Plain() {
  BlockShape shape;
  shape.C = 24, shape.Hq = 4, shape.Hkv = 2, shape.D = 8, shape.F = 20;
  return shape;
}

Case& Add(std::vector<Case>* cases, const char* name) {
  return cases->emplace_back(Case{name, Plain(), {8, true, 10000.0}});
}

// Families with LayerNorm and biases.
std::vector<Case> LayerNormCases() {
  std::vector<Case> cases;
  const auto add = [&](const char* name) -> Case& {
    Case& c = Add(&cases, name);
    c.norm = NormKind::kLayer, c.biases = true, c.rotation.rotary = 0;
    c.shape.gated = false, c.shape.activation = cpu::Activation::kRelu, c.shape.Hkv = 4;
    return c;
  };
  add("opt");
  add("opt_350m").shape.norm_after_sum = true;
  {
    Case& c = add("gpt2");
    c.shape.activation = cpu::Activation::kGeluTanh, c.shape.qkv = QkvRows::kStacked;
  }
  {
    Case& c = add("gpt_neox");
    c.rotation.rotary = 4;
    c.shape.activation = cpu::Activation::kGelu;
    c.shape.parallel = true, c.shape.qkv = QkvRows::kInterleaved;
  }
  return cases;
}

std::vector<Case> Cases() {
  std::vector<Case> cases = LayerNormCases();
  const auto add = [&](const char* name) -> Case& { return Add(&cases, name); };
  add("llama");
  {
    Case& c = add("pairs_in_tiles");  // rows of GGUF's llama order; the MLP in tiles
    c.rotation.half = false;
    c.shape.mlp_rows = 9;
  }
  {
    Case& c = add("gemma2");
    c.gain_offset = 1.0f;
    c.shape.activation = cpu::Activation::kGeluTanh, c.shape.output_norms = true;
    c.shape.score_cap = 1.5f, c.shape.score_scale = 0.7f, c.shape.window = 3;
  }
  {
    Case& c = add("gemma3");
    c.gain_offset = 1.0f;
    c.shape.activation = cpu::Activation::kGeluTanh, c.shape.output_norms = true;
    c.shape.qk_norm = QkNorm::kHead, c.shape.window = 2;
  }
  {
    Case& c = add("olmo2");
    c.shape.norms = false, c.shape.output_norms = true, c.shape.qk_norm = QkNorm::kWide;
  }
  {
    Case& c = add("phi3_scaled");
    c.rotation.rotary = 6;
    c.shape.qkv = QkvRows::kStacked, c.shape.fused_gate_up = true, c.shape.mlp_rows = 9;
    c.shape.residual_scale = 0.3f;
  }
  {
    Case& c = add("parallel_normed_and_scaled");  // no family: the switches together
    c.shape.parallel = true, c.shape.output_norms = true, c.shape.residual_scale = 1.7f;
  }
  {
    Case& c = add("rung_rms");
    c.trained = true;
  }
  {
    Case& c = add("rung_layer_norm");
    c.trained = true, c.norm = NormKind::kLayer, c.biases = true;
  }
  return cases;
}

// Packed sequences in one table of positions.
struct Packed {
  std::vector<int64_t> starts;
  std::vector<int32_t> positions;
  RowLayout layout;
  explicit Packed(std::vector<int64_t> begins) : starts(std::move(begins)) {
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      const int64_t begin = starts[s], count = starts[s + 1] - starts[s];
      layout.spans.push_back({begin, count, begin, count});
      for (int64_t i = 0; i < count; ++i) positions.push_back(static_cast<int32_t>(i));
    }
    layout.position = View(positions.data(), 1, static_cast<int64_t>(positions.size()));
  }
};

// A block of random numbers, and pairs beside every layer of a frozen one.
class TestBlock {
 public:
  explicit TestBlock(const Case& c) : case_(c) {
    const BlockShape& shape = block.shape = c.shape;
    const int64_t C = shape.C, D = shape.D, q = shape.Hq * D, kv = shape.Hkv * D, F = shape.F;
    if (shape.norms || shape.norm_after_sum) {
      block.attention_norm = MakeNorm(C);
      block.mlp_norm = MakeNorm(C);
    }
    if (shape.output_norms) {
      block.attention_output_norm = MakeNorm(C);
      block.mlp_output_norm = MakeNorm(C);
    }
    if (shape.qk_norm != QkNorm::kNone) {
      block.attention.q_norm = MakeNorm(shape.qk_norm == QkNorm::kWide ? q : D);
      block.attention.k_norm = MakeNorm(shape.qk_norm == QkNorm::kWide ? kv : D);
    }
    if (shape.qkv == QkvRows::kSeparate) {
      Fill(&block.attention.q, q, C, &loras.q);
      Fill(&block.attention.k, kv, C, &loras.k);
      Fill(&block.attention.v, kv, C, &loras.v);
    } else {
      Fill(&block.attention.qkv, q + 2 * kv, C, &loras.qkv);
    }
    Fill(&block.attention.o, C, q, &loras.o);
    if (shape.fused_gate_up) {
      Fill(&block.mlp.gate_up, 2 * F, C, &loras.gate_up);
    } else {
      if (shape.gated) Fill(&block.mlp.gate, F, C, &loras.gate);
      Fill(&block.mlp.up, F, C, &loras.up);
    }
    Fill(&block.mlp.down, C, F, &loras.down);
    MakeTable();
  }

  Tensor Random(int64_t rows, int64_t cols, float deviation) {
    std::vector<float>& values = memory_.emplace_back(static_cast<size_t>(rows * cols));
    std::normal_distribution<float> normal(0.0f, deviation);
    for (float& value : values) value = normal(random_);
    return View(values.data(), rows, cols);
  }
  Tensor Zeros(int64_t rows, int64_t cols) {
    return View(memory_.emplace_back(static_cast<size_t>(rows * cols)).data(), rows, cols);
  }

  BlockCall Call(const RowLayout& rows, const KvCache* cache = nullptr) const {
    return {rows, table_, cache, &loras, 0};
  }
  void SetDropout(float p) {
    for (size_t i = 0; i < pairs_.size(); ++i) {
      pairs_[i].dropout = p, pairs_[i].seed = 11, pairs_[i].stream = static_cast<uint32_t>(i);
    }
  }
  // Everything that is trained.
  void ForEachParam(const VisitParam& visit) {
    for (Lora& lora : pairs_) visit(lora.a), visit(lora.b);
    if (case_.trained) block.ForEachParam(visit);
  }

  DecoderBlock block;
  BlockLoras loras;

 private:
  Param MakeParam(int64_t rows, int64_t cols, float deviation, bool trained) {
    Param param;
    param.value = Random(rows, cols, deviation);
    if (trained) param.grad = Zeros(rows, cols);
    return param;
  }
  Norm MakeNorm(int64_t size) {
    Norm norm;
    norm.kind = case_.norm;
    norm.gain_offset = case_.gain_offset;
    norm.gain = MakeParam(1, size, 0.3f, case_.trained);
    if (case_.gain_offset == 0.0f) {
      for (int64_t c = 0; c < size; ++c) Out{norm.gain.value}.as<float>()[c] += 1.0f;
    }
    if (case_.norm == NormKind::kLayer) norm.bias = MakeParam(1, size, 0.3f, case_.trained);
    return norm;
  }
  void Fill(Linear* layer, int64_t O, int64_t K, const Lora** pair) {
    const float deviation = 1.5f / std::sqrt(static_cast<float>(K));
    layer->trained = case_.trained;
    if (case_.trained) {
      layer->weight = MakeParam(O, K, deviation, true);
      if (case_.biases) layer->trained_bias = MakeParam(1, O, 0.3f, true);
      return;
    }
    layer->frozen = ops::AsMatrix(Random(O, K, deviation));
    if (case_.biases) {
      const float* bias = In(Random(1, O, 0.3f)).as<float>();
      layer->bias.assign(bias, bias + O);
    }
    Lora& lora = pairs_.emplace_back();
    lora.a = MakeParam(2, K, 0.3f, true);
    lora.b = MakeParam(O, 2, 0.3f, true);
    lora.scale = 0.8f;
    *pair = &lora;
  }
  void MakeTable() {
    constexpr int64_t kPositions = 16;
    const int64_t pairs = case_.rotation.rotary / 2;
    table_.rotary = case_.rotation.rotary;
    table_.half = case_.rotation.half;
    table_.cos = Zeros(kPositions, std::max<int64_t>(pairs, 1));
    table_.sin = Zeros(kPositions, std::max<int64_t>(pairs, 1));
    for (int64_t i = 0; i < kPositions * pairs; ++i) {
      const double frequency =
          std::pow(case_.rotation.theta, -static_cast<double>(i % pairs) / static_cast<double>(pairs));
      const double angle = static_cast<double>(i / pairs) * frequency;
      Out{table_.cos}.as<float>()[i] = static_cast<float>(std::cos(angle));
      Out{table_.sin}.as<float>()[i] = static_cast<float>(std::sin(angle));
    }
  }

  Case case_;
  std::mt19937 random_{7};
  std::deque<std::vector<float>> memory_;
  std::deque<Lora> pairs_;
  ops::RopeTable table_;
};

// Runs `body` in a slab of exactly the size that a plan of it asks for. The operations of its products.
double PlanAndRun(DType compute, const std::function<void(Exec&)>& body) {
  const cpu::Context context{cpu::BestIsa(), 2};
  Exec plan = Exec::Planning(context, compute);
  body(plan);
  const Slab slab(plan.arena().peak().bytes);
  Exec run(Arena(slab.base(), slab.bytes()), context, compute);
  body(run);
  EXPECT_EQ(run.fingerprint(), plan.fingerprint());
  return run.flops();
}

// Every `step`-th number.
std::vector<float> Values(const Tensor& t, int64_t step = 1) {
  std::vector<float> values;
  for (int64_t i = 0; i < t.size(); i += step) values.push_back(In(t).as<float>()[i]);
  return values;
}

// Length of the difference over that of what is wanted.
double Apart(const std::vector<float>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double apart = 0.0, all = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = static_cast<double>(got[i]) - want[i];
    apart += difference * difference;
    all += want[i] * want[i];
  }
  EXPECT_GT(all, 0.0);
  return std::sqrt(apart / all);
}

// Of long gradients every seventh number is looked at: it divides no width here, so every column has its
// turn.
constexpr int64_t kStep = 7;

class BlockTest : public testing::TestWithParam<Case> {
 protected:
  // y of x, and dx from dy in place; gradients of what is trained are added to.
  double Step(TestBlock* test, const Packed& packed, const Tensor& x, const Tensor& y, const Tensor& dy,
              Reach reach = Reach::kInput) {
    return PlanAndRun(test->block.shape.act, [&](Exec& ex) {
      DecoderBlock::Saved saved;
      const BlockCall call = test->Call(packed.layout);
      test->block.Forward(ex, x, call, Out{y}, &saved);
      test->block.Backward(ex, call, saved, Acc{dy}, reach);
    });
  }
  // The same without a backward pass, over x.
  void InPlace(TestBlock* test, const Packed& packed, const Tensor& x) {
    PlanAndRun(test->block.shape.act,
               [&](Exec& ex) { test->block.Forward(ex, x, test->Call(packed.layout), Out{x}, nullptr); });
  }
  static std::vector<double> Forward(const TestBlock& test, const Tensor& x, const Packed& packed) {
    return reference::Forward(test.block, test.loras, GetParam().rotation, x, packed.starts);
  }
  static std::vector<double> Gradient(const TestBlock& test, const Tensor& x, const Packed& packed,
                                      const std::vector<float>& dy, const Tensor& at, int64_t step = 1) {
    return reference::Gradient(test.block, test.loras, GetParam().rotation, x, packed.starts, dy, at, step);
  }
};

TEST_P(BlockTest, ForwardAndGradientsAreTheReferences) {
  TestBlock test(GetParam());
  const Packed packed({0, 7, 11});
  const int64_t N = 11, C = test.block.shape.C;
  const Tensor x = test.Random(N, C, 1.0f), y = test.Zeros(N, C), dy = test.Random(N, C, 1.0f);
  const std::vector<float> seed = Values(dy);
  Step(&test, packed, x, y, dy);
  EXPECT_LT(Apart(Values(y), Forward(test, x, packed)), 3e-6);
  EXPECT_LT(Apart(Values(dy), Gradient(test, x, packed, seed, x)), 1e-5) << "dx";
  int index = 0;
  test.ForEachParam([&](Param& param) {
    const std::vector<double> want = Gradient(test, x, packed, seed, param.value, kStep);
    EXPECT_LT(Apart(Values(param.grad, kStep), want), 1e-5) << "parameter " << index;
    ++index;
  });
  EXPECT_GE(index, 8);
}

// Where nobody wants dx: less is computed the higher the lowest trained layer stands.
TEST_P(BlockTest, GradientsWithoutThatOfTheInputAreTheSameBits) {
  using Place = const Lora* BlockLoras::*;
  const std::vector<Place> places = {&BlockLoras::q,    &BlockLoras::k,    &BlockLoras::v,
                                     &BlockLoras::qkv,  &BlockLoras::o,    &BlockLoras::up,
                                     &BlockLoras::gate, &BlockLoras::down, &BlockLoras::gate_up};
  const Packed packed({0, 7, 11});
  const auto run = [&](const std::vector<Place>& kept, Reach reach, double* flops) {
    TestBlock test(GetParam());
    const int64_t N = 11, C = test.block.shape.C;
    for (const Place place : places) {
      if (std::find(kept.begin(), kept.end(), place) == kept.end()) test.loras.*place = nullptr;
    }
    const Tensor x = test.Random(N, C, 1.0f), y = test.Zeros(N, C), dy = test.Random(N, C, 1.0f);
    *flops = Step(&test, packed, x, y, dy, reach);
    std::vector<float> gradients;
    test.ForEachParam([&](Param& param) {
      for (const float g : Values(param.grad)) gradients.push_back(g);
    });
    return gradients;
  };
  const TestBlock full(GetParam());
  std::vector<std::vector<Place>> choices = {places};
  for (const Place place : places) {
    if (full.loras.*place) choices.push_back({place});
  }
  for (const std::vector<Place>& kept : choices) {
    double whole = 0.0, less = 0.0;
    EXPECT_EQ(run(kept, Reach::kInput, &whole), run(kept, Reach::kTrained, &less));
    // A rung's norms are trained, and the lowest of them reads its input.
    if (GetParam().trained) {
      EXPECT_EQ(less, whole);
    } else {
      EXPECT_LT(less, whole);
    }
  }
}

TEST_P(BlockTest, InPlaceIsTheSameBits) {
  TestBlock test(GetParam());
  const Packed packed({0, 7, 11});
  const int64_t N = 11, C = test.block.shape.C;
  const Tensor x = test.Random(N, C, 1.0f), y = test.Zeros(N, C), dy = test.Random(N, C, 1.0f);
  Step(&test, packed, x, y, dy);
  InPlace(&test, packed, x);
  EXPECT_EQ(Values(x), Values(y));
}

TEST_P(BlockTest, CachedRowsAreThoseOfTheWholeSequence) {
  TestBlock test(GetParam());
  const Packed packed({0, 7, 11});
  const BlockShape& shape = test.block.shape;
  const int64_t C = shape.C, kv = shape.Hkv * shape.D, capacity = 7;
  const Tensor x = test.Random(11, C, 1.0f);
  const std::vector<double> want = Forward(test, x, packed);
  const KvCache cache{test.Zeros(2 * capacity, kv), test.Zeros(2 * capacity, kv)};
  const int64_t rounds[][2] = {{3, 2}, {1, 1}, {1, 1}, {2, 0}};  // rows of each sequence in one call
  int64_t done[2] = {0, 0};
  std::vector<float> got(want.size(), NAN);
  for (const auto& counts : rounds) {
    const Tensor part = test.Zeros(counts[0] + counts[1], C);
    std::vector<int32_t> positions;
    RowLayout layout;
    for (int64_t s = 0, at = 0; s < 2; at += counts[s++]) {
      if (counts[s] == 0) continue;
      layout.spans.push_back({at, counts[s], s * capacity, done[s] + counts[s]});
      const float* from = In(x).as<float>() + (packed.starts[static_cast<size_t>(s)] + done[s]) * C;
      std::copy_n(from, counts[s] * C, Out{part}.as<float>() + at * C);
      for (int64_t i = 0; i < counts[s]; ++i) positions.push_back(static_cast<int32_t>(done[s] + i));
    }
    layout.position = View(positions.data(), 1, static_cast<int64_t>(positions.size()));
    PlanAndRun(DType::kF32, [&](Exec& ex) {
      test.block.Forward(ex, part, test.Call(layout, &cache), Out{part}, nullptr);
    });
    for (int64_t s = 0, at = 0; s < 2; at += counts[s++]) {
      float* to = got.data() + (packed.starts[static_cast<size_t>(s)] + done[s]) * C;
      std::copy_n(In(part).as<float>() + at * C, counts[s] * C, to);
      done[s] += counts[s];
    }
  }
  EXPECT_LT(Apart(got, want), 3e-6);
}

// bf16 keeps 8 bits: what is off by more than a few roundings has another cause.
TEST_P(BlockTest, InBf16AllButTheLastBitsAreTheSame) {
  if (GetParam().trained) GTEST_SKIP() << "rungs are f32";
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "no bf16 products on this machine";
  TestBlock test(GetParam());
  const Packed packed({0, 7, 11});
  const int64_t N = 11, C = test.block.shape.C;
  const Tensor x = test.Random(N, C, 1.0f), y = test.Zeros(N, C), dy = test.Random(N, C, 1.0f);
  const std::vector<float> seed = Values(dy);
  const std::vector<double> want = Forward(test, x, packed),
                            gradient = Gradient(test, x, packed, seed, x, kStep);
  test.block.shape.act = DType::kBf16;
  Step(&test, packed, x, y, dy);
  EXPECT_LT(Apart(Values(y), want), 0.03);
  EXPECT_LT(Apart(Values(dy, kStep), gradient), 0.03) << "dx";
}

// Tiles of the MLP drop what the whole would, and where nothing is dropped a pair's dropout costs no memory.
// Tiles of more than 16 rows: none is left with 8 or fewer, whose products add in another order.
TEST_P(BlockTest, DropoutDoesNotSeeTilesOfTheMlp) {
  if (GetParam().trained) GTEST_SKIP() << "rungs have no pairs";
  const Packed packed({0, 13, 27, 40});
  struct Run {
    std::vector<float> y, dx;
    size_t forward;  // most bytes of a forward pass alone
  };
  const auto run = [&](int64_t mlp_rows, float dropout, uint64_t draw) {
    TestBlock test(GetParam());
    test.block.shape.mlp_rows = mlp_rows;
    test.SetDropout(dropout);
    const int64_t N = 40, C = test.block.shape.C;
    const Tensor x = test.Random(N, C, 1.0f), y = test.Zeros(N, C), dy = test.Random(N, C, 1.0f);
    BlockCall call = test.Call(packed.layout);
    call.draw = draw;
    Exec plan = Exec::Planning({cpu::BestIsa(), 2}, test.block.shape.act);
    test.block.Forward(plan, x, call, Out{x}, nullptr);
    PlanAndRun(test.block.shape.act, [&](Exec& ex) {
      DecoderBlock::Saved saved;
      test.block.Forward(ex, x, call, Out{y}, &saved);
      test.block.Backward(ex, call, saved, Acc{dy});
    });
    return Run{Values(y), Values(dy), plan.arena().peak().bytes};
  };
  const Run whole = run(1024, 0.4f, 3), tiles = run(18, 0.4f, 3);
  EXPECT_EQ(tiles.y, whole.y);
  EXPECT_EQ(tiles.dx, whole.dx);
  EXPECT_NE(whole.y, run(1024, 0.0f, 3).y);
  const Run plain = run(18, 0.0f, 0), unused = run(18, 0.4f, 0);
  EXPECT_EQ(unused.y, plain.y);
  EXPECT_EQ(unused.forward, plain.forward);
}

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
std::string NameOf(const testing::TestParamInfo<Case>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Families, BlockTest, testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace rung::nn
