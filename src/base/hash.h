// Checksums of 64 bits: against damage and for names, not against an adversary. docs/formats/tap_cache.md
// says how they are made; what lies on disk depends on it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace rung {

// Of bytes that come piece by piece; where they are cut changes nothing.
class Checksum {
 public:
  explicit Checksum(uint64_t seed);
  void Add(std::span<const std::byte> bytes);
  uint64_t Finish();  // once

  // A seed for number `index` of a family of checksums: other indices give other seeds.
  static uint64_t SeedOf(uint64_t family, uint64_t index);

 private:
  static constexpr size_t kStripe = 32;  // bytes: one word a lane
  void AddStripes(const std::byte* bytes, size_t stripes);

  // Four lanes, because a lane's next word waits for two multiplications of the one before.
  std::array<uint64_t, 4> lanes_;
  std::byte rest_[kStripe];
  size_t held_ = 0;  // bytes of rest_ that wait for their stripe
  uint64_t total_ = 0;
};

uint64_t HashOf(std::span<const std::byte> bytes, uint64_t seed);
uint64_t HashOf(std::string_view text, uint64_t seed);
// 16 hex digits that name a text: for folders and for long parts of a key.
std::string HashText(std::string_view text);

}  // namespace rung
