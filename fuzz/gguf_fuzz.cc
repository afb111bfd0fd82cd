// Whatever the bytes: a message, or tensors that lie disjoint inside of them.
#include <cstdint>
#include <cstdlib>

#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const rung::Result<rung::io::Gguf> parsed = rung::io::Gguf::Parse(bytes, "fuzz");
  if (!parsed.ok()) {
    if (parsed.failure().message.empty()) std::abort();
    return 0;
  }
  const rung::io::Gguf& gguf = parsed.value();
  size_t total = 0;
  for (const rung::io::GgufTensor& tensor : gguf.tensors()) {
    if (gguf.Find(tensor.name) != &tensor || tensor.data.empty()) std::abort();
    if (tensor.data.data() < bytes.data() || tensor.data.size() > size) std::abort();
    if (tensor.data.data() + tensor.data.size() > bytes.data() + size) std::abort();
    total += tensor.data.size();
  }
  if (total > size) std::abort();
  for (const auto& [key, value] : gguf.metadata()) {
    if (key.empty()) std::abort();
    gguf.GetInt(key);
    gguf.GetFloat(key);
  }
  return 0;
}
