#include <string>
#include <string_view>
#include <vector>

#include "data/record.h"

namespace rung::data {
namespace {

// FNV-1a with the bits mixed at the end, so that the upper ones can serve as a number in [0,1).
class ContentHasher {
 public:
  void Add(std::string_view text) {
    AddNumber(text.size());
    for (const char c : text) Byte(static_cast<unsigned char>(c));
  }
  void AddNumber(uint64_t number) {
    for (int i = 0; i < 8; ++i) Byte(static_cast<unsigned char>(number >> (8 * i)));
  }
  uint64_t Done() const {  // the finaliser of MurmurHash3
    uint64_t h = hash_;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdull;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return h ^ (h >> 33);
  }

 private:
  void Byte(unsigned char byte) { hash_ = (hash_ ^ byte) * 0x100000001b3ull; }
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

void AddMessages(std::span<const text::Message> messages, ContentHasher* hasher) {
  for (const text::Message& message : messages) {
    hasher->Add(message.role);
    hasher->Add(message.content);
    hasher->Add(message.extra);
  }
}

bool HasAnswer(const Record& record) {
  if (record.shape == Shape::kCompletion) return !record.completion.empty();
  if (record.shape != Shape::kMessages) return true;
  return !record.messages.empty() && record.messages.back().role == "assistant";
}

}  // namespace

uint64_t ContentHash(const Record& record) {
  ContentHasher hasher;
  hasher.AddNumber(static_cast<uint64_t>(record.shape));
  hasher.Add(record.prompt);
  hasher.Add(record.completion);
  hasher.Add(record.text);
  hasher.Add(record.tools);
  AddMessages(record.messages, &hasher);
  for (const uint8_t mark : record.learned) hasher.AddNumber(mark);
  for (const Segment& segment : record.segments) {
    hasher.AddNumber(segment.learned);
    hasher.Add(segment.text);
  }
  return hasher.Done();
}

uint64_t PromptHash(const Record& record) {
  if (!HasAnswer(record)) return ContentHash(record);
  std::vector<text::Message> messages = record.messages;
  if (!record.prompt.empty()) messages.push_back({"user", record.prompt});
  if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
  std::string before;
  for (const Segment& segment : record.segments) {
    if (!segment.learned) before += segment.text;
  }
  // One question is one in every shape. What has nothing before its answer is all answer.
  if (messages.empty() && before.empty() && record.text.empty()) return ContentHash(record);
  ContentHasher hasher;
  hasher.Add(record.tools);
  hasher.AddNumber(messages.empty());
  hasher.Add(before);
  hasher.Add(record.text);
  AddMessages(messages, &hasher);
  return hasher.Done();
}

}  // namespace rung::data
