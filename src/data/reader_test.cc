#include "data/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const Path kFixtures = "tests/data/data";

template <class T>
std::string FailureOf(const Result<T>& result) {
  return result.ok() ? "no failure" : result.failure().message;
}
std::string ParseFailure(std::string_view bytes) {
  return FailureOf(ParseRecords(bytes, "x.jsonl", FileKind::kJsonl));
}

TEST(Reader, AcceptsMarkCrlfAndBlankLines) {
  const std::vector<Record> records = ReadRecords(kFixtures / "bom_crlf.jsonl").OrThrow();
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].row, 1);
  EXPECT_EQ(records[1].row, 4);
  EXPECT_EQ(records[2].row, 5);  // the last line has no line end
  EXPECT_EQ(records[0].completion, "1");
  EXPECT_EQ(records[1].label, "3");
  EXPECT_EQ(records[2].completion, "\xF0\x9F\x98\x80");
}

TEST(Reader, StopsAtTheFirstBadLineAndCountsTheRest) {
  const std::string message = FailureOf(ReadRecords(kFixtures / "bad_lines.jsonl"));
  EXPECT_THAT(message, StartsWith("tests/data/data/bad_lines.jsonl:2: \"text\" must be a string"));
  EXPECT_THAT(message, HasSubstr("and 2 more bad rows"));
  EXPECT_THAT(ParseFailure("{\"text\": \"a\"}\n5\n6\n"), HasSubstr("and 1 more bad row"));
  EXPECT_THAT(ParseFailure("{\"text\": \"a\"}\n5\n"), testing::Not(HasSubstr("more bad row")));
}

TEST(Reader, LeavesOutAllowedBadLines) {
  std::vector<std::string> bad;
  ReadOptions options;
  options.max_bad_rows = 3;
  const std::vector<Record> records = ReadRecords(kFixtures / "bad_lines.jsonl", options, &bad).OrThrow();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1].row, 3);
  EXPECT_THAT(bad,
              ElementsAre(HasSubstr("bad_lines.jsonl:2: "), HasSubstr("bad_lines.jsonl:4: not valid JSON"),
                          HasSubstr("bad_lines.jsonl:5: this record is prompt-completion")));
  options.max_bad_rows = 2;
  EXPECT_THAT(FailureOf(ReadRecords(kFixtures / "bad_lines.jsonl", options)), HasSubstr("2 are allowed"));
}

TEST(Reader, RefusesMixedShapes) {
  EXPECT_THAT(ParseFailure("\n{\"text\": \"a\"}\n{\"prompt\": \"p\", \"completion\": \"c\"}\n"),
              StartsWith("x.jsonl:3: this record is prompt-completion, the one in row 2 is text"));
}

TEST(Reader, NamesWhatAForeignFileIs) {
  using namespace std::string_view_literals;
  EXPECT_THAT(FailureOf(ReadRecords(kFixtures / "page.jsonl")),
              HasSubstr("page.jsonl: not a data file: it is an HTML"));
  EXPECT_THAT(ParseFailure("[{\"text\": \"a\"}]"), HasSubstr("JSON list"));
  EXPECT_THAT(ParseFailure("{\n  \"text\": \"a\"\n}\n"), HasSubstr("several lines"));
  EXPECT_THAT(ParseFailure("\xFF\xFE{\0"sv), HasSubstr("UTF-16"));
  EXPECT_THAT(ParseFailure("\x1F\x8B\x08"), HasSubstr("it ends early"));
  EXPECT_THAT(ParseFailure("PAR1\x15\x04"), HasSubstr("Parquet"));
  EXPECT_THAT(ParseFailure("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
              HasSubstr("git lfs pull"));
}

TEST(Reader, RefusesNothing) {
  EXPECT_THAT(ParseFailure(""), HasSubstr("x.jsonl: the file is empty"));
  EXPECT_THAT(ParseFailure("\xEF\xBB\xBF"), HasSubstr("the file is empty"));
  EXPECT_THAT(ParseFailure("\n \r\n"), HasSubstr("no row holds a record"));
}

TEST(Reader, RefusesDirectoriesAndMissingFiles) {
  EXPECT_THAT(FailureOf(ReadRecords(kFixtures)), HasSubstr("is a directory"));
  EXPECT_THAT(FailureOf(ReadRecords(kFixtures / "missing.jsonl")), HasSubstr("missing.jsonl"));
}

TEST(Reader, NamesTheRowOfAnEnormousLine) {
  const std::string bytes =
      "{\"text\": \"a\"}\n{\"text\": \"" + std::string(kMaxRowBytes, 'a') + "\"}\n{\"text\": \"b\"}\n";
  EXPECT_THAT(ParseFailure(bytes), StartsWith("x.jsonl:2: the line has 16777228 bytes"));
}

// The data sets that come with the project.
struct DataSet {
  const char* folder;
  size_t train, valid, test, choices;
};

class Examples : public testing::TestWithParam<DataSet> {};

TEST_P(Examples, AreWhole) {
  const DataSet& set = GetParam();
  const Path folder = Path("examples") / set.folder;
  std::string list = ReadTextFile(folder / "choices.txt", 1 << 20).OrThrow();
  std::set<std::string> choices;
  for (size_t at = 0, end; (end = list.find('\n', at)) != list.npos; at = end + 1)
    choices.insert(list.substr(at, end - at));
  EXPECT_EQ(choices.size(), set.choices);

  std::set<std::string> prompts;
  size_t count = 0;
  for (const auto& [name, records] :
       {std::pair{"train", set.train}, {"valid", set.valid}, {"test", set.test}}) {
    std::set<std::string> seen;
    const std::vector<Record> read = ReadRecords(folder / (std::string(name) + ".jsonl")).OrThrow();
    EXPECT_EQ(read.size(), records);
    for (const Record& record : read) {
      EXPECT_EQ(choices.count(record.completion), 1u) << record.completion;
      prompts.insert(record.prompt);
      seen.insert(record.completion);
    }
    EXPECT_EQ(seen, choices) << name << ": every choice occurs";
    count += read.size();
  }
  EXPECT_EQ(prompts.size(), count) << "a prompt is in two files";
}

INSTANTIATE_TEST_SUITE_P(All, Examples,
                         testing::Values(DataSet{"banking", 2000, 200, 500, 77},
                                         DataSet{"stories", 300, 40, 60, 8}),
                         [](const auto& set) { return std::string(set.param.folder); });

}  // namespace
}  // namespace rung::data
