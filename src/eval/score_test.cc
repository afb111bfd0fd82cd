#include "eval/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "data/reader.h"
#include "infer/test_support.h"
#include "model/test_support.h"

namespace rung::eval {
namespace {

constexpr const char* kModel = "tests/data/models/stories260k/stories260K.gguf";

class ScoreTest : public testing::Test {
 protected:
  ScoreTest()
      : backbone_(infer::LoadSmall(kModel, DType::kF32)),
        ladder_(infer::RandomLadder(backbone_.config())),
        text_(model::LoadText(kModel, true, "", backbone_.config().V).OrThrow()) {}

  Subject Of(const model::Adapter* ladder) const {
    return {backbone_, ladder, text_, {infer::TestContext(), DType::kF32}};
  }

  // Nats of each learned id, from logits of one sequence at a time and a log-softmax in double.
  std::vector<double> Textbook(const model::Adapter* ladder, data::Example example) const {
    const auto N = static_cast<int64_t>(example.ids.size()) - 1;
    const int64_t C = backbone_.config().C, V = backbone_.config().V;
    const model::PackedRows rows({0, static_cast<int32_t>(N)});
    std::vector<int32_t> all(static_cast<size_t>(N));
    std::iota(all.begin(), all.end(), 0);
    const model::PassInput input{View(example.ids.data(), 1, N), rows.layout, View(all.data(), 1, N)};
    std::vector<float> z(static_cast<size_t>(N * C)), logits(static_cast<size_t>(N * V));
    model::PlanAndRun(infer::TestContext(), DType::kF32, [&](Exec& ex) {
      model::Pass pass(ex, backbone_, ladder, input, false, {});
      pass.Forward(Out{View(z.data(), N, C)});
      backbone_.Logits(ex, View(z.data(), N, C), Out{View(logits.data(), N, V)});
    });
    std::vector<double> nats;
    for (int64_t n = 0; n < N; ++n) {
      if (!example.learn[static_cast<size_t>(n) + 1]) continue;
      const float* row = logits.data() + n * V;
      double sum = 0.0;
      for (int64_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(row[v]));
      nats.push_back(std::log(sum) - static_cast<double>(row[example.ids[static_cast<size_t>(n) + 1]]));
    }
    return nats;
  }

  static std::vector<data::Record> Parse(const std::string& lines) {
    return data::ParseRecords(lines, "test", data::FileKind::kJsonl).OrThrow();
  }

  model::Backbone backbone_;
  model::Adapter ladder_;
  model::ModelText text_;
};

TEST_F(ScoreTest, LossIsTheMeanOverTargets) {
  const std::vector<data::Record> records =
      Parse(R"({"prompt": "Once upon a time", "completion": ", there was a girl."}
{"prompt": "Lily and her mom", "completion": " went to the park. They played all day."}
{"prompt": "The", "completion": " dog"})");
  const data::Encoder encoder(text_.vocabulary(), {64, true});
  const std::vector<data::Example> examples = encoder.EncodeAll(records, "test", nullptr).OrThrow();
  for (const model::Adapter* ladder :
       {static_cast<const model::Adapter*>(nullptr), &std::as_const(ladder_)}) {
    double sum = 0.0;
    int64_t count = 0;
    for (const data::Example& example : examples) {
      for (const double nats : Textbook(ladder, example)) sum += nats, ++count;
    }
    std::vector<size_t> progress;
    const LossScore score = ScoreLoss(Of(ladder), examples, 64, [&](size_t done) {
      progress.push_back(done);
      return true;
    });
    EXPECT_EQ(score.targets, count);
    EXPECT_EQ(score.records, 3);
    EXPECT_NEAR(score.loss, sum / static_cast<double>(count), 1e-4);
    EXPECT_EQ(progress.back(), 3u);
  }
  EXPECT_THROW(ScoreLoss(Of(nullptr), examples, 64, [](size_t) { return false; }), Error);
}

TEST_F(ScoreTest, ExactMatchComparesWholeAnswers) {
  // What the model says after BOS and this prompt is known:
  // tests/data/models/stories260k/expected_greedy_200.txt.
  const std::vector<data::Record> records =
      Parse(R"({"prompt": "Once upon a time", "completion": ", there was a "}
{"prompt": "Once upon a time", "completion": ", there was a dog"}
{"prompt": "Once upon a time", "completion": ", there"})");
  ExactMatchOptions options;
  options.slots = 2;
  const auto tokens = static_cast<int64_t>(text_.tokenizer.Encode(", there was a").size());
  for (options.max_new_tokens = 1; options.max_new_tokens < tokens + 3; ++options.max_new_tokens) {
    const Accuracy accuracy = ScoreExactMatch(Of(nullptr), records, options, nullptr);
    ASSERT_EQ(accuracy.answers.size(), 3u);
    EXPECT_FALSE(accuracy.answers[1].right);
    EXPECT_EQ(accuracy.answers[0].expected, ", there was a");
    EXPECT_EQ(accuracy.answers[0].got, accuracy.answers[2].got);
    EXPECT_EQ(accuracy.answers[0].right, accuracy.answers[0].got == ", there was a");
    EXPECT_EQ(accuracy.answers[2].right, accuracy.answers[2].got == ", there");
    const std::string story = ", there was a little girl named Lily.";
    EXPECT_TRUE(story.starts_with(accuracy.answers[0].got)) << accuracy.answers[0].got;
    EXPECT_DOUBLE_EQ(accuracy.share(), static_cast<double>(accuracy.right()) / 3.0);
  }
}

TEST_F(ScoreTest, ExactMatchLeavesOutRecordsWithoutAnAnswer) {
  EXPECT_TRUE(ScoreExactMatch(Of(nullptr), Parse(R"({"text": "Once"})"), {}, nullptr).answers.empty());
}

TEST_F(ScoreTest, PromptsBeyondThePositionsAreCut) {
  std::string prompt;
  for (int i = 0; i < 300; ++i) prompt += "the dog ran ";
  const std::vector<data::Record> records =
      Parse("{\"prompt\": \"" + prompt + "\", \"completion\": \"away\"}");
  EXPECT_EQ(ScoreExactMatch(Of(nullptr), records, {}, nullptr).answers.size(), 1u);
}

TEST_F(ScoreTest, RankingPicksTheMostProbableChoice) {
  const std::vector<data::Record> records = Parse(R"({"prompt": "Once upon a", "completion": " time"}
{"prompt": "Lily went to the", "completion": " park and played"}
{"prompt": "They were very", "completion": " happy"}
{"prompt": "The sky was", "completion": " purple elephants"})");
  const std::vector<std::string> choices = {" time", " park and played", " happy", " purple elephants",
                                            " dog"};
  const data::Encoder encoder(text_.vocabulary(), {64, true});
  for (const model::Adapter* ladder :
       {static_cast<const model::Adapter*>(nullptr), &std::as_const(ladder_)}) {
    for (const bool per_token : {false, true}) {
      const Accuracy accuracy = ScoreRanking(Of(ladder), records, choices, {40, 40, per_token}, nullptr);
      ASSERT_EQ(accuracy.answers.size(), records.size());
      for (size_t i = 0; i < records.size(); ++i) {
        std::string best;
        double lowest = std::numeric_limits<double>::infinity();
        for (const std::string& choice : choices) {
          const data::Record with = data::WithCompletion(records[i], choice).OrThrow();
          const std::vector<double> nats = Textbook(ladder, encoder.Encode(with).OrThrow());
          double cost = std::accumulate(nats.begin(), nats.end(), 0.0);
          if (per_token) cost /= static_cast<double>(nats.size());
          if (cost < lowest) lowest = cost, best = choice;
        }
        EXPECT_EQ(accuracy.answers[i].got, best) << i;
        EXPECT_EQ(accuracy.answers[i].right, best == records[i].completion) << i;
        EXPECT_EQ(accuracy.answers[i].expected, records[i].completion);
      }
    }
  }
}

TEST_F(ScoreTest, TheRightChoiceMayBeALabel) {
  const std::vector<std::string> choices = {" no", " yes"};
  const auto expected = [&](const std::string& line) {
    return ScoreRanking(Of(nullptr), Parse(line), choices, {}, nullptr).answers[0].expected;
  };
  EXPECT_EQ(expected(R"({"prompt": "Is it?", "completion": "yes"})"), " yes");
  EXPECT_EQ(expected(R"({"prompt": "Is it?", "completion": "?", "label": "no"})"), " no");
  EXPECT_EQ(expected(R"({"prompt": "Is it?", "completion": "?", "label": 1})"), " yes");
  EXPECT_THROW(expected(R"({"prompt": "Is it?", "completion": "?", "label": 2})"), Error);
  EXPECT_THROW(expected(R"({"prompt": "Is it?", "completion": "maybe"})"), Error);
  EXPECT_THROW(expected(R"({"text": "Is it?"})"), Error);
}

TEST_F(ScoreTest, ARecordMayBringItsOwnChoices) {
  const std::vector<data::Record> own =
      Parse(R"({"prompt": "Once upon a", "completion": " time", "choices": [" time", " purple elephants"]})");
  const Accuracy accuracy = ScoreRanking(Of(nullptr), own, {}, {}, nullptr);
  EXPECT_EQ(accuracy.answers[0].got, " time");
  EXPECT_TRUE(accuracy.answers[0].right);
  EXPECT_THROW(ScoreRanking(Of(nullptr), Parse(R"({"prompt": "a", "completion": "b"})"), {}, {}, nullptr),
               Error);
}

}  // namespace
}  // namespace rung::eval
