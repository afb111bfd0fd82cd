// The examples of a data set: a view of token words in memory or in a mapped file. Copies share them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/batch.h"

namespace rung::data {

class Examples {
 public:
  Examples() = default;
  explicit Examples(std::span<const Example> examples);  // copies
  // `offsets`: of each example's first word, and of the end. Example i is of record i. `owner` keeps them.
  Examples(std::span<const TokenWord> words, std::span<const int64_t> offsets, std::string digest,
           uint64_t resident_bytes, std::shared_ptr<const void> owner);

  int64_t size() const;
  bool empty() const { return size() == 0; }
  int64_t length(int64_t i) const { return static_cast<int64_t>(words(i).size()); }  // ids
  std::span<const TokenWord> words(int64_t i) const;
  int64_t record(int64_t i) const;
  int64_t target_count(int64_t i) const;
  Example Get(int64_t i) const;

  // The examples at these places, in this order; one may be there more than once.
  Examples Pick(std::vector<int64_t> places) const;
  // Asks for the pages of these examples and lets go of all others: for a walk over a file, in batches.
  void Prefetch(std::span<const int64_t> which) const;

  // Memory that is this program's own; pages of a mapped file are the system's.
  uint64_t resident_bytes() const;
  // 64 hex digits: SHA-256 of all words and offsets, in order.
  std::string digest() const;

 private:
  size_t PlaceOf(int64_t i) const;

  std::span<const TokenWord> words_;
  std::span<const int64_t> offsets_;
  std::vector<int64_t> records_;                        // empty: the place
  std::shared_ptr<const std::vector<int64_t>> places_;  // nullptr: all, in order
  std::string digest_;                                  // of words and offsets; empty: not known
  uint64_t resident_ = 0;
  std::shared_ptr<const void> owner_;
};

// Collects examples in memory.
class ExampleBuilder {
 public:
  void Add(std::span<const TokenWord> words);
  Examples Finish() &&;

 private:
  std::vector<TokenWord> words_;
  std::vector<int64_t> offsets_ = {0};
};

// The words of an example.
std::vector<TokenWord> WordsOf(const Example& example);

}  // namespace rung::data
