// For tests: the long texts of tools/make_tokenizer_hashes.py, made again.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_fixture.h"
#include "text/tokenizer_strings.h"
#include "text/utf8.h"

namespace rung::text {

// The lines of words.txt: English words with the most frequent first, Chinese characters likewise.
inline std::vector<std::string> MadeWords() {
  const std::string list = ReadFixture(kTextData / "words.txt");
  std::vector<std::string> words;
  std::istringstream line(list.substr(0, list.find('\n')));
  for (std::string word; line >> word;) words.push_back(word);
  return words;
}

inline std::vector<std::string> MadeCharacters() {
  const std::string list = ReadFixture(kTextData / "words.txt");
  const size_t begin = list.find('\n') + 1;
  std::vector<std::string> characters;
  for (size_t at = begin; at < list.size() && list[at] != '\n'; at += characters.back().size())
    characters.push_back(list.substr(at, StepUtf8(std::string_view(list).substr(at)).size));
  return characters;
}

// Earlier words of a list more often.
inline const std::string& Pick(MadeRandom& random, const std::vector<std::string>& words) {
  const uint64_t first = random.Below(words.size()), second = random.Below(words.size());
  return words[first * second / words.size()];
}

// Parts joined to texts of at least 8192 characters; the rest, perhaps empty, is the last.
class MadeChunks {
 public:
  void Add(const std::string& part) {
    texts_.back() += part;
    for (const char c : part) characters_ += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    if (characters_ < 8192) return;
    texts_.emplace_back();
    characters_ = 0;
  }
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  std::vector<std::string> texts_ = {""};
  size_t characters_ = 0;
};

inline constexpr size_t kMadeBytes = size_t{1} << 20;

inline std::string Upper(std::string word) {
  for (char& c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return word;
}

inline std::string Capital(std::string word) {  // Python's: the rest becomes small
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return Upper(word.substr(0, 1)) + word.substr(1);
}

inline std::vector<std::string> MadeEnglish() {
  static constexpr std::array<std::string_view, 6> kEnds = {". ", "! ", "? ", ".\n", ".\n\n", "; "};
  const std::vector<std::string> words = MadeWords();
  MadeRandom random(1);
  MadeChunks chunks;
  for (size_t total = 0; total < kMadeBytes;) {
    std::string text;
    const uint64_t count = 3 + random.Below(18);
    for (uint64_t i = 0; i < count; ++i) {
      std::string word = Pick(random, words);
      const uint64_t kind = random.Below(40);
      if (kind == 0) word += "'s";
      if (kind >= 1 && kind < 4) word += ",";
      if (kind == 4) word = std::to_string(random.Below(3000));
      if (kind == 5) word = '"' + word + '"';
      if (kind == 6) word = Upper(word);
      text += (i > 0 ? " " : "") + word;
    }
    text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    text += kEnds[random.Below(kEnds.size())];
    total += text.size();
    chunks.Add(text);
  }
  return chunks.texts();
}

inline std::vector<std::string> MadeCode() {
  const std::vector<std::string> words = MadeWords();
  MadeRandom random(2);
  MadeChunks chunks;
  for (size_t total = 0; total < kMadeBytes;) {
    const std::string &a = Pick(random, words), &b = Pick(random, words), &c = Pick(random, words);
    const uint64_t n = random.Below(1000);
    const std::array<std::string, 10> lines = {
        fmt::format("for (int {0} = 0; {0} < {1}_{2}; ++{0}) {{\n", a, b, c),
        fmt::format("  if ({}.{}() != {}) return {};\n", a, b, n, c),
        fmt::format("def {}_{}(self, {}=None):\n", a, b, c),
        fmt::format("    return {}[{}] + {}  # {}\n", a, n, Upper(b), c),
        fmt::format("\tstd::vector<{}> {}{}({});\n", a, b, Capital(c), n),
        "}\n\n",
        fmt::format("    \"{}\": {{\"{}\": {}, \"{}\": [0x{:x}, {}.5e-{}]}},\n", a, b, n, c, n, n, n % 10),
        fmt::format("        {} = {} ** 2 - {}[:-1]\n", a, b, c),
        fmt::format("// {} {} {}\n", a, b, c),
        fmt::format("import {}.{} as {}\n", a, b, c)};
    const std::string& line = lines[random.Below(lines.size())];
    total += line.size();
    chunks.Add(line);
  }
  return chunks.texts();
}

inline std::vector<std::string> MadeChinese() {
  static constexpr std::array<std::string_view, 4> kEnds = {"\uff0c", "\u3002", "\uff01", "\u3002\n"};
  const std::vector<std::string> characters = MadeCharacters();
  MadeRandom random(3);
  MadeChunks chunks;
  for (size_t total = 0; total < kMadeBytes;) {
    std::string text;
    const uint64_t count = 2 + random.Below(20);
    for (uint64_t i = 0; i < count; ++i) text += Pick(random, characters);
    const std::string number = std::to_string(random.Below(100));  // drawn also where it is not used
    const uint64_t end = random.Below(5);
    text += end < kEnds.size() ? kEnds[end] : std::string_view(number);
    total += text.size();
    chunks.Add(text);
  }
  return chunks.texts();
}

// Words joined without a space.
inline std::vector<std::string> MadeLine() {
  std::string text;
  const std::vector<std::string> words = MadeWords();
  for (MadeRandom random(4); text.size() < kMadeBytes;) text += Pick(random, words);
  return {text};
}

}  // namespace rung::text
