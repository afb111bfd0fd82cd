#include "io/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace rung::io {
namespace {

std::string SumOf(std::string_view text) {
  Sha256 sum;
  sum.Add(std::as_bytes(std::span(text)));
  return sum.Hex();
}

// FIPS 180-4's examples, and the lengths at which padding changes.
TEST(Sha256, IsTheStandards) {
  EXPECT_EQ(SumOf(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(SumOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(SumOf("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(SumOf(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 parts;
  const std::string text(1000, 'a');
  for (size_t begin = 0, size = 1; begin < text.size(); begin += size, ++size) {
    parts.Add(std::as_bytes(std::span(text)).subspan(begin, std::min(size, text.size() - begin)));
  }
  EXPECT_EQ(parts.Hex(), SumOf(text));
}

}  // namespace
}  // namespace rung::io
