#include "io/json_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::io {
namespace {

std::string MessageOf(std::string_view text) {
  Result<nlohmann::json> json = ParseJson(text, "x.json");
  return json.ok() ? "accepted" : json.failure().message;
}

TEST(JsonFile, BuildsWhatNlohmannBuilds) {
  for (const char* text :
       {"null", "true", "-5", "18446744073709551615", "1.5e3", "\"a\\u00e4\\ud83e\\udd80\"", "[]", "{}",
        "[[],{},[1,[2,{\"a\":[3]}]],4]", "{\"b\":{\"a\":[1,{\"c\":null},2]},\"a\":\"x\"}"}) {
    Result<nlohmann::json> json = ParseJson(text, "x.json");
    ASSERT_TRUE(json.ok()) << json.failure().message;
    EXPECT_EQ(json.value(), nlohmann::json::parse(text)) << text;
  }
}

TEST(JsonFile, NamesLineAndColumn) {
  EXPECT_EQ(MessageOf("{\n  \"a\": 1,\n  \"b\" 2\n}").rfind("x.json:3:7: syntax error while parsing", 0), 0u)
      << MessageOf("{\n  \"a\": 1,\n  \"b\" 2\n}");
  EXPECT_EQ(MessageOf("").rfind("x.json:1:1: ", 0), 0u) << MessageOf("");
  EXPECT_EQ(MessageOf("[1e999]").rfind("x.json:1:6: ", 0), 0u) << MessageOf("[1e999]");
  EXPECT_EQ(MessageOf("\"\xff\"").rfind("x.json:1:2: ", 0), 0u) << MessageOf("\"\xff\"");
}

TEST(JsonFile, RefusesWhatAConfigurationNeverHas) {
  EXPECT_EQ(MessageOf("{\"a\":1,\"b\":2,\"a\":3}"), "x.json: key \"a\" appears twice in one object");
  EXPECT_EQ(MessageOf("{\"a\":{\"a\":{\"a\":1}}}"), "accepted");
  EXPECT_EQ(MessageOf(std::string(64, '[') + std::string(64, ']')), "accepted");
  EXPECT_EQ(MessageOf(std::string(65, '[') + std::string(65, ']')), "x.json: nested deeper than 64 levels");
  EXPECT_EQ(MessageOf(std::string(1000000, '[')), "x.json: nested deeper than 64 levels");
}

// nlohmann takes a zero byte for the end and ignores what follows.
TEST(JsonFile, RefusesZeroBytes) {
  EXPECT_EQ(MessageOf(std::string_view("{}\0{", 4)), "x.json: a zero byte at byte 2");
}

TEST(JsonFile, ReadsFiles) {
  EXPECT_EQ(ReadJson("tests/data/models/tinystories-656k/config.json").OrThrow()["hidden_size"], 128);
  EXPECT_FALSE(ReadJson("tests/data/models/tinystories-656k/config.json", 10).ok());
  EXPECT_FALSE(ReadJson("tests/data/io/none.json").ok());
}

// The parser quotes what it read last.
TEST(JsonFile, MessagesDoNotSteerTheTerminal) {
  for (const char* text : {"{\"a\xde\xc9\" 1}", "[\"\xc2\x9b\" 1]", "[\x7f]", "[\"a\x1b\"]"}) {
    const std::string message = ParseJson(text, "file").failure().message;
    EXPECT_EQ(message, Printable(message));
  }
}

}  // namespace
}  // namespace rung::io
