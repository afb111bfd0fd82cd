#include "data/examples.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "io/sha256.h"

namespace rung::data {
namespace {

struct Owned {
  std::vector<TokenWord> words;
  std::vector<int64_t> offsets;
};

}  // namespace

std::vector<TokenWord> WordsOf(const Example& example) {
  RUNG_CHECK(example.learn.size() == example.ids.size(), "a mark for each id");
  std::vector<TokenWord> words(example.ids.size());
  for (size_t i = 0; i < words.size(); ++i) words[i] = WordOf(example.ids[i], example.learn[i] != 0);
  return words;
}

void ExampleBuilder::Add(std::span<const TokenWord> words) {
  words_.insert(words_.end(), words.begin(), words.end());
  offsets_.push_back(static_cast<int64_t>(words_.size()));
}

Examples ExampleBuilder::Finish() && {
  auto owned = std::make_shared<Owned>(Owned{std::move(words_), std::move(offsets_)});
  const uint64_t bytes =
      owned->words.capacity() * sizeof(TokenWord) + owned->offsets.capacity() * sizeof(int64_t);
  return Examples(owned->words, owned->offsets, "", bytes, owned);
}

Examples::Examples(std::span<const Example> examples) {
  ExampleBuilder builder;
  std::vector<int64_t> records;
  for (const Example& example : examples) {
    builder.Add(WordsOf(example));
    records.push_back(example.record);
  }
  *this = std::move(builder).Finish();
  records_ = std::move(records);
}

Examples::Examples(std::span<const TokenWord> words, std::span<const int64_t> offsets, std::string digest,
                   uint64_t resident_bytes, std::shared_ptr<const void> owner)
    : words_(words),
      offsets_(offsets),
      digest_(std::move(digest)),
      resident_(resident_bytes),
      owner_(std::move(owner)) {
  RUNG_CHECK(!offsets.empty(), "offsets have an end");
}

int64_t Examples::size() const {
  if (places_) return static_cast<int64_t>(places_->size());
  return offsets_.empty() ? 0 : static_cast<int64_t>(offsets_.size()) - 1;
}

size_t Examples::PlaceOf(int64_t i) const {
  RUNG_CHECK(i >= 0 && i < size(), "there is no such example");
  return static_cast<size_t>(places_ ? (*places_)[static_cast<size_t>(i)] : i);
}

std::span<const TokenWord> Examples::words(int64_t i) const {
  const size_t place = PlaceOf(i);
  const auto begin = static_cast<size_t>(offsets_[place]), end = static_cast<size_t>(offsets_[place + 1]);
  return words_.subspan(begin, end - begin);
}

int64_t Examples::record(int64_t i) const {
  const size_t place = PlaceOf(i);
  return records_.empty() ? static_cast<int64_t>(place) : records_[place];
}

int64_t Examples::target_count(int64_t i) const {
  const auto all = words(i);
  return std::count_if(all.begin(), all.end(), [](TokenWord word) { return IsLearned(word); });
}

Example Examples::Get(int64_t i) const {
  Example example;
  for (const TokenWord word : words(i)) {
    example.ids.push_back(IdOf(word));
    example.learn.push_back(IsLearned(word));
  }
  example.record = record(i);
  return example;
}

Examples Examples::Pick(std::vector<int64_t> places) const {
  for (int64_t& place : places) place = static_cast<int64_t>(PlaceOf(place));
  Examples picked = *this;
  picked.places_ = std::make_shared<const std::vector<int64_t>>(std::move(places));
  return picked;
}

void Examples::Prefetch(std::span<const int64_t> which) const {
  // Memory of our own has no other copy; it is not to be let go of.
  const bool mapped = resident_ == 0 && !digest_.empty();
  if (!mapped) return;
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t all = reinterpret_cast<uintptr_t>(words_.data()) / page * page;
  (void)madvise(reinterpret_cast<void*>(all),
                reinterpret_cast<uintptr_t>(words_.data() + words_.size()) - all, MADV_DONTNEED);
  for (const int64_t i : which) {
    const auto span = std::as_bytes(words(i));
    const uintptr_t begin = reinterpret_cast<uintptr_t>(span.data()) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(span.data()) + span.size();
    // Advice: a refusal changes nothing but speed.
    (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
  }
}

uint64_t Examples::resident_bytes() const {
  return resident_ + records_.capacity() * sizeof(int64_t) +
         (places_ ? places_->capacity() * sizeof(int64_t) : 0);
}

std::string Examples::digest() const {
  if (!digest_.empty() && !places_) return digest_;
  io::Sha256 sum;
  if (digest_.empty()) {
    sum.Add(std::as_bytes(words_));
    sum.Add(std::as_bytes(offsets_));
  } else {
    sum.Add(digest_);
  }
  if (places_) sum.Add(std::as_bytes(std::span(*places_)));
  return sum.Hex();
}

}  // namespace rung::data
