#include "base/hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace rung {
namespace {

// The fractional parts of the square roots of 2 and 3, made odd: numbers without structure.
constexpr uint64_t kWord = 0x6A09E667F3BCC909;
constexpr uint64_t kLane = 0xBB67AE8584CAA73B;

// A bijection of either argument while the other is fixed: an error in one word cannot be lost later on.
inline uint64_t Round(uint64_t lane, uint64_t word) { return std::rotl(lane ^ (word * kWord), 31) * kLane; }

}  // namespace

Checksum::Checksum(uint64_t seed) {
  for (uint64_t k = 0; k < 4; ++k) lanes_[k] = (seed + k) * kLane;
}

void Checksum::Add(std::span<const std::byte> bytes) {
  total_ += bytes.size();
  if (held_ > 0) {
    const size_t n = std::min(bytes.size(), kStripe - held_);
    if (n > 0) std::memcpy(rest_ + held_, bytes.data(), n);
    held_ += n;
    bytes = bytes.subspan(n);
    if (held_ < kStripe) return;
    AddStripes(rest_, 1);
    held_ = 0;
  }
  const size_t stripes = bytes.size() / kStripe;
  AddStripes(bytes.data(), stripes);
  bytes = bytes.subspan(stripes * kStripe);
  if (!bytes.empty()) std::memcpy(rest_, bytes.data(), bytes.size());
  held_ = bytes.size();
}

uint64_t Checksum::Finish() {
  if (held_ > 0) {
    std::memset(rest_ + held_, 0, kStripe - held_);
    AddStripes(rest_, 1);
    held_ = 0;
  }
  uint64_t h = total_;
  for (const uint64_t lane : lanes_) h = Round(h, lane);
  h = (h ^ (h >> 32)) * kWord;
  h = (h ^ (h >> 29)) * kLane;
  return h ^ (h >> 32);
}

uint64_t Checksum::SeedOf(uint64_t family, uint64_t index) { return Round(family, index); }

void Checksum::AddStripes(const std::byte* bytes, size_t stripes) {
  auto [a, b, c, d] = lanes_;
  for (size_t i = 0; i < stripes; ++i, bytes += kStripe) {
    uint64_t words[4];
    std::memcpy(words, bytes, kStripe);
    a = Round(a, words[0]);
    b = Round(b, words[1]);
    c = Round(c, words[2]);
    d = Round(d, words[3]);
  }
  lanes_ = {a, b, c, d};
}

uint64_t HashOf(std::span<const std::byte> bytes, uint64_t seed) {
  Checksum checksum(seed);
  checksum.Add(bytes);
  return checksum.Finish();
}

uint64_t HashOf(std::string_view text, uint64_t seed) { return HashOf(std::as_bytes(std::span(text)), seed); }

std::string HashText(std::string_view text) { return fmt::format("{:016x}", HashOf(text, 0)); }

}  // namespace rung
