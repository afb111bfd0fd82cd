// Parts of a GGUF model, each a 32-bit length and so many bytes. Whatever they are: a message, or the tensors
// of all parts inside of the bytes.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  std::vector<rung::io::Gguf> parts;
  size_t tensors = 0;
  while (bytes.size() >= 4 && parts.size() < 8) {
    uint32_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    bytes = bytes.subspan(sizeof(length));
    const size_t taken = std::min<size_t>(length, bytes.size());
    rung::Result<rung::io::Gguf> part = rung::io::Gguf::Parse(bytes.first(taken), "fuzz");
    if (!part.ok()) return 0;
    tensors += part.value().tensors().size();
    parts.push_back(std::move(part).value());
    bytes = bytes.subspan(taken);
  }
  const rung::Result<rung::io::Gguf> joined = rung::io::Gguf::Join(std::move(parts));
  if (!joined.ok()) {
    if (joined.failure().message.empty()) std::abort();
    return 0;
  }
  if (joined.value().tensors().size() != tensors) std::abort();
  for (const rung::io::GgufTensor& tensor : joined.value().tensors()) {
    if (joined.value().Find(tensor.name) != &tensor) std::abort();
    if (tensor.data.data() < reinterpret_cast<const std::byte*>(data)) std::abort();
    if (tensor.data.data() + tensor.data.size() > reinterpret_cast<const std::byte*>(data) + size)
      std::abort();
  }
  return 0;
}
