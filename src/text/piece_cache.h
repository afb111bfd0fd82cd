// Ids of pieces of text that come again and again. Fixed size, no allocation; one per thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace rung::text {

// A table in which a piece has one place, and the last one to come keeps it.
class PieceCache {
 public:
  // Appends the ids and returns true when the piece is there.
  bool Get(std::string_view piece, std::vector<int32_t>* ids) const {
    if (piece.size() > kLongest) return false;
    const Slot& slot = slots_[SlotOf(piece)];
    if (slot.size != piece.size() || std::memcmp(slot.text.data(), piece.data(), piece.size()) != 0)
      return false;
    ids->insert(ids->end(), slot.ids.begin(), slot.ids.begin() + slot.count);
    return true;
  }
  // Pieces and lists that are too long are not kept.
  void Put(std::string_view piece, std::span<const int32_t> ids) {
    if (piece.size() > kLongest || piece.empty() || ids.size() > kMostIds) return;
    Slot& slot = slots_[SlotOf(piece)];
    slot.size = static_cast<uint8_t>(piece.size());
    slot.count = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.text.data(), piece.data(), piece.size());
    std::copy(ids.begin(), ids.end(), slot.ids.begin());
  }

 private:
  static constexpr size_t kSlots = 16384;  // 1 MiB
  static constexpr size_t kLongest = 30, kMostIds = 8;
  struct Slot {  // one cache line
    uint8_t size = 0, count = 0;
    std::array<char, kLongest> text;
    std::array<int32_t, kMostIds> ids;
  };
  static size_t SlotOf(std::string_view piece) { return std::hash<std::string_view>{}(piece) % kSlots; }
  std::vector<Slot> slots_ = std::vector<Slot>(kSlots);
};

}  // namespace rung::text
