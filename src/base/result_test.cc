#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace rung {
namespace {

Result<int> ParseDigit(char c) {
  if (c < '0' || c > '9') return Failure{"not a digit"};
  return c - '0';
}

TEST(Result, HoldsAValueOrAFailure) {
  EXPECT_TRUE(ParseDigit('7').ok());
  EXPECT_EQ(ParseDigit('7').value(), 7);
  EXPECT_FALSE(ParseDigit('x').ok());
  EXPECT_EQ(ParseDigit('x').failure().message, "not a digit");
  EXPECT_EQ(ParseDigit('x').failure().code, ExitCode::kBadInput);
}

TEST(Result, ThrowsWhereTheCallerCannotGoOn) {
  EXPECT_EQ(ParseDigit('7').OrThrow(), 7);
  try {
    Result<int>(Failure{"disk full", ExitCode::kFailed}).OrThrow();
    FAIL() << "no throw";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "disk full");
    EXPECT_EQ(error.code(), ExitCode::kFailed);
  }
}

TEST(Result, MovesAValueThatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(3);
  EXPECT_EQ(*std::move(result).value(), 3);
}

TEST(ResultDeathTest, WrongSideIsAMistakeOfTheProgram) {
  EXPECT_DEATH(ParseDigit('x').value(), "value\\(\\) of a failed Result");
  EXPECT_DEATH(ParseDigit('7').failure(), "failure\\(\\) of a good Result");
}

TEST(Check, EvaluatesOnceAndNamesTheCondition) {
  int calls = 0;
  RUNG_CHECK(++calls == 1, "first call");
  EXPECT_EQ(calls, 1);
  EXPECT_DEATH(RUNG_CHECK(1 > 2, "arithmetic"), "result_test.cc:[0-9]+: check failed: 1 > 2: arithmetic");
}

}  // namespace
}  // namespace rung
