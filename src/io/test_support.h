// For tests of this room and those above.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "io/safetensors.h"

namespace rung::io {

// The stored bytes of a tensor.
inline std::vector<std::byte> ReadAll(const Safetensors& file, const TensorEntry& entry) {
  std::vector<std::byte> bytes(entry.bytes);
  EXPECT_TRUE(file.Read(entry, 0, bytes).ok());
  return bytes;
}

}  // namespace rung::io
