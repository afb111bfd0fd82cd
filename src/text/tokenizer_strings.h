// For tests: the texts of tools/make_tokenizer_hashes.py, made again, and the hashes of their ids.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer_fixture.h"
#include "text/utf8.h"

namespace rung::text {

// splitmix64
class MadeRandom {
 public:
  explicit MadeRandom(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t n) {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % n;
  }

 private:
  uint64_t state_;
};

// Random Unicode: all planes, marks, emoji, scripts, controls, and texts of special tokens.
inline std::string MadeString(uint64_t seed) {
  static constexpr std::array<std::string_view, 14> kSpecials = {"<s>",
                                                                 "</s>",
                                                                 "<unk>",
                                                                 "<|endoftext|>",
                                                                 "<|im_start|>",
                                                                 "<|im_end|>",
                                                                 "<|begin_of_text|>",
                                                                 "<|eot_id|>",
                                                                 "<|start_story|>",
                                                                 "<|end_story|>",
                                                                 "<think>",
                                                                 "   ",
                                                                 " </s>",
                                                                 "<pad>"};
  static constexpr std::array<std::pair<uint32_t, uint32_t>, 24> kRanges = {
      {{0x20, 0x7E},       {0x61, 0x7A},       {0x20, 0x20},        {0x00, 0x20},       {0xA0, 0x24F},
       {0x300, 0x36F},     {0x590, 0x6FF},     {0x900, 0xDFF},      {0x1100, 0x11FF},   {0xAC00, 0xD7A3},
       {0x3000, 0x9FFF},   {0x2000, 0x206F},   {0x1F300, 0x1FAFF},  {0x1F3FB, 0x1F3FF}, {0x1F1E6, 0x1F1FF},
       {0x200D, 0x200D},   {0xFE00, 0xFE0F},   {0x30, 0x39},        {0x2150, 0x24FF},   {0xE000, 0xFFFF},
       {0x10000, 0x1FFFF}, {0x20000, 0x33FFF}, {0x10000, 0x10FFFF}, {0x80, 0xD7FF}}};
  MadeRandom random(seed);
  std::string text;
  const uint64_t size = random.Below(40);
  for (uint64_t i = 0; i < size; ++i) {
    if (random.Below(24) == 0) {
      text += kSpecials[random.Below(kSpecials.size())];
      continue;
    }
    const auto [low, high] = kRanges[random.Below(kRanges.size())];
    const auto c = low + static_cast<uint32_t>(random.Below(high - low + 1));
    const uint64_t count = random.Below(16) == 0 ? 1 + random.Below(20) : 1;
    for (uint64_t k = 0; k < count; ++k) AppendUtf8(c, &text);
  }
  return text;
}

// FNV-1a, as the lines of hashes.txt have it: one hash for each 1,000 lists of ids.
class IdHash {
 public:
  void Add(std::span<const int32_t> ids) {
    Word(static_cast<uint32_t>(ids.size()));
    for (const int32_t id : ids) Word(static_cast<uint32_t>(id));
    if (++count_ % 1000 == 0) Flush();
  }
  std::string Finish() {
    if (count_ % 1000 != 0) Flush();
    return out_;
  }

 private:
  void Word(uint32_t word) {
    for (int shift = 0; shift < 32; shift += 8) hash_ = (hash_ ^ (word >> shift & 0xFF)) * 0x100000001B3u;
  }
  void Flush() {
    out_ += fmt::format("{}{:016x}", out_.empty() ? "" : " ", hash_);
    hash_ = 0xCBF29CE484222325u;
  }
  uint64_t hash_ = 0xCBF29CE484222325u;
  size_t count_ = 0;
  std::string out_;
};

}  // namespace rung::text
