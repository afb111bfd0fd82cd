// The texts of all tokens in one buffer, and a hash index from text to id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rung::text {

// Values as in GGUF's tokenizer.ggml.token_type. kUnused is also an id that has no token.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // special: never read from plain text
  kUserDefined = 4,  // matched in plain text before the model sees it
  kUnused = 5,
  kByte = 6  // one byte, written <0xNN>
};

class Vocabulary {
 public:
  static constexpr int64_t kMaxTokens = 1 << 22;  // larger ids are damage, and would cost memory

  // False when the id is outside [0,kMaxTokens), is taken, or the texts are more than 4 GiB.
  bool Add(int64_t id, std::string_view text, TokenKind kind);
  void SetKind(int32_t id, TokenKind kind) { entries_[static_cast<size_t>(id)].kind = kind; }
  // After the last Add. Of two tokens with one text a normal one wins, then the lower id.
  void BuildIndex();

  int32_t Find(std::string_view text) const;  // -1: no such token
  // A token that the model reads from plain text: neither special nor added beside the model.
  int32_t FindPlain(std::string_view text) const;
  std::string_view Text(int32_t id) const;  // empty for ids without a token
  TokenKind Kind(int32_t id) const;
  bool Has(int64_t id) const;
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }  // largest id + 1
  uint32_t longest() const { return longest_; }                           // bytes

 private:
  struct Entry {
    uint32_t begin = 0, size = 0;
    TokenKind kind = TokenKind::kUnused;
    bool present = false;
  };
  void Insert(int32_t id);
  size_t SlotOf(std::string_view text) const;

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<int32_t> slots_;  // open addressing, a power of two; -1 is free
  uint32_t longest_ = 0;
};

// The byte of "<0xNN>", -1 for other texts.
int ByteOfToken(std::string_view text);

}  // namespace rung::text
