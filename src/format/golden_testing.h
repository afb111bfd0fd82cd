// Reading the golden files of tools/make_format_golden.py, which says how they are laid out. For tests.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace rung::format {

class GoldenFile {
 public:
  GoldenFile(const std::string& name, std::string_view magic) {
    std::ifstream in("tests/data/" + name, std::ios::binary);
    RUNG_CHECK(in.good(), "no such golden file: tests run in the root of the repository");
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    RUNG_CHECK(bytes_.starts_with(magic), "a golden file of another kind");
    at_ = magic.size();
    Bytes();  // which versions made it
  }
  int64_t Int() { return Value<int64_t>(); }
  float Float() { return Value<float>(); }
  std::string Text() {
    const std::vector<char> text = Values<char>(Value<uint64_t>());
    return {text.begin(), text.end()};
  }
  std::vector<std::byte> Bytes() { return Values<std::byte>(Value<uint64_t>()); }
  std::vector<float> Floats() { return Values<float>(Value<uint64_t>()); }
  std::vector<uint32_t> Uints() { return Values<uint32_t>(Value<uint64_t>()); }
  std::vector<uint8_t> Codes() { return Values<uint8_t>(Value<uint64_t>()); }

  template <class T>
  std::vector<T> Values(uint64_t count) {
    RUNG_CHECK(count <= (bytes_.size() - at_) / sizeof(T), "golden file too short");
    std::vector<T> out(count);
    if (count) std::memcpy(out.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return out;
  }

 private:
  template <class T>
  T Value() {
    return Values<T>(1)[0];
  }
  std::string bytes_;
  size_t at_ = 0;
};

// Fails at the first difference only: one wrong scale spoils a whole block.
inline void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& expected,
                           int64_t begin = 0) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
        << "weight " << begin + static_cast<int64_t>(i) << ": " << got[i] << ", expected " << expected[i];
  }
}

}  // namespace rung::format
