#include "infer/generate.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/model.h"
#include "model/test_support.h"

namespace rung::infer {
namespace {

constexpr const char* kStories = "tests/data/models/stories260k/stories260K.gguf";
constexpr const char* kTiny = "tests/data/models/tinystories-656k";

GenerateOptions Greedy(int64_t max_tokens) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  return options;
}

// A model and its tokenizer, on f32.
struct Small {
  explicit Small(const std::string& path)
      : backbone(LoadSmall(path, DType::kF32)),
        text(model::LoadText(path, true, "", backbone.config().V).OrThrow()) {}
  Session Make(int64_t slots, int64_t capacity, const model::Adapter* ladder = nullptr) const {
    return Session(TestContext(), DType::kF32, backbone, ladder, slots, capacity);
  }
  model::Backbone backbone;
  model::ModelText text;
};

TEST(GenerateTest, StoriesAreTheKnownText) {
  const Small small(kStories);
  Session session = small.Make(1, 512);
  const std::vector<int32_t> prompt = {small.text.tokenizer.bos()};
  std::string streamed;
  const Generation g = Generate(
      session, small.text.tokenizer, prompt, Greedy(200), [&](const std::string& text) { streamed += text; },
      nullptr);
  std::string want = ReadTextFile("tests/data/models/stories260k/expected_greedy_200.txt", 1 << 20).OrThrow();
  while (want.ends_with("\n")) want.pop_back();
  EXPECT_EQ(g.text, want);
  EXPECT_EQ(streamed, g.text);
  EXPECT_EQ(g.finish_reason, "length");
  EXPECT_EQ(g.ids.size(), 200u);
  EXPECT_EQ(g.prompt_tokens, 1);
}

TEST(GenerateTest, TinyStoriesAreTheKnownIds) {
  const nlohmann::json check = io::ReadJson(std::string(kTiny) + "/greedy_check.json").OrThrow();
  const auto prompt = check["prompt_ids"].get<std::vector<int32_t>>();
  const auto want = check["greedy_ids"].get<std::vector<int32_t>>();
  const Small small(kTiny);
  Session session = small.Make(1, 256);
  const Advance start{0, prompt};
  const Tensor logits = session.Step({&start, 1});
  const auto first = check["first_5_logits_at_last_prompt_position"].get<std::vector<float>>();
  const float* got = In(logits).as<float>();
  EXPECT_LE(model::RelativeError({got, got + first.size()}, first), 1e-4);

  const Generation g = Generate(session, small.text.tokenizer, prompt,
                                Greedy(static_cast<int64_t>(want.size())), nullptr, nullptr);
  EXPECT_EQ(g.ids, want);
}

TEST(GenerateTest, ManyAreTheSameAsEachAlone) {
  const Small small(kStories);
  const model::Adapter ladder = RandomLadder(small.backbone.config());
  std::vector<std::vector<int32_t>> prompts;
  for (const char* text :
       {"Once upon", "The dog ran to the park and", "Lily", "A", "Tom and his mom went", "One day"}) {
    std::vector<int32_t> ids = small.text.tokenizer.Encode(text);
    ids.insert(ids.begin(), small.text.tokenizer.bos());
    prompts.push_back(ids);
  }
  for (const model::Adapter* with : {static_cast<const model::Adapter*>(nullptr), &ladder}) {
    GenerateOptions options = Greedy(25);
    options.stop = {"there", "."};
    Session alone = small.Make(1, 64, with), together = small.Make(3, 64, with);
    std::vector<size_t> progress;
    const std::vector<Generation> many = GenerateMany(
        together, small.text.tokenizer, prompts, options, [&](size_t n) { progress.push_back(n); }, nullptr);
    ASSERT_EQ(many.size(), prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      const Generation one = Generate(alone, small.text.tokenizer, prompts[i], options, nullptr, nullptr);
      EXPECT_EQ(many[i].ids, one.ids) << i;
      EXPECT_EQ(many[i].text, one.text) << i;
      EXPECT_EQ(many[i].finish_reason, one.finish_reason) << i;
    }
    EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
    EXPECT_EQ(progress.back(), prompts.size());
  }
}

TEST(GenerateTest, LongPromptsAreFedInChunks) {
  const model::Backbone backbone = LoadSmall("tests/data/families/smollm2", DType::kF32, 700);
  const Small tokens(kStories);  // any tokenizer: ids are compared
  std::vector<std::vector<int32_t>> prompts;
  for (const int length : {600, 5, 530, 40}) {
    std::vector<int32_t> ids;
    for (int i = 0; i < length; ++i)
      ids.push_back(static_cast<int32_t>((i * 31 + length) % backbone.config().V));
    prompts.push_back(ids);
  }
  Session together(TestContext(), DType::kF32, backbone, nullptr, 3, 620);
  const std::vector<Generation> many =
      GenerateMany(together, tokens.text.tokenizer, prompts, Greedy(8), nullptr, nullptr);
  for (size_t i = 0; i < prompts.size(); ++i) {
    Session alone(TestContext(), DType::kF32, backbone, nullptr, 1, 620);
    const Advance whole{0, prompts[i]};
    const Tensor logits = alone.Step({&whole, 1});
    const float* row = In(logits).as<float>();
    const auto best = static_cast<int32_t>(std::max_element(row, row + logits.cols()) - row);
    ASSERT_FALSE(many[i].ids.empty());
    EXPECT_EQ(many[i].ids[0], best) << i;
    EXPECT_EQ(Generate(alone, tokens.text.tokenizer, prompts[i], Greedy(8), nullptr, nullptr).ids,
              many[i].ids)
        << i;
  }
}

TEST(GenerateTest, FinishReasons) {
  const Small small(kStories);
  Session session = small.Make(1, 40);
  const std::vector<int32_t> prompt = {small.text.tokenizer.bos()};
  const text::Tokenizer& tokenizer = small.text.tokenizer;
  // The cache is full before max_tokens: 40 positions, one of them BOS; the last token needs no position.
  const Generation full = Generate(session, tokenizer, prompt, Greedy(1000), nullptr, nullptr);
  EXPECT_EQ(full.finish_reason, "length");
  EXPECT_EQ(full.ids.size(), 40u);

  GenerateOptions options = Greedy(30);
  options.stop = {"was a little"};
  std::string streamed;
  const Generation stopped = Generate(
      session, tokenizer, prompt, options, [&](const std::string& text) { streamed += text; }, nullptr);
  EXPECT_EQ(stopped.finish_reason, "stop");
  EXPECT_EQ(stopped.text, "Once upon a time, there ");
  EXPECT_EQ(streamed, stopped.text);

  const std::atomic<bool> interrupt{true};
  EXPECT_EQ(Generate(session, tokenizer, prompt, Greedy(5), nullptr, &interrupt).finish_reason,
            "interrupted");
  const std::vector<Generation> many =
      GenerateMany(session, tokenizer, {prompt, prompt}, Greedy(5), nullptr, &interrupt);
  EXPECT_EQ(many[1].finish_reason, "interrupted");
  EXPECT_EQ(Generate(session, tokenizer, prompt, Greedy(0), nullptr, nullptr).ids.size(), 0u);
  EXPECT_EQ(GenerateMany(session, tokenizer, {prompt}, Greedy(0), nullptr, nullptr)[0].finish_reason,
            "length");
}

TEST(GenerateTest, SamplingIsRepeatable) {
  const Small small(kStories);
  Session session = small.Make(2, 64);
  const std::vector<int32_t> prompt = {small.text.tokenizer.bos()};
  GenerateOptions options = Greedy(30);
  options.sample = {1.0, 0.9, 0, 5};
  const std::vector<int32_t> first =
      Generate(session, small.text.tokenizer, prompt, options, nullptr, nullptr).ids;
  EXPECT_EQ(Generate(session, small.text.tokenizer, prompt, options, nullptr, nullptr).ids, first);
  options.sample.seed = 6;
  EXPECT_NE(Generate(session, small.text.tokenizer, prompt, options, nullptr, nullptr).ids, first);
}

}  // namespace
}  // namespace rung::infer
