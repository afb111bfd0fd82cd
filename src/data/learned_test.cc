// Which tokens of a record are learned, for every format: against pictures that transformers made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "data/encode.h"
#include "io/json_file.h"
#include "text/tokenizer.h"

namespace rung::data {
namespace {

using Json = nlohmann::ordered_json;

const Path kFixtures = "tests/data/data";

class Learned : public testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = text::Tokenizer::FromFolder(kFixtures / "tokenizer").OrThrow();
    chat_ = text::ChatTemplate::Parse(tokenizer_->chat_template(), "template").OrThrow();
    golden_ = Json::parse(ReadTextFile(kFixtures / "learned.json", 1 << 20).OrThrow());
  }
  Encoder EncoderOf(bool templated, EncodeOptions options = {}) const {
    return Encoder(VocabularyOf(*tokenizer_, templated ? &*chat_ : nullptr), options);
  }
  static Record RecordOf(const Json& entry) { return ParseRecord(entry["record"].dump()).OrThrow(); }

  // "a b [c]": learned tokens between brackets.
  std::string Picture(std::span<const int32_t> ids, std::span<const uint8_t> learned) const {
    std::string picture;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string piece = Json(tokenizer_->Piece(ids[i])).dump();
      picture += (i ? " " : "") + (learned[i] ? "[" + piece + "]" : piece);
    }
    return picture;
  }

  std::optional<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> chat_;
  Json golden_;
};

TEST_F(Learned, TokensAreThoseOfThePictures) {
  std::set<Format> formats;
  for (const Json& entry : golden_["cases"]) {
    const Record record = RecordOf(entry);
    formats.insert(record.format);
    const Result<Example> made = EncoderOf(entry["template"].get<bool>()).Encode(record);
    ASSERT_TRUE(made.ok()) << entry["name"] << ": " << made.failure().message;
    const auto ids = entry["ids"].get<std::vector<int32_t>>();
    const auto learned = entry["learned"].get<std::vector<uint8_t>>();
    EXPECT_EQ(Picture(made.value().ids, made.value().learn), Picture(ids, learned)) << entry["name"];
    EXPECT_EQ(made.value().ids, ids) << entry["name"];
  }
  EXPECT_EQ(formats.size(), FormatNames().size() - 1) << "every format has a picture";
}

TEST_F(Learned, TokensDecodeToTheAnswersAndTheirEnds) {
  int checked = 0;
  for (const Json& entry : golden_["cases"]) {
    const Record record = RecordOf(entry);
    std::string expected;
    if (record.shape == Shape::kCompletion) expected = record.completion + "</s>";
    if (record.shape == Shape::kText) expected = record.text + "</s>";
    for (const Segment& segment : record.segments) expected += segment.learned ? segment.text : "";
    for (size_t i = 0; i < record.messages.size(); ++i) {
      const text::Message& message = record.messages[i];
      if (message.role != "assistant" || (!record.learned.empty() && !record.learned[i])) continue;
      if (!message.extra.empty()) {
        expected += "<call>" + Json::parse(message.extra)["tool_calls"][0]["function"].dump() + "</s>";
        // The template's tojson puts a space behind commas and colons.
        continue;
      }
      expected += message.content + "</s>";
    }
    const Example example = EncoderOf(entry["template"].get<bool>()).Encode(record).OrThrow();
    std::vector<int32_t> learned;
    for (size_t i = 0; i < example.ids.size(); ++i) {
      if (example.learn[i]) learned.push_back(example.ids[i]);
    }
    std::string text = tokenizer_->Decode(learned, false);
    if (expected.find("<call>") != expected.npos) {
      const auto squeeze = [](std::string& from) { std::erase(from, ' '); };
      squeeze(text);
      squeeze(expected);
    }
    EXPECT_EQ(text, expected) << entry["name"];
    EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), tokenizer_->bos()), 1) << "one BOS";
    EXPECT_EQ(example.ids.front(), tokenizer_->bos());
    ++checked;
  }
  EXPECT_GE(checked, 13);
}

TEST_F(Learned, HistoryIsMaskedOnRequest) {
  EncodeOptions options;
  options.mask_history = true;
  for (const Json& entry : golden_["cases"]) {
    if (entry["name"] != "messages") continue;
    const Example last = EncoderOf(true, options).Encode(RecordOf(entry)).OrThrow();
    const Example all = EncoderOf(true).Encode(RecordOf(entry)).OrThrow();
    EXPECT_EQ(last.ids, all.ids);
    EXPECT_EQ(last.target_count(), 6) << "Spot. and its end";
    EXPECT_GT(all.target_count(), 6);
  }
}

TEST_F(Learned, NothingIsWhenNoAnswerIs) {
  const Encoder encoder = EncoderOf(true);
  const char* none =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": false}]})";
  EXPECT_FALSE(encoder.Encode(ParseRecord(none).OrThrow()).ok());
  const char* segments = R"({"segments": [{"label": false, "text": "a"}]})";
  EXPECT_THAT(encoder.Encode(ParseRecord(segments).OrThrow()).failure().message,
              testing::HasSubstr("no text in a segment with the label true"));
}

}  // namespace
}  // namespace rung::data
