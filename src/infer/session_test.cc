// Generation with caches against the same model run over the whole sequence at once.
#include "infer/session.h"

#include <gtest/gtest.h>

#include <numeric>

#include "infer/test_support.h"
#include "model/test_support.h"

namespace rung::infer {
namespace {

using model::RelativeError;

constexpr const char* kModel = "tests/data/families/llama3";

std::vector<int32_t> SomeIds(size_t count, int64_t V, int32_t salt) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>((static_cast<int64_t>(i) * 37 + salt * 11 + 5) % V));
  }
  return ids;
}

// Logits of every row, without any cache.
std::vector<float> Recompute(const model::Backbone& backbone, const model::Adapter* ladder, DType compute,
                             std::vector<int32_t> ids) {
  const auto N = static_cast<int64_t>(ids.size());
  const model::PackedRows rows({0, static_cast<int32_t>(N)});
  std::vector<int32_t> all(ids.size());
  std::iota(all.begin(), all.end(), 0);
  const model::PassInput input{View(ids.data(), 1, N), rows.layout, View(all.data(), 1, N)};
  std::vector<float> z(static_cast<size_t>(N * backbone.config().C)),
      logits(static_cast<size_t>(N * backbone.config().V));
  model::PlanAndRun(TestContext(), compute, [&](Exec& ex) {
    const Tensor states = View(z.data(), N, backbone.config().C);
    model::Pass pass(ex, backbone, ladder, input, false, {});
    pass.Forward(Out{states});
    backbone.Logits(ex, states, Out{View(logits.data(), N, backbone.config().V)});
  });
  return logits;
}

std::vector<float> RowOf(const std::vector<float>& logits, size_t row, int64_t V) {
  const auto begin = logits.begin() + static_cast<int64_t>(row) * V;
  return {begin, begin + V};
}

std::vector<float> RowOf(const Tensor& logits, int64_t row) {
  const float* data = In(logits).as<float>() + row * logits.cols();
  return {data, data + logits.cols()};
}

enum class With { kNothing, kLadder, kRejoining };
struct Case {
  With with;
  DType compute;
  double tolerance;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << NameOf(c.compute)
       << (c.with == With::kNothing  ? ""
           : c.with == With::kLadder ? " ladder"
                                     : " rejoining ladder");
}

class SessionTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().compute == DType::kBf16 && cpu::BestIsa() != cpu::Isa::kAvx512Bf16) {
      GTEST_SKIP() << "this machine has no bf16 products";
    }
    backbone_ = std::make_unique<model::Backbone>(LoadSmall(kModel, GetParam().compute, 128));
    const model::Config& config = backbone_->config();
    if (GetParam().with != With::kNothing) {
      adapter_ = std::make_unique<model::Adapter>(GetParam().with == With::kLadder ? RandomLadder(config)
                                                                                   : RandomRejoining(config));
    }
  }
  Session Make(int64_t slots, int64_t capacity) const {
    return Session(TestContext(), GetParam().compute, *backbone_, adapter_.get(), slots, capacity);
  }
  std::unique_ptr<model::Backbone> backbone_;
  std::unique_ptr<model::Adapter> adapter_;
};

TEST_P(SessionTest, CachedEqualsRecomputation) {
  const int64_t V = backbone_->config().V;
  const std::vector<int32_t> ids = SomeIds(40, V, 1);
  const std::vector<float> want = Recompute(*backbone_, adapter_.get(), GetParam().compute, ids);
  Session session = Make(1, 40);
  // Chunks of a prompt of odd sizes, then one id at a time.
  size_t fed = 0;
  for (const size_t count : {7u, 1u, 12u}) {
    const Advance part{0, std::span(ids).subspan(fed, count)};
    const Tensor logits = session.Step({&part, 1});
    fed += count;
    EXPECT_LE(RelativeError(RowOf(logits, 0), RowOf(want, fed - 1, V)), GetParam().tolerance) << fed;
  }
  for (; fed < ids.size(); ++fed) {
    const Advance one{0, std::span(ids).subspan(fed, 1)};
    EXPECT_LE(RelativeError(RowOf(session.Step({&one, 1}), 0), RowOf(want, fed, V)), GetParam().tolerance)
        << fed;
  }
  EXPECT_EQ(session.length(0), 40);
}

TEST_P(SessionTest, ManyTogetherEqualEachAlone) {
  const int64_t V = backbone_->config().V;
  const std::vector<std::vector<int32_t>> ids = {SomeIds(9, V, 2), SomeIds(17, V, 3), SomeIds(3, V, 4)};
  Session session = Make(4, 20);
  // A slot that was used before must leave no trace.
  const std::vector<int32_t> other = SomeIds(11, V, 9);
  const Advance before{2, other};
  session.Step({&before, 1});
  session.Clear(2);
  const Advance starts[] = {{2, std::span(ids[0]).first(8)}, {0, std::span(ids[1]).first(16)}, {3, ids[2]}};
  const Tensor first = session.Step(starts);
  EXPECT_LE(RelativeError(RowOf(first, 2),
                          RowOf(Recompute(*backbone_, adapter_.get(), GetParam().compute, ids[2]), 2, V)),
            GetParam().tolerance);
  // Not all of them, in another order.
  const Advance next[] = {{0, std::span(ids[1]).last(1)}, {2, std::span(ids[0]).last(1)}};
  const Tensor second = session.Step(next);
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<int32_t>& whole = ids[1 - i];
    const std::vector<float> want = Recompute(*backbone_, adapter_.get(), GetParam().compute, whole);
    EXPECT_LE(RelativeError(RowOf(second, static_cast<int64_t>(i)), RowOf(want, whole.size() - 1, V)),
              GetParam().tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SessionTest,
                         testing::Values(Case{With::kRejoining, DType::kF32, 1e-4},
                                         Case{With::kNothing, DType::kF32, 1e-4},
                                         Case{With::kLadder, DType::kF32, 1e-4},
                                         // Keys and values are rounded to bf16 both ways.
                                         Case{With::kNothing, DType::kBf16, 2e-2},
                                         Case{With::kLadder, DType::kBf16, 2e-2},
                                         Case{With::kRejoining, DType::kBf16, 2e-2}));

TEST(SessionTest, TheLadderChangesTheLogits) {
  const model::Backbone backbone = LoadSmall(kModel, DType::kF32, 128);
  const model::Adapter ladder = RandomLadder(backbone.config());
  const std::vector<int32_t> ids = SomeIds(12, backbone.config().V, 1);
  EXPECT_GT(RelativeError(Recompute(backbone, &ladder, DType::kF32, ids),
                          Recompute(backbone, nullptr, DType::kF32, ids)),
            1e-2);
}

TEST(SessionTest, CacheBytesAreCounted) {
  const model::Backbone backbone = LoadSmall(kModel, DType::kF32, 128);
  const model::Config& config = backbone.config();
  const model::Adapter ladder = RandomLadder(config);
  const auto kv = static_cast<uint64_t>(2 * config.L * 10 * config.Hkv * config.D * 4);
  EXPECT_EQ(Session::CacheBytes(config, DType::kF32, nullptr, 10), kv);
  EXPECT_EQ(Session::CacheBytes(config, DType::kF32, &ladder, 10), kv + 2 * 3 * 10 * 32 * 4);
}

// Windows, learned positions, fused and interleaved rows, layers with and without RoPE: with a cache as
// without.
class FamilySessionTest : public testing::TestWithParam<const char*> {};

TEST_P(FamilySessionTest, CachedEqualsRecomputation) {
  const model::Backbone backbone =
      LoadSmall(std::string("tests/data/families/") + GetParam(), DType::kF32, 128);
  const int64_t V = backbone.config().V;
  std::vector<std::unique_ptr<model::Adapter>> adapters(1);
  if (backbone.config().L > 1) {
    adapters.push_back(std::make_unique<model::Adapter>(RandomRejoining(backbone.config())));
  }
  for (const std::unique_ptr<model::Adapter>& adapter : adapters) {
    const std::vector<int32_t> ids = SomeIds(30, V, 1);
    const std::vector<float> want = Recompute(backbone, adapter.get(), DType::kF32, ids);
    Session session(TestContext(), DType::kF32, backbone, adapter.get(), 2, 30);
    // Two prompts, in chunks, then one id of each at a time.
    size_t fed = 0;
    for (const size_t count : {9u, 4u, 1u, 1u, 10u, 1u, 1u, 1u, 1u, 1u}) {
      const std::span<const int32_t> part = std::span(ids).subspan(fed, count);
      const Advance both[] = {{0, part}, {1, part}};
      const Tensor logits = session.Step(both);
      fed += count;
      EXPECT_LE(RelativeError(RowOf(logits, 0), RowOf(want, fed - 1, V)), 1e-5) << fed;
      EXPECT_LE(RelativeError(RowOf(logits, 1), RowOf(want, fed - 1, V)), 1e-5) << fed;
    }
    EXPECT_EQ(fed, ids.size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilySessionTest,
                         testing::Values("mistral_window", "qwen2_yarn", "qwen3_yarn", "smollm3",
                                         "smollm3.gguf", "granite", "olmo2", "phi3", "phi3_long", "gemma",
                                         "gemma2", "gemma3", "gemma3_images", "opt", "opt_350m", "gpt2",
                                         "gpt_neox", "gpt_neox.gguf", "gpt_neox_serial"));

}  // namespace
}  // namespace rung::infer
