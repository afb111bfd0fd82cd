// Questions of records, and the memory that answering them takes.
#include "infer/answers.h"

#include <gtest/gtest.h>

#include "data/reader.h"
#include "infer/generate.h"
#include "infer/test_support.h"
#include "model/model.h"

namespace rung::infer {
namespace {

constexpr const char* kModel = "tests/data/models/stories260k/stories260K.gguf";

TEST(AnswersTest, Trims) {
  EXPECT_EQ(Trimmed(" a b\n"), "a b");
  EXPECT_EQ(Trimmed(" \t\n"), "");
  EXPECT_EQ(Trimmed(""), "");
}

TEST(AnswersTest, AsksWhatARecordAsks) {
  const model::Config config = model::ReadConfig(kModel).OrThrow();
  const model::ModelText text = model::LoadText(kModel, true, "", config.V).OrThrow();
  const data::Encoder encoder(text.vocabulary(), {});
  const auto ask = [&](const std::string& line) {
    return Ask(encoder, text.tokenizer,
               data::ParseRecords(line, "test", data::FileKind::kJsonl).OrThrow().front());
  };
  const std::optional<Question> question =
      ask(R"({"prompt": "Once upon a time", "completion": " there was "})");
  ASSERT_TRUE(question);
  EXPECT_EQ(question->asked, "Once upon a time");
  EXPECT_EQ(question->expected, "there was");
  EXPECT_GT(question->expected_tokens, 0);
  EXPECT_EQ(question->prompt.front(), text.tokenizer.bos());
  EXPECT_FALSE(ask(R"({"text": "Once upon a time"})"));
}

TEST(AnswersTest, PromptsAndAnswersFitThePositions) {
  std::vector<Question> questions(3);
  for (Question& question : questions) question.prompt.assign(50, 1);
  const AnswerShape roomy = ShapeOf(questions, 16, 20, 100);
  EXPECT_EQ(roomy.slots, 3);
  EXPECT_EQ(roomy.max_tokens, 20);
  EXPECT_EQ(roomy.capacity, 70);
  const AnswerShape tight = ShapeOf(questions, 2, 1000, 60);
  EXPECT_EQ(tight.slots, 2);
  EXPECT_EQ(tight.max_tokens, 30);
  EXPECT_EQ(tight.capacity, 60);
}

// Whatever mixture of prompts and next tokens a call has.
TEST(AnswersTest, NoCallTakesMoreThanThePlan) {
  for (const char* family : {"llama3", "gemma3", "qwen2"}) {
    for (const DType compute : {DType::kF32, DType::kBf16}) {
      if (compute == DType::kBf16 && cpu::BestIsa() != cpu::Isa::kAvx512Bf16) continue;
      SCOPED_TRACE(std::string(family) + " " + NameOf(compute));
      const Path path = Path("tests/data/families") / family;
      const model::Backbone backbone = LoadSmall(path.string(), compute);
      const model::Adapter ladder = RandomLadder(backbone.config());
      const int64_t capacity = std::min<int64_t>(backbone.positions(), 96), V = backbone.config().V;
      for (const model::Adapter* adapter : {static_cast<const model::Adapter*>(nullptr), &ladder}) {
        for (const int64_t slots : {1, 3, 7}) {
          Session session(TestContext(), compute, backbone, adapter, slots, capacity);
          const uint64_t most = session.MostBytes(kPrefillChunk);
          const uint64_t rest = Session::CacheBytes(backbone.config(), compute, adapter, slots * capacity) +
                                static_cast<uint64_t>(slots * V) * sizeof(float);
          const Rng rng(5, Stream::kInit, static_cast<uint32_t>(slots));
          uint64_t draw = 0;
          const auto below = [&](int64_t n) {
            return static_cast<int64_t>(rng.Uniform(draw++) * static_cast<float>(n)) % n;
          };
          for (int call = 0; call < 40; ++call) {
            std::vector<std::vector<int32_t>> ids(static_cast<size_t>(slots));
            std::vector<Advance> advances;
            int64_t rows = 0;
            for (int64_t slot = 0; slot < slots; ++slot) {
              int64_t left = capacity - session.length(slot);
              if (left == 0) session.Clear(slot), left = capacity;
              const int64_t count = std::min({left, kPrefillChunk - rows, below(2) ? 1 : 1 + below(left)});
              if (count < 1) continue;
              ids[static_cast<size_t>(slot)].assign(static_cast<size_t>(count), 1);
              advances.push_back({slot, ids[static_cast<size_t>(slot)]});
              rows += count;
            }
            session.Step(advances);
          }
          EXPECT_LE(session.slab_bytes() + rest, most);
          EXPECT_GE(session.slab_bytes() + rest, most / 3);  // a bound of some use
        }
      }
    }
  }
}

}  // namespace
}  // namespace rung::infer
