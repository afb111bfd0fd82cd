#include "base/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace rung {
namespace {

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 19), "1.5 MiB");
  EXPECT_EQ(FormatBytes(uint64_t{41} * (1 << 30) / 10), "4.1 GiB");
}

TEST(ParseBytes, ReadsDecimalAndBinaryUnits) {
  EXPECT_EQ(ParseBytes("4096"), 4096);
  EXPECT_EQ(ParseBytes("12GiB"), int64_t{12} << 30);
  EXPECT_EQ(ParseBytes("350MB"), 350000000);
  EXPECT_EQ(ParseBytes("1.5g"), int64_t{3} << 29);
  EXPECT_EQ(ParseBytes("2 KiB"), 2048);
  EXPECT_EQ(ParseBytes("1kB"), 1000);
  EXPECT_EQ(ParseBytes("0"), 0);
}

TEST(ParseBytes, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GB", "-1", "12 parsecs", "1e30", "nan", "inf", "1.5.5", "12GiBs"}) {
    EXPECT_EQ(ParseBytes(text), -1) << text;
  }
}

TEST(EditDistance, CountsEditsAndTranspositions) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("rank", "rnak"), 1);
  EXPECT_EQ(EditDistance("ca", "abc"), 3);  // optimal string alignment; unrestricted Damerau would say 2
}

TEST(Nearest, FindsATypingErrorAndNothingFarther) {
  constexpr std::string_view kWords[] = {"learning_rate", "rank", "layers"};
  EXPECT_EQ(Nearest("learnign_rate", kWords), "learning_rate");
  EXPECT_EQ(Nearest("rnk", kWords), "rank");
  EXPECT_EQ(Nearest("batch", kWords), "");
  EXPECT_EQ(Nearest("rank", {}), "");
}

TEST(Lowered, ChangesTheLettersOfAsciiAlone) {
  EXPECT_EQ(Lowered("Q4_K [AZ] caf\xc3\x89 \xc0"), "q4_k [az] caf\xc3\x89 \xc0");
  EXPECT_EQ(Lowered(""), "");
}

TEST(IsUtf8, AcceptsEveryScalarValue) {
  for (uint32_t point = 0; point <= 0x10ffff; point += point < 0x11000 ? 1 : 257) {
    std::string text;
    const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (point < 0x80) {
      add(point);
    } else if (point < 0x800) {
      add(0xc0 | point >> 6), add(0x80 | (point & 0x3f));
    } else if (point < 0x10000) {
      add(0xe0 | point >> 12), add(0x80 | (point >> 6 & 0x3f)), add(0x80 | (point & 0x3f));
    } else {
      add(0xf0 | point >> 18), add(0x80 | (point >> 12 & 0x3f)), add(0x80 | (point >> 6 & 0x3f)),
          add(0x80 | (point & 0x3f));
    }
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    ASSERT_EQ(IsUtf8(text), !surrogate) << point;
    ASSERT_EQ(IsUtf8("a" + text + "z"), !surrogate) << point;
    if (point >= 0x80) {
      ASSERT_FALSE(IsUtf8(text.substr(0, text.size() - 1))) << point;
    }
  }
}

TEST(IsUtf8, RefusesTheRest) {
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3(", "\xe2\x82("}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
  }
  EXPECT_TRUE(IsUtf8(std::string_view("\0", 1)));
}

TEST(Printable, EscapesWhatSteersATerminal) {
  EXPECT_EQ(Printable("plain \"text\" \\ caf\xc3\xa9 \xf0\x9f\x98\x80"),
            "plain \"text\" \\ caf\xc3\xa9 \xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("\x1b[2J\a\t\r\n\x7f"), "\\x1b[2J\\x07\\t\\r\\n\\x7f");
  EXPECT_EQ(Printable("a\xc2\x9b"
                      "2J"),
            "a\\x9b2J");  // C1: a one-character escape sequence
  EXPECT_EQ(Printable("\xe2\x80\xae"
                      "txt"),
            "\\u202etxt");                                  // right to left
  EXPECT_EQ(Printable("\xff\xe2\x82"), "\\xff\\xe2\\x82");  // no UTF-8
  EXPECT_EQ(Printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(Printable("one\ntwo\r", Newlines::kKeep), "one\ntwo\\r");
  EXPECT_EQ(Printable(""), "");
}

}  // namespace
}  // namespace rung
