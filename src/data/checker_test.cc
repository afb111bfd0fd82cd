// Without a model; what one adds is asked of `rung data check` (src/cli/data_test.cc).
#include "data/checker.h"

#include <fmt/format.h>

#include "base/test_support.h"

namespace rung::data {
namespace {

class CheckerTest : public FolderTest {
 protected:
  // "row defect", in the order they are told.
  std::vector<std::string> told_;
  Checker Make(const CheckOptions& options = {}) {
    return Checker(options, nullptr, [this](const Finding& found) {
      told_.push_back(fmt::format("{} {}", found.row, NameOf(found.defect)));
    });
  }
  Path File(const char* name, const std::string& lines) {
    Write(name, lines);
    return folder_ / name;
  }
};

TEST_F(CheckerTest, EveryDefectIsToldInTheOrderOfTheRows) {
  const DataFile training{File("train.jsonl",
                               "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                               "no\n"
                               "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                               "{\"prompt\": \"a\", \"completion\": \"c\"}\n"
                               "{\"prompt\": \"x\", \"completion\": \"\"}\n"
                               "{\"prompt\": \"y\", \"completion\": \"  \"}\n")};
  Checker checker = Make();
  checker.Training({&training, 1});
  EXPECT_EQ(told_,
            (std::vector<std::string>{"2 bad record", "3 duplicate", "4 another answer to the same prompt",
                                      "5 nothing to learn", "6 empty answer"}));
  told_.clear();
  checker.HeldOut(File("test.jsonl",
                       "{\"prompt\": \"new\", \"completion\": \"b\"}\n"
                       "{\"prompt\": \"a\", \"completion\": \"z\"}\n"));
  EXPECT_EQ(told_, (std::vector<std::string>{"2 stands in the training data"}));
  EXPECT_EQ(checker.records(), 8);
  EXPECT_EQ(checker.compared(), 4u);
  EXPECT_TRUE(checker.compared_all());
  EXPECT_FALSE(checker.clean());
}

TEST_F(CheckerTest, CleanDataHasNoFindings) {
  const DataFile training{File("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n")};
  Checker checker = Make();
  checker.Training({&training, 1});
  EXPECT_TRUE(checker.clean());
  EXPECT_EQ(told_, std::vector<std::string>{});
}

// A loss on the prompt learns something of an empty answer too.
TEST_F(CheckerTest, WhatIsLearnedDependsOnTheOptions) {
  const DataFile training{File("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"\"}\n")};
  CheckOptions options;
  options.train_on_prompt = true;
  Checker checker = Make(options);
  checker.Training({&training, 1});
  EXPECT_TRUE(checker.clean());
}

TEST_F(CheckerTest, WeightsThatLeaveNothingAreOfTheWholeFile) {
  const DataFile training{File("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n"), 0.5};
  Checker checker = Make();
  checker.Training({&training, 1});
  EXPECT_EQ(told_, (std::vector<std::string>{"0 left out in training"}));
}

}  // namespace
}  // namespace rung::data
