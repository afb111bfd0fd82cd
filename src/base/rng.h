// Random numbers as a pure function of (seed, stream, index): Philox 4x32-10 (Salmon et al.,
// SC 2011). No state to save, no order of calls to respect: resume is bitwise by construction.
#pragma once

#include <array>
#include <cstdint>

namespace rung {

// Streams keep uses apart that share a seed. Values are part of the reproducibility promise.
enum class Stream : uint32_t { kInit = 1, kShuffle = 2, kDropout = 3, kSample = 4 };

class Rng {
 public:
  Rng(uint64_t seed, Stream stream, uint32_t substream = 0)
      : seed_(seed), stream_(static_cast<uint32_t>(stream)), substream_(substream) {}

  uint32_t Bits(uint64_t index) const { return Block(index / 4)[index % 4]; }
  // In [0,1), a multiple of 2^-24.
  float Uniform(uint64_t index) const { return static_cast<float>(Bits(index) >> 8) * 0x1p-24f; }
  // In [0,bound): multiply-shift; the bias is below bound / 2^32.
  uint32_t Below(uint64_t index, uint32_t bound) const {
    return static_cast<uint32_t>((uint64_t{Bits(index)} * bound) >> 32);
  }

 private:
  std::array<uint32_t, 4> Block(uint64_t counter) const;
  uint64_t seed_;
  uint32_t stream_, substream_;
};

}  // namespace rung
