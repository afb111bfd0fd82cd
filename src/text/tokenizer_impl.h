// The parts of a loaded tokenizer, as its three readers fill them in.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/gguf.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/unigram.h"
#include "text/vocabulary.h"

namespace rung::text {

inline constexpr std::string_view kSpaceMark = "\u2581";  // SentencePiece writes spaces so

// Life of a text: raw added tokens are cut out; the rest is normalised; normalised added tokens are cut out;
// the rest is cut into pieces; within each the model joins symbols into tokens.
//
// Vocabulary texts of byte-level models are the bytes themselves, not GPT-2's printable stand-ins.
class TokenizerImpl {
 public:
  Vocabulary vocabulary;
  AddedTokens raw_added, normalized_added;
  Normalizer normalizer;
  PreTokenizer pretokenizer;
  Bpe bpe;
  std::optional<Unigram> unigram;  // in place of `bpe`
  // Set when no merge joins a token across the beginning of a word that carries a space mark, so that words
  // can be encoded one by one; the mark.
  std::string word_mark;

  // Decoding: in every token's text the first becomes the second; byte tokens become bytes.
  std::vector<std::pair<std::string, std::string>> piece_replacements;
  int leading_spaces = 0;  // at most so many are dropped from the beginning of a decoded text

  int32_t bos = -1, eos = -1;
  bool adds_bos = false;
  std::vector<int32_t> end_ids;
  std::string chat_template, kind;

  TokenizerImpl();
  ~TokenizerImpl();
  // Safe to use from several threads.
  std::vector<int32_t> Encode(std::string_view text, bool specials) const;
  void AppendPiece(int32_t id, std::string* bytes) const;
  int32_t Find(std::string_view token) const;
  // Adds a token found outside the model: to the vocabulary as well when its id is free. False: the id names
  // another text or is out of range. Before Vocabulary::BuildIndex.
  bool AddToken(const AddedToken& token);
  // Ids of the vocabulary's byte tokens ("<0xNN>"), -1 where there is none. After Vocabulary::BuildIndex.
  std::array<int32_t, 256> FindByteTokens() const;
  // Sets word_mark where the merges, or the tokens of a model by score, allow it. After the last SetMerge.
  void FindWordMark(std::string_view mark);
  // A merge of the two tokens, as the file writes them. False when one of them or their join is no token.
  bool SetMerge(std::string_view left, std::string_view right, uint32_t rank);
  // The same for "left right". Where tokens contain spaces, the first reading in which all are tokens counts.
  bool SetMerge(std::string_view pair, uint32_t rank);
  // Ends of a generation: eos and the well-known ends of a turn that are special tokens here.
  void CollectEnds();

 private:
  struct Scratch;
  class Lease;
  void EncodeNormal(std::string_view text, bool first, bool specials, Scratch* scratch) const;
  void EncodePiece(std::string_view piece, Scratch* scratch) const;
  void EncodeModel(std::string_view piece, Scratch* scratch) const;

  bool crosses_words_ =
      false;  // a merge whose right side begins with the space mark, and the left does not end in it
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  // buffers of calls that have ended; under mutex_
};

// Of a tokenizer.json: everything but what stands in the files beside it.
Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerJson(std::string_view json, const std::string& name);
Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerFolder(const Path& folder);
Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerGguf(const io::Gguf& gguf);

}  // namespace rung::text
