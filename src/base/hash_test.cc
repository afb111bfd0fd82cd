#include "base/hash.h"

#include <gtest/gtest.h>

namespace rung {
namespace {

// By an implementation in another language; docs/formats/tap_cache.md's text is compared in
// model/tap_cache_test.cc.
TEST(HashText, IsTheDocumentedChecksum) {
  EXPECT_EQ(HashText(""), "f7d879f9525c1ab6");
  EXPECT_EQ(HashText("a"), "3b08b29175290b9a");
  EXPECT_EQ(HashText("model=smollm2;taps=5,11;store=bf16"), "dd20171c39e9c0fc");
  EXPECT_EQ(HashText(std::string(1000, 'x')), "19b9be0382d41b2a");
}

TEST(Checksum, CutsOfTheBytesChangeNothing) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>(i * 37);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  for (size_t size = 0; size <= text.size(); ++size) {
    for (size_t cut = 0; cut <= size; cut += 7) {
      Checksum parts(5);
      parts.Add(bytes.first(cut));
      parts.Add(bytes.subspan(cut, size - cut));
      EXPECT_EQ(parts.Finish(), HashOf(bytes.first(size), 5)) << size << " cut at " << cut;
    }
  }
  EXPECT_NE(HashOf(bytes, 5), HashOf(bytes, 6));
  EXPECT_NE(Checksum::SeedOf(1, 0), Checksum::SeedOf(1, 1));
}

}  // namespace
}  // namespace rung
