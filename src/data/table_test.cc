// Tables and packed files, against what Python's csv, gzip and zstd's own program wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/reader.h"
#include "data/rows.h"
#include "io/json_file.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const Path kFixtures = "tests/data/data";

std::vector<RawRow> RowsOfText(std::string_view bytes, FileKind kind, SampleBy sample_by = SampleBy::kLine) {
  auto reader = RowReader::Over(ByteSource::OfMemory(bytes), "x", kind, sample_by).OrThrow();
  std::vector<RawRow> rows;
  for (RawRow row; reader->Next(&row).OrThrow();) rows.push_back(row);
  return rows;
}

std::string FailureOf(std::string_view bytes, FileKind kind, const ReadOptions& options = {}) {
  Result<std::vector<Record>> records = ParseRecords(bytes, "x", kind, options);
  return records.ok() ? "no failure" : records.failure().message;
}

TEST(Table, HasTheFieldsThatPythonWrote) {
  const nlohmann::json golden = io::ReadJson(kFixtures / "quoted.json").OrThrow();
  for (const char* name : {"quoted.csv", "quoted.tsv"}) {
    auto reader = RowReader::Open(kFixtures / name, SampleBy::kLine).OrThrow();
    EXPECT_EQ(reader->columns(), golden["columns"].get<std::vector<std::string>>());
    size_t at = 0;
    for (RawRow row; reader->Next(&row).OrThrow(); ++at) {
      ASSERT_LT(at, golden["rows"].size()) << name;
      EXPECT_EQ(row.error, "") << name << ":" << row.row;
      EXPECT_EQ(row.fields, golden["rows"][at].get<std::vector<std::string>>()) << name << ":" << row.row;
    }
    EXPECT_EQ(at, golden["rows"].size());
  }
}

TEST(Table, CountsLinesInsideOfQuotes) {
  const std::vector<RawRow> rows = RowsOfText("a,b\r\n\"1\n\n2\",3\n\n4,5", FileKind::kCsv);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].row, 2);
  EXPECT_THAT(rows[0].fields, ElementsAre("1\n\n2", "3"));
  EXPECT_EQ(rows[1].row, 6);
  EXPECT_THAT(rows[1].fields, ElementsAre("4", "5"));
}

TEST(Table, BecomesRecords) {
  const auto records =
      ParseRecords("\xEF\xBB\xBFprompt,completion,label\n\"2, 3\",5,\nx,y,z\n", "x", FileKind::kCsv)
          .OrThrow();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].prompt, "2, 3");
  EXPECT_EQ(records[0].label, "");
  EXPECT_EQ(records[1].label, "z");
  EXPECT_EQ(records[1].row, 3);
  const auto chats =
      ParseRecords("messages\tx\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"hi\"\"}]\"\t1\n", "x",
                   FileKind::kTsv)
          .OrThrow();
  EXPECT_EQ(chats[0].messages[0].content, "hi");
  EXPECT_THAT(FailureOf("messages\nhi\n", FileKind::kCsv),
              HasSubstr("x:2: the column \"messages\" must hold a JSON list"));
}

TEST(Table, NamesColumnsAndRowsOfMistakes) {
  EXPECT_THAT(
      FailureOf("question,answer\n1,2\n", FileKind::kCsv),
      testing::AllOf(StartsWith("x:2: expected the keys"), HasSubstr("found keys \"answer\", \"question\""),
                     HasSubstr("--columns prompt=question,completion=answer")));
  EXPECT_THAT(FailureOf("prompt,completion\n1,2\n1,2,3\n", FileKind::kCsv),
              StartsWith("x:3: expected 2 fields"));
  EXPECT_THAT(FailureOf("prompt,completion\n1,\"2\n", FileKind::kCsv),
              StartsWith("x:2: a quoted field does not end"));
  EXPECT_THAT(FailureOf("prompt,completion\n1,\"2\"3\n4,5\n", FileKind::kCsv),
              HasSubstr("goes on behind its closing"));
  EXPECT_THAT(FailureOf("text,text\n1,2\n", FileKind::kCsv), HasSubstr("is there twice"));
  EXPECT_THAT(FailureOf("\"\",\n1,2\n", FileKind::kCsv), HasSubstr("x:1: no column has a name"));
  EXPECT_THAT(FailureOf("text,b\n", FileKind::kCsv), HasSubstr("no row holds a record"));
  EXPECT_THAT(FailureOf(std::string("text,b\na\0b,c\n", 13), FileKind::kCsv),
              HasSubstr("column 1: NUL byte"));
  EXPECT_THAT(FailureOf("text,b\n\xC3(,c\n", FileKind::kCsv), HasSubstr("not valid UTF-8"));
}

// pandas.DataFrame.to_csv writes the index in such a column.
TEST(Table, LeavesOutColumnsWithoutAName) {
  const auto reader = RowReader::Over(ByteSource::OfMemory(",prompt,,completion\n0,a,x,b\n1,\"c\nd\",y,e\n"),
                                      "x", FileKind::kCsv, SampleBy::kLine)
                          .OrThrow();
  EXPECT_THAT(reader->columns(), ElementsAre("prompt", "completion"));
  RawRow row;
  ASSERT_TRUE(reader->Next(&row).OrThrow());
  EXPECT_THAT(row.fields, ElementsAre("a", "b"));
  ASSERT_TRUE(reader->Next(&row).OrThrow());
  EXPECT_THAT(row.fields, ElementsAre("c\nd", "e"));
  EXPECT_THAT(FailureOf(",text\n0,a\n1\n", FileKind::kCsv), StartsWith("x:3: expected 2 fields"));
}

TEST(Table, IsKnownByItsExtensionInCapitals) {
  EXPECT_EQ(KindOf("A/UP.CSV"), FileKind::kCsv);
  EXPECT_EQ(KindOf("up.Tsv.GZ"), FileKind::kTsv);
  EXPECT_EQ(KindOf("x.JSON.zst"), FileKind::kJson);
  EXPECT_EQ(KindOf("CSV"), FileKind::kJsonl);
}

TEST(Table, RefusesAnEnormousRowAndGoesOn) {
  const std::string bytes = "text,b\n" + std::string(kMaxRowBytes + 1, 'a') + ",1\nshort,2\n";
  const std::vector<RawRow> rows = RowsOfText(bytes, FileKind::kCsv);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[0].error, HasSubstr("the limit is 16777216"));
  EXPECT_THAT(rows[1].fields, ElementsAre("short", "2"));
}

TEST(Table, RefusesAnEnormousQuotedFieldAndGoesOn) {
  const std::string enormous(kMaxRowBytes + 1, 'a');
  const std::vector<RawRow> rows =
      RowsOfText("text,b\n\"" + enormous + "\n\"\"\",1\nshort,2\n", FileKind::kCsv);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[0].error, HasSubstr("the limit is 16777216"));
  EXPECT_EQ(rows[1].row, 4);
  EXPECT_THAT(rows[1].fields, ElementsAre("short", "2"));
  EXPECT_THAT(FailureOf("text,b\n1,\"" + enormous + "\nshort,2\n", FileKind::kCsv),
              StartsWith("x:2: a quoted field does not end"));
}

// A file of so many bytes that are never anywhere: no line end, then a good row.
class EndlessLine : public ByteSource {
 public:
  explicit EndlessLine(uint64_t bytes) : left_(bytes) {}
  Result<size_t> Read(std::span<char> into) override {
    if (left_ == 0) return tail_->Read(into);
    const auto count = static_cast<size_t>(std::min<uint64_t>(left_, into.size()));
    std::fill_n(into.begin(), count, 'a');
    left_ -= count;
    return count;
  }

 private:
  uint64_t left_;
  std::unique_ptr<ByteSource> tail_ = OfMemory("\n{\"text\": \"b\"}\n");
};

TEST(Lines, OfFourGigabytesAreNotKept) {
  constexpr uint64_t kBytes = uint64_t{4} << 30;
  auto reader = RowReader::Over(std::make_unique<EndlessLine>(kBytes), "x", FileKind::kJsonl, SampleBy::kLine)
                    .OrThrow();
  RawRow row;
  ASSERT_TRUE(reader->Next(&row).OrThrow());
  EXPECT_EQ(row.error, "the line has 4294967296 bytes, the limit is 16777216: one record a line");
  EXPECT_LE(row.text.capacity(), 4 * kMaxRowBytes);
  ASSERT_TRUE(reader->Next(&row).OrThrow());
  EXPECT_EQ(row.row, 2);
  EXPECT_EQ(row.text, "{\"text\": \"b\"}");
}

TEST(List, GivesItsElements) {
  const std::vector<RawRow> rows =
      RowsOfText(" [ {\"text\": \"a],[\\\"{\"} ,\n{\"text\": [\"b\", {}]}\n,3]\n ", FileKind::kJson);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].text, "{\"text\": \"a],[\\\"{\"} ");
  EXPECT_EQ(rows[1].text, "{\"text\": [\"b\", {}]}\n");
  EXPECT_EQ(rows[2].text, "3");
  EXPECT_EQ(rows[2].row, 3);
  const auto records =
      ParseRecords("[{\n  \"text\": \"a\"\n},\n{\"text\": \"b\"}]", "x", FileKind::kJson).OrThrow();
  EXPECT_EQ(records[1].text, "b");
  EXPECT_EQ(ParseRecords("{\"text\": \"a\"}\n{\"text\": \"b\"}\n", "x", FileKind::kJson).OrThrow().size(),
            2u);
}

TEST(List, RefusesWhatIsCutOffOrFollowed) {
  EXPECT_THAT(FailureOf("[{\"text\": \"a\"}, {\"text\"", FileKind::kJson),
              HasSubstr("cut off in its record 2"));
  EXPECT_THAT(FailureOf("[{\"text\": \"a\"}", FileKind::kJson), HasSubstr("cut off"));
  EXPECT_THAT(FailureOf("[{\"text\": \"a\"}] x", FileKind::kJson), HasSubstr("something follows the list"));
  EXPECT_THAT(FailureOf("[]", FileKind::kJson), HasSubstr("no row holds a record"));
  EXPECT_THAT(FailureOf("[{\"text\": \"a\"}, 5]", FileKind::kJson),
              StartsWith("x:2: the record is a JSON number"));
  EXPECT_THAT(FailureOf("[{\"text\": \"a\"},]", FileKind::kJson), StartsWith("x:2: not valid JSON"));
  EXPECT_THAT(FailureOf("{\n  \"text\": \"a\"\n}\n", FileKind::kJson),
              HasSubstr("as a list in a .json file"));
  const std::string large = "[\"" + std::string(kMaxRowBytes, 'a') + "\", {\"text\": \"b\"}]";
  EXPECT_THAT(FailureOf(large, FileKind::kJson), StartsWith("x:1: the record has 16777218 bytes"));
}

TEST(TextFile, IsCutIntoSamples) {
  const std::string bytes = "one\r\ntwo\n\n \nthree\n";
  const auto texts = [&](SampleBy by) {
    std::vector<std::string> found;
    for (const RawRow& row : RowsOfText(bytes, FileKind::kText, by)) {
      found.push_back(std::to_string(row.row) + ":" + row.text);
    }
    return found;
  };
  EXPECT_THAT(texts(SampleBy::kLine), ElementsAre("1:one", "2:two", "5:three"));
  EXPECT_THAT(texts(SampleBy::kParagraph), ElementsAre("1:one\ntwo", "5:three"));
  EXPECT_THAT(texts(SampleBy::kDocument), ElementsAre("1:one\ntwo\n\n \nthree"));
  EXPECT_EQ(ParseRecords("a < b\n", "x", FileKind::kText).OrThrow()[0].text, "a < b");
  EXPECT_THAT(FailureOf("<!DOCTYPE html>\n", FileKind::kText), HasSubstr("HTML"));
  ReadOptions options;
  options.record.format = Format::kMessages;
  EXPECT_THAT(FailureOf("a\n", FileKind::kText, options), HasSubstr("leave --format out"));
}

TEST(Packed, IsReadLikeThePlainFile) {
  const auto plain = ReadRecords(kFixtures / "pairs.jsonl").OrThrow();
  ASSERT_EQ(plain.size(), 40u);
  for (const char* name : {"pairs.jsonl.gz", "pairs.jsonl.zst"}) {
    const auto packed = ReadRecords(kFixtures / name).OrThrow();
    ASSERT_EQ(packed.size(), plain.size()) << name;
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(packed[i].completion, plain[i].completion) << name;
      EXPECT_EQ(packed[i].row, plain[i].row) << name;
    }
  }
}

TEST(Packed, SaysWhenItIsCutOffOrDamaged) {
  for (const char* name : {"pairs.jsonl.gz", "pairs.jsonl.zst"}) {
    const std::string bytes = [&] {
      const MappedFile file = MappedFile::Open(kFixtures / name).OrThrow();
      return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    }();
    for (size_t size = 4; size < bytes.size(); ++size) {
      // The first gzip member alone is a whole file.
      const std::string message = FailureOf(std::string_view(bytes).substr(0, size), FileKind::kJsonl);
      const bool whole = message == "no failure";
      EXPECT_TRUE(whole || message.find("the archive is damaged: it ends early") != message.npos ||
                  message.find("not valid JSON") != message.npos)
          << name << " cut to " << size << ": " << message;
      EXPECT_FALSE(whole && std::string_view(name).ends_with(".zst"));
    }
    std::string damaged = bytes;
    damaged[bytes.size() / 3] = static_cast<char>(~damaged[bytes.size() / 3]);
    EXPECT_NE(FailureOf(damaged, FileKind::kJsonl), "no failure") << name;
  }
  const Path text = std::filesystem::temp_directory_path() / "rung_plain.jsonl.gz";
  ASSERT_TRUE(WriteTextFile(text, "{\"text\": \"a\"}\n").ok());
  const auto refused = ReadRecords(text);
  std::filesystem::remove(text);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.failure().message, HasSubstr("its first bytes are not those of a .gz file"));
}

TEST(Packed, MayEndInZeros) {
  const MappedFile file = MappedFile::Open(kFixtures / "pairs.jsonl.gz").OrThrow();
  const std::string bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  for (const size_t zeros : {size_t{1}, size_t{512}, size_t{1} << 20}) {
    EXPECT_EQ(ParseRecords(bytes + std::string(zeros, '\0'), "x.gz", FileKind::kJsonl).OrThrow().size(), 40u);
    EXPECT_THAT(FailureOf(bytes + std::string(zeros, '\0') + "x", FileKind::kJsonl),
                HasSubstr("the archive is damaged"));
  }
  // A member may follow.
  EXPECT_EQ(ParseRecords(bytes + std::string(100, '\0') + bytes, "x.gz", FileKind::kJsonl).OrThrow().size(),
            80u);
}

TEST(Columns, KeepTheOtherKeysOfTheirFormat) {
  const auto read = [](const char* columns, const char* line) {
    ReadOptions options;
    EXPECT_TRUE(options.record.columns.AddNames(columns).ok());
    return ParseRecords(line, "x", FileKind::kJsonl, options);
  };
  const char* alpaca =
      "{\"instruction\": \"i\", \"context\": \"c\", \"output\": \"o\", \"text\": \"unused\"}\n";
  const Record record = read("input=context", alpaca).OrThrow()[0];
  EXPECT_EQ(record.prompt, "i\nc");
  EXPECT_EQ(record.completion, "o");
  const char* pair = "{\"prompt\": \"p\", \"completion\": \"c\", \"gold\": 3}\n";
  EXPECT_EQ(read("label=gold", pair).OrThrow()[0].label, "3");
  EXPECT_EQ(read("label=gold", pair).OrThrow()[0].completion, "c");
  // A column that is taken for another key is not its own key too.
  const char* turned = "{\"text\": \"p\", \"input\": \"c\", \"prompt\": \"x\"}\n";
  EXPECT_EQ(read("prompt=text,completion=input", turned).OrThrow()[0].prompt, "p");
  // A message names the keys that the file has.
  EXPECT_THAT(read("input=context", "{\"context\": \"c\", \"question\": \"q\"}\n").failure().message,
              HasSubstr("found keys \"context\", \"question\""));
}

TEST(Columns, TakeOtherNamesAndTemplates) {
  ReadOptions options;
  ASSERT_TRUE(options.record.columns.AddNames("completion=answer").ok());
  ASSERT_TRUE(options.record.columns.AddTemplate("prompt", "Q{{{n}}}: {question}\\nA:").ok());
  const char* line =
      "{\"question\": \"2 + 3?\", \"n\": 7, \"answer\": \"5\", \"text\": \"unused\", \"label\": \"x\"}\n";
  const Record record = ParseRecords(line, "x", FileKind::kJsonl, options).OrThrow()[0];
  EXPECT_EQ(record.prompt, "Q{7}: 2 + 3?\nA:");
  EXPECT_EQ(record.completion, "5");
  EXPECT_EQ(record.label, "x");
  EXPECT_THAT(
      FailureOf("{\"question\": \"q\", \"n\": 1, \"anser\": \"5\"}\n", FileKind::kJsonl, options),
      HasSubstr(
          "there is no column \"answer\"; found \"anser\", \"n\", \"question\"; did you mean \"anser\"?"));
  EXPECT_THAT(FailureOf("{\"question\": null, \"n\": 1, \"answer\": \"5\"}\n", FileKind::kJsonl, options),
              HasSubstr("must be a text or a number, it is null"));
  // Keys inside of a mapped list keep their order.
  ReadOptions chats;
  ASSERT_TRUE(chats.record.columns.AddNames("messages=dialog,tools=functions").ok());
  const Record chat = ParseRecords(
                          "{\"dialog\": [{\"role\": \"user\", \"content\": \"a\", \"z\": 1, \"b\": 2}], "
                          "\"functions\": [{\"y\": 1, \"x\": 2}]}\n",
                          "x", FileKind::kJsonl, chats)
                          .OrThrow()[0];
  EXPECT_EQ(chat.messages[0].extra, "{\"z\":1,\"b\":2}");
  EXPECT_EQ(chat.tools, "[{\"y\":1,\"x\":2}]");
}

TEST(Columns, RefuseWhatIsNone) {
  Columns columns;
  EXPECT_FALSE(columns.AddNames("prompt").ok());
  EXPECT_FALSE(columns.AddNames("prompt=").ok());
  EXPECT_THAT(columns.AddNames("promt=a").failure().message, HasSubstr("did you mean \"prompt\""));
  EXPECT_TRUE(columns.AddNames("prompt=a").ok());
  EXPECT_FALSE(columns.AddNames("prompt=b").ok());
  EXPECT_FALSE(columns.AddTemplate("prompt", "{a}").ok());
  for (const char* text : {"no column", "{", "}", "{}", "{a", "a}"}) {
    EXPECT_FALSE(FieldTemplate::Parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace rung::data
