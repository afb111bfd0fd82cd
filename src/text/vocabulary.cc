#include "text/vocabulary.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace rung::text {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

bool Vocabulary::Add(int64_t id, std::string_view text, TokenKind kind) {
  if (id < 0 || id >= kMaxTokens || text.size() > std::numeric_limits<uint32_t>::max() - bytes_.size())
    return false;
  const auto at = static_cast<size_t>(id);
  if (at >= entries_.size()) entries_.resize(at + 1);
  if (entries_[at].present) return false;
  const auto size = static_cast<uint32_t>(text.size());
  entries_[at] = {static_cast<uint32_t>(bytes_.size()), size, kind, true};
  bytes_.append(text);
  longest_ = std::max(longest_, size);
  return true;
}

void Vocabulary::BuildIndex() {
  bytes_.shrink_to_fit();
  entries_.shrink_to_fit();
  size_t slots = 16;
  while (slots < entries_.size() + entries_.size() / 2) slots *= 2;
  slots_.assign(slots, -1);
  for (const bool normal : {true, false})
    for (size_t id = 0; id < entries_.size(); ++id)
      if (entries_[id].present && (entries_[id].kind == TokenKind::kNormal) == normal)
        Insert(static_cast<int32_t>(id));
}

size_t Vocabulary::SlotOf(std::string_view text) const {
  size_t slot = std::hash<std::string_view>{}(text) & (slots_.size() - 1);
  while (slots_[slot] >= 0 && Text(slots_[slot]) != text) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void Vocabulary::Insert(int32_t id) {
  const size_t slot = SlotOf(Text(id));
  if (slots_[slot] < 0) slots_[slot] = id;
}

int32_t Vocabulary::Find(std::string_view text) const { return slots_.empty() ? -1 : slots_[SlotOf(text)]; }

int32_t Vocabulary::FindPlain(std::string_view text) const {
  const int32_t id = Find(text);
  const TokenKind kind = Kind(id);
  return kind == TokenKind::kNormal || kind == TokenKind::kByte ? id : -1;
}

bool Vocabulary::Has(int64_t id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].present;
}

std::string_view Vocabulary::Text(int32_t id) const {
  if (!Has(id)) return {};
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(entry.begin, entry.size);
}

TokenKind Vocabulary::Kind(int32_t id) const {
  return Has(id) ? entries_[static_cast<size_t>(id)].kind : TokenKind::kUnused;
}

int ByteOfToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace rung::text
