// Byte-pair encoding of one piece of text: start from characters or bytes, join the best adjacent pair until
// none is left.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace rung::text {

// (left id, right id) -> (rank, id of the joined token); flat, open addressing.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNone;
    int32_t id = -1;
  };
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  void Reserve(size_t merges);
  void Set(int32_t left, int32_t right, Merge merge);  // a pair named twice keeps its last rank
  Merge Find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0};
    Merge merge;
  };
  size_t SlotOf(uint64_t key) const;
  std::vector<Slot> slots_ = std::vector<Slot>(16);
};

class Bpe {
 public:
  struct Symbol {
    int32_t id = -1;
    uint32_t begin = 0, size = 0;  // bytes of the piece; size 0: joined into its left neighbour
    int32_t previous = -1, next = -1;
  };
  struct Candidate {
    uint32_t rank;
    int32_t left;
    uint32_t size;  // of both symbols: a candidate whose symbols have changed since no longer fits
    int32_t id;
  };
  // Buffers kept from piece to piece; one per thread.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  bool bytes = true;  // symbols are single bytes; otherwise UTF-8 characters
  bool by_score =
      false;  // SentencePiece: any pair whose text is a token, best score first; otherwise `merges`
  bool ignore_merges = false;           // a piece that is a token is that token
  bool fuse_unknown = false;            // consecutive unknown characters become one unknown token
  bool byte_fallback = false;           // unknown characters become <0xNN> tokens
  int32_t unknown = -1;                 // -1: unknown characters are dropped
  std::array<int32_t, 256> byte_ids{};  // -1: missing
  MergeTable merges;
  std::vector<uint32_t> score_ranks;  // (V) 0 for the best score, equal for equal scores; only by_score

  // O(n log n) in the bytes of the piece (less than 2^31). Broken UTF-8 is taken byte by byte.
  void Encode(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch,
              std::vector<int32_t>* ids) const;

 private:
  void SplitBytes(std::string_view piece, std::vector<Symbol>* symbols) const;
  void SplitCharacters(const Vocabulary& vocabulary, std::string_view piece,
                       std::vector<Symbol>* symbols) const;
  void PushUnknown(std::string_view piece, uint32_t begin, uint32_t size, std::vector<Symbol>* symbols) const;
  MergeTable::Merge FindMerge(const Vocabulary& vocabulary, std::string_view piece, const Symbol& left,
                              const Symbol& right) const;
  void MergeShort(const Vocabulary& vocabulary, std::string_view piece, std::vector<Symbol>* symbols) const;
  void MergeLong(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch) const;
  void PushIds(std::string_view piece, const Symbol& symbol, std::vector<int32_t>* ids) const;
  bool HasBytes(std::string_view text) const;
};

}  // namespace rung::text
