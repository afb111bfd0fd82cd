// The rules of evaluation, against Hugging Face's own words, and the folder of the best adapter.
#include "train/evaluation.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/test_support.h"
#include "train/checksums.h"

namespace rung::train {
namespace {

// EarlyStoppingCallback.check_metric_value and Trainer._determine_best_metric of transformers, as they stand
// there: the callback runs before the best metric is set anew.
struct Reference {
  bool greater = false;
  double threshold = 0.0;
  std::optional<double> best_metric;
  int64_t best_step = 0, counter = 0;

  bool operator()(double value, int64_t step) {
    const auto better = [&] { return greater ? value > *best_metric : value < *best_metric; };
    if (!best_metric || (better() && std::abs(value - *best_metric) > threshold)) {
      counter = 0;
    } else {
      ++counter;
    }
    const bool is_new = !best_metric || better();
    if (is_new) best_metric = value, best_step = step;
    return is_new;
  }
};

TEST(EvaluationTest, DecidesAsHuggingFaceDoes) {
  uint64_t state = 1;
  const auto random = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 60) / 8.0;  // few values: there are equal ones
  };
  for (const EvalMetric metric : {EvalMetric::kLoss, EvalMetric::kTokenAccuracy, EvalMetric::kExactMatch}) {
    for (const double threshold : {0.0, 0.125, 0.3}) {
      EvalOptions options;
      options.metric = metric;
      options.threshold = threshold;
      options.patience = 3;
      Reference reference{metric != EvalMetric::kLoss, threshold, {}, 0, 0};
      std::optional<BestEvaluation> best;
      for (int64_t step = 1; step <= 60; ++step) {
        const double value =
            random() + (metric == EvalMetric::kLoss ? -0.01 : 0.01) * static_cast<double>(step);
        EXPECT_EQ(TakeEvaluation(options, value, step, &best), reference(value, step)) << step;
        EXPECT_EQ(best->metric, *reference.best_metric);
        EXPECT_EQ(best->step, reference.best_step);
        EXPECT_EQ(best->evaluations_since, reference.counter);
        EXPECT_EQ(StopsEarly(options, best), reference.counter >= 3);
      }
    }
  }
}

TEST(EvaluationTest, WhatIsNotFiniteIsNeverTheBest) {
  EvalOptions options;
  options.patience = 2;
  std::optional<BestEvaluation> best;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(TakeEvaluation(options, nan, 1, &best));
  EXPECT_FALSE(StopsEarly(options, best));
  EXPECT_TRUE(TakeEvaluation(options, 2.0, 2, &best));
  EXPECT_FALSE(TakeEvaluation(options, nan, 3, &best));
  EXPECT_FALSE(TakeEvaluation(options, -std::numeric_limits<double>::infinity(), 4, &best));
  EXPECT_EQ(best->step, 2);
  EXPECT_TRUE(StopsEarly(options, best));
  options.patience = 0;
  EXPECT_FALSE(StopsEarly(options, best));
}

TEST(EvaluationTest, RefusesWhatHasNoMeaning) {
  TrainOptions options;
  EXPECT_TRUE(CheckEvaluation(options).ok());
  options.eval.patience = 2;
  EXPECT_FALSE(CheckEvaluation(options).ok());
  options.eval_data = {{"valid.jsonl"}};
  EXPECT_FALSE(CheckEvaluation(options).ok());  // only one evaluation, at the end
  options.eval_steps = 10;
  EXPECT_TRUE(CheckEvaluation(options).ok());
  EXPECT_TRUE(LoadsBest(options, true));
  EXPECT_FALSE(LoadsBest(options, false));
  options.eval.load_best = false;
  EXPECT_FALSE(LoadsBest(options, true));
  options.eval = {};
  options.eval.threshold = 0.1;
  EXPECT_FALSE(CheckEvaluation(options).ok());
  options.eval = {};
  options.eval.load_best = true;
  EXPECT_TRUE(CheckEvaluation(options).ok());
  options.eval_steps = 0;
  EXPECT_FALSE(CheckEvaluation(options).ok());
  options.eval = {};
  options.eval.metric = EvalMetric::kExactMatch;
  EXPECT_TRUE(CheckEvaluation(options).ok());
  options.eval_data.clear();
  EXPECT_FALSE(CheckEvaluation(options).ok());
}

TEST(EvaluationTest, WhatWaitedMakesRoomForItsSuccessor) {
  BestFolder folder(Path("/proc/none/best"));
  const auto fail = [](const Path&) -> Status { return Failure{"no room"}; };
  const std::vector<float> values(8, 1.5f);
  const auto keep = [&](int64_t step, bool may) {
    bool asked = false;
    EXPECT_FALSE(folder
                     .Keep(
                         {1.0, step, {}}, values,
                         [&] {
                           asked = true;
                           EXPECT_FALSE(folder.waits());
                           return may;
                         },
                         fail)
                     .ok());
    EXPECT_TRUE(asked);
  };
  keep(1, true);
  EXPECT_EQ(folder.best().step, 1);
  keep(2, true);
  EXPECT_EQ(folder.best().step, 2);
  EXPECT_EQ(std::vector<float>(folder.values().begin(), folder.values().end()), values);
  keep(3, false);
  EXPECT_FALSE(folder.waits());
}

using BestFolderTest = FolderTest;

TEST_F(BestFolderTest, IsReplacedAsAWhole) {
  const Path best = folder_ / kBestFolder;
  const Measured of{"loss", "0123456789abcdef"};
  const auto step = [&] { return ReadBest(best).OrThrow().step; };
  const auto save = [](const std::string& text) {
    return [text](const Path& folder) -> Status {
      std::filesystem::create_directories(folder);
      return WriteTextFile(folder / "adapter_model.safetensors", text);
    };
  };
  EXPECT_FALSE(ReadBest(best).ok());
  ASSERT_TRUE(SaveBest(best, {1.5, 10, of}, save("first")).ok());
  EXPECT_EQ(step(), 10);
  // A save that fails leaves the one before it.
  const auto fail = [](const Path&) -> Status { return Failure{"no room"}; };
  EXPECT_FALSE(SaveBest(best, {1.4, 20, of}, fail).ok());
  EXPECT_EQ(step(), 10);
  const double value = 0.1 + 0.2;  // every bit of it is kept
  ASSERT_TRUE(SaveBest(best, {value, 15, of}, save("second")).ok());
  EXPECT_EQ(ReadBest(best).OrThrow().value, value);
  EXPECT_EQ(ReadBest(best).OrThrow().of, of);
  ASSERT_TRUE(SaveBest(best, {1.25, 20, of}, save("second")).ok());
  EXPECT_EQ(step(), 20);
  EXPECT_EQ(ReadTextFile(best / "adapter_model.safetensors", 100).OrThrow(), "second");
  EXPECT_EQ(ReadTextFile(best / "evaluation.json", 1000).OrThrow(),
            "{\n  \"step\": 20,\n  \"metric\": \"loss\",\n  \"value\": 1.25,\n  \"eval_data\": "
            "\"0123456789abcdef\"\n}\n");
  ASSERT_TRUE(WriteTextFile(best / "adapter_model.safetensors", "secund").ok());
  EXPECT_FALSE(ReadBest(best).ok());
  for (const char* text : {"{}", "[]", "{\"step\": 1.5, \"metric\": 3, \"value\": \"x\"}", "nonsense", ""}) {
    ASSERT_TRUE(WriteTextFile(best / "evaluation.json", text).ok());
    ASSERT_TRUE(WriteChecksums(best).ok());
    EXPECT_FALSE(ReadBest(best).ok()) << text;
  }
  std::filesystem::remove(best / "evaluation.json");
  ASSERT_TRUE(WriteChecksums(best).ok());
  EXPECT_NE(ReadBest(best).failure().message.find("evaluation.json: not in checksums.sha256"),
            std::string::npos);
}

}  // namespace
}  // namespace rung::train
