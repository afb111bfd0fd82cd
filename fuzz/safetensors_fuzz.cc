// The bytes of a whole file. Whatever they are: a message, or tensors that cover the data without hole or
// overlap.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t length = 0;
  if (size < sizeof(length)) return 0;
  std::memcpy(&length, data, sizeof(length));
  // A wrong length is refused before the header is parsed; here it means "all of it", so that mutations get
  // through.
  if (length > size - sizeof(length)) length = size - sizeof(length);
  const std::string_view header(reinterpret_cast<const char*>(data) + sizeof(length), length);
  std::map<std::string, std::string> metadata;
  const auto parsed = rung::io::ParseSafetensorsHeader(header, size, "fuzz", &metadata);
  if (!parsed.ok()) {
    if (parsed.failure().message.empty()) std::abort();
    return 0;
  }
  uint64_t end = sizeof(length) + length;
  for (const rung::io::TensorEntry& entry : parsed.value()) {
    if (entry.offset != end) std::abort();
    for (int64_t dim : entry.shape) {
      if (dim < 0) std::abort();
    }
    end += entry.bytes;
  }
  if (end != size) std::abort();
  return 0;
}
