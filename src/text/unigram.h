// The unigram model of SentencePiece: of all ways to cut a text into tokens, the one whose scores have the
// largest sum.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocabulary.h"

namespace rung::text {

class Unigram {
 public:
  // Buffers kept from piece to piece; one per thread.
  struct Scratch {
    struct Best {
      double score;
      int32_t id;
      uint32_t begin;  // of the token that ends here; kNowhere: none does
    };
    std::vector<Best> best;  // by the byte that it ends at
    std::vector<std::pair<uint32_t, int32_t>> tokens;
  };

  // `scores`: by id, finite; no two tokens have one text. `unknown`: -1 when the model has none. Special
  // tokens are never read from text.
  void Build(const Vocabulary& vocabulary, std::vector<double> scores, int32_t unknown);

  bool byte_fallback = false;           // unknown characters become <0xNN> tokens
  std::array<int32_t, 256> byte_ids{};  // -1: missing

  // Characters that no token covers are unknown, neighbours among them one token; without an unknown token
  // the text of such a piece is dropped. O(n * longest token) in the bytes of the piece (less than 2^31).
  void Encode(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch,
              std::vector<int32_t>* ids) const;

 private:
  struct Node {
    uint32_t children = 0, count = 0;  // in nodes_, by label
    int32_t id = -1;
    uint8_t label = 0;
  };
  const Node* Child(const Node& node, uint8_t label) const;
  void FindBest(std::string_view piece, Scratch* scratch) const;
  void PushUnknown(const Vocabulary& vocabulary, std::string_view text, std::vector<int32_t>* ids) const;

  std::vector<Node> nodes_;  // a trie of all tokens, the children of a node side by side
  std::vector<double> scores_;
  double unknown_score_ = 0;
  int32_t unknown_ = -1;
};

}  // namespace rung::text
