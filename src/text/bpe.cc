#include "text/bpe.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

// Up to here searching all pairs for the best is quicker than a heap.
constexpr size_t kShort = 40;

uint64_t KeyOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// std::*_heap keep the largest on top: the best candidate has the lowest rank, then the leftmost place.
bool IsWorse(const Bpe::Candidate& a, const Bpe::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

void MergeTable::Reserve(size_t merges) {
  size_t slots = 16;
  while (slots < merges + merges / 2) slots *= 2;
  slots_.assign(slots, Slot{});
}

size_t MergeTable::SlotOf(uint64_t key) const {
  const uint64_t mixed = key * 0x9E3779B97F4A7C15u;  // Fibonacci hashing: the high bits are the good ones
  size_t slot = static_cast<size_t>(mixed >> 32) & (slots_.size() - 1);
  while (slots_[slot].merge.rank != kNone && slots_[slot].key != key) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void MergeTable::Set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = KeyOf(left, right);
  slots_[SlotOf(key)] = {key, merge};
}

MergeTable::Merge MergeTable::Find(int32_t left, int32_t right) const {
  return slots_[SlotOf(KeyOf(left, right))].merge;
}

void Bpe::SplitBytes(std::string_view piece, std::vector<Symbol>* symbols) const {
  for (uint32_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids[static_cast<uint8_t>(piece[i])];
    if (id >= 0)
      symbols->push_back({id, i, 1, -1, -1});
    else
      PushUnknown(piece, i, 1, symbols);
  }
}

void Bpe::SplitCharacters(const Vocabulary& vocabulary, std::string_view piece,
                          std::vector<Symbol>* symbols) const {
  for (uint32_t at = 0; at < piece.size();) {
    const Utf8Step step = StepUtf8(piece.substr(at));
    const uint32_t size = step.valid ? step.size : 1;
    const int32_t id = step.valid ? vocabulary.FindPlain(piece.substr(at, size)) : -1;
    if (id >= 0 || by_score)
      symbols->push_back(
          {id, at, size, -1, -1});  // by score even an unknown character may be part of a token
    else
      PushUnknown(piece, at, size, symbols);
    at += size;
  }
}

bool Bpe::HasBytes(std::string_view text) const {
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return byte_ids[static_cast<uint8_t>(c)] >= 0; });
}

void Bpe::PushUnknown(std::string_view piece, uint32_t begin, uint32_t size,
                      std::vector<Symbol>* symbols) const {
  const std::string_view text = piece.substr(begin, size);
  if (byte_fallback && HasBytes(text)) {
    for (uint32_t i = 0; i < size; ++i)
      symbols->push_back({byte_ids[static_cast<uint8_t>(text[i])], begin + i, 1, -1, -1});
    return;
  }
  if (unknown < 0) return;
  if (fuse_unknown && !symbols->empty() && symbols->back().id == unknown)
    symbols->back().size += size;
  else
    symbols->push_back({unknown, begin, size, -1, -1});
}

MergeTable::Merge Bpe::FindMerge(const Vocabulary& vocabulary, std::string_view piece, const Symbol& left,
                                 const Symbol& right) const {
  if (!by_score) return merges.Find(left.id, right.id);
  const uint32_t size = left.size + right.size;
  if (size > vocabulary.longest()) return {};
  const int32_t id = vocabulary.Find(piece.substr(left.begin, size));
  if (id < 0) return {};
  const TokenKind kind = vocabulary.Kind(id);
  if (kind != TokenKind::kNormal && kind != TokenKind::kUserDefined) return {};
  return {score_ranks[static_cast<size_t>(id)], id};
}

void Bpe::MergeShort(const Vocabulary& vocabulary, std::string_view piece,
                     std::vector<Symbol>* symbols) const {
  std::array<MergeTable::Merge, kShort> pairs;  // pairs[i] joins symbols i and i + 1
  std::vector<Symbol>& s = *symbols;
  size_t count = s.size();
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = FindMerge(vocabulary, piece, s[i], s[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].rank == MergeTable::kNone) break;
    s[best].id = pairs[best].id;
    s[best].size += s[best + 1].size;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      s[i] = s[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --count;
    if (best > 0) pairs[best - 1] = FindMerge(vocabulary, piece, s[best - 1], s[best]);
    if (best + 1 < count) pairs[best] = FindMerge(vocabulary, piece, s[best], s[best + 1]);
  }
  s.resize(count);
}

void Bpe::MergeLong(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch) const {
  std::vector<Symbol>& s = scratch->symbols;
  std::vector<Candidate>& heap = scratch->heap;
  heap.clear();
  const auto candidate = [&](int32_t left) {
    const Symbol &a = s[static_cast<size_t>(left)], &b = s[static_cast<size_t>(a.next)];
    const MergeTable::Merge merge = FindMerge(vocabulary, piece, a, b);
    if (merge.rank != MergeTable::kNone) heap.push_back({merge.rank, left, a.size + b.size, merge.id});
    return merge.rank != MergeTable::kNone;
  };
  const auto count = static_cast<int32_t>(s.size());
  for (int32_t i = 0; i < count; ++i) {
    s[static_cast<size_t>(i)].previous = i - 1;
    s[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), IsWorse);

  while (!heap.empty()) {
    const Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), IsWorse);
    heap.pop_back();
    Symbol& left = s[static_cast<size_t>(best.left)];
    if (left.size == 0 || left.next < 0) continue;
    Symbol& right = s[static_cast<size_t>(left.next)];
    if (left.size + right.size != best.size) continue;
    left.id = best.id;
    left.size = best.size;
    right.size = 0;
    left.next = right.next;
    if (left.next >= 0) s[static_cast<size_t>(left.next)].previous = best.left;
    if (left.previous >= 0 && candidate(left.previous)) std::push_heap(heap.begin(), heap.end(), IsWorse);
    if (left.next >= 0 && candidate(best.left)) std::push_heap(heap.begin(), heap.end(), IsWorse);
  }
  std::erase_if(s, [](const Symbol& symbol) { return symbol.size == 0; });
}

void Bpe::Encode(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch,
                 std::vector<int32_t>* ids) const {
  RUNG_CHECK(piece.size() < (size_t{1} << 31), "a piece of text is less than 2 GiB");
  if (ignore_merges) {
    const int32_t id = vocabulary.FindPlain(piece);
    if (id >= 0) return ids->push_back(id);
  }
  std::vector<Symbol>& symbols = scratch->symbols;
  symbols.clear();
  if (bytes)
    SplitBytes(piece, &symbols);
  else
    SplitCharacters(vocabulary, piece, &symbols);
  if (symbols.size() <= kShort)
    MergeShort(vocabulary, piece, &symbols);
  else
    MergeLong(vocabulary, piece, scratch);
  for (const Symbol& symbol : symbols) PushIds(piece, symbol, ids);
}

void Bpe::PushIds(std::string_view piece, const Symbol& symbol, std::vector<int32_t>* ids) const {
  if (symbol.id >= 0) return ids->push_back(symbol.id);
  // Only by score: a character that became part of no token.
  const std::string_view text = piece.substr(symbol.begin, symbol.size);
  if (HasBytes(text)) {
    for (const char c : text) ids->push_back(byte_ids[static_cast<uint8_t>(c)]);
  } else if (unknown >= 0 && !(fuse_unknown && !ids->empty() && ids->back() == unknown)) {
    ids->push_back(unknown);
  }
}

}  // namespace rung::text
