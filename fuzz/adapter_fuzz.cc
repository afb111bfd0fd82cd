// The text of an adapter's configuration, then, each on a line of its own, names of the tensors beside it; a
// zero byte stands between the two. Read as PEFT's, as a ladder's and as what stands beside PEFT's. Whatever
// it is: a message that steers no terminal, or a spec within the ranges that the rest of the program relies
// on.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "base/text.h"
#include "model/ladder_file.h"
#include "model/lora_file.h"

namespace {

using namespace rung;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckPairs(const model::LoraSpec& spec) {
  Require(spec.R >= 1 && spec.R <= 65536 && std::isfinite(spec.alpha) && spec.alpha != 0.0);
  Require(spec.dropout >= 0.0 && spec.dropout < 1.0);
  Require(!spec.layers.empty() && spec.layers.front() >= 0 && !spec.targets.empty());
  for (size_t i = 1; i < spec.layers.size(); ++i) Require(spec.layers[i] > spec.layers[i - 1]);
}

void CheckLadder(const model::LadderSpec& spec) {
  Require(!spec.taps.empty() && spec.rungs >= static_cast<int64_t>(spec.taps.size()) && spec.rungs <= 4096);
  Require(spec.S >= 1 && spec.S <= 65536 && spec.F >= 1 && spec.head_dim >= 2 && spec.head_dim % 2 == 0);
  Require(spec.heads >= 1 && spec.kv_heads >= 1 && spec.heads % spec.kv_heads == 0);
}

template <class T>
void CheckMessage(const Result<T>& read) {
  if (read.ok()) return;
  const std::string& message = read.failure().message;
  Require(message.starts_with("fuzz") && message == Printable(message));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(all.find('\0'), size);
  const std::string_view text = all.substr(0, zero);
  std::vector<std::string> names;
  for (size_t begin = zero + 1; begin < size;) {
    const size_t end = std::min(all.find('\n', begin), size);
    names.emplace_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  const auto pairs = model::ParsePeftAdapter(text, "fuzz", names, "fuzz.safetensors");
  CheckMessage(pairs);
  if (pairs.ok()) CheckPairs(pairs.value().spec);
  const auto ladder = model::ParseLadderConfig(text, "fuzz");
  CheckMessage(ladder);
  if (ladder.ok()) {
    CheckLadder(*ladder.value().spec.ladder);
    if (ladder.value().spec.lora) CheckPairs(*ladder.value().spec.lora);
  }
  CheckMessage(model::ParseBesideText(text, "fuzz"));
  return 0;
}
