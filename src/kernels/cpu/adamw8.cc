#include "kernels/cpu/adamw8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "format/nf4.h"
#include "kernels/cpu/adamw8_kernels.h"
#include "kernels/cpu/pieces.h"

namespace rung::cpu {
namespace {

// Decade i has 2^(i+1) levels, at the midpoints of as many equal parts of [0.1, 1] * 10^(i-6).
std::array<float, 256> MakeUnsignedMap() {
  std::array<float, 256> map{};
  size_t count = 0;
  map[count++] = 0.0f;
  for (int decade = 0; decade < 7; ++decade) {
    const int parts = 2 << decade;
    const float step = (1.0f - 0.1f) / static_cast<float>(parts);
    const float power = static_cast<float>(std::pow(10.0, decade - 6));
    // As torch.linspace: from the nearer end, by fused multiply-add.
    const auto bound = [&](int k) {
      return k < parts / 2 ? std::fma(step, static_cast<float>(k), 0.1f)
                           : std::fma(-step, static_cast<float>(parts - k), 1.0f);
    };
    for (int k = 0; k < parts; ++k) map[count++] = (bound(k) + bound(k + 1)) / 2.0f * power;
  }
  map[count++] = 1.0f;
  return map;
}

// Fills the search of `levels` >= 0, ascending; level[k] has code first_code + k. A value halfway between two
// levels gets the even code.
template <class Search>
void FillSearch(const float* level, int levels, int first_code, Search* search) {
  int below = 0;  // borders below the bucket
  for (int32_t bucket = 0; bucket < Search::kCount; ++bucket) {
    uint32_t low = Search::kCutMask;  // never exceeded
    int inside = 0;
    for (; below + inside + 1 < levels; ++inside) {
      // The largest float that is still nearer to the lower level.
      const int lower = below + inside;
      const uint32_t middle = std::bit_cast<uint32_t>((level[lower] + level[lower + 1]) * 0.5f);
      const uint32_t border = (first_code + lower) % 2 == 0 ? middle : middle - 1;
      if (static_cast<int32_t>(border >> Search::kCut) - Search::kFirst > bucket) break;
      low = border & Search::kCutMask;
    }
    search->entry[bucket] = static_cast<uint32_t>(below) << 24 | low;
    below += inside;
  }
}

AdamW8Tables MakeTables() {
  AdamW8Tables tables{};
  const auto &m = DynamicMap(DynamicSign::kSigned), &v = DynamicMap(DynamicSign::kUnsigned);
  std::copy(m.begin(), m.end(), tables.m_level);
  std::copy(v.begin(), v.end(), tables.v_level);
  // The signed map is symmetric about code 127, but for the level 1.
  FillSearch(m.data() + 127, 129, 127, &tables.m_search);
  FillSearch(v.data(), 256, 0, &tables.v_search);
  return tables;
}

const AdamW8Tables& Tables() {
  static const AdamW8Tables tables = MakeTables();
  return tables;
}

const AdamW8Kernels& KernelsFor(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kBaseline:
      return kAdamW8Baseline;
    case Isa::kAvx2:
      return kAdamW8Avx2;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      return kAdamW8Avx512;
  }
#endif
  static_cast<void>(isa);
  return kAdamW8Baseline;
}

// A block of fewer elements, completed by zeros: their moments are 0 whatever the step.
void UpdatePart(const AdamW8Kernels& kernels, const AdamW& step, const float* gradient, int64_t count,
                float* weight, const Moments8& moments) {
  alignas(64) float g[kAdamW8Block] = {}, w[kAdamW8Block] = {};
  alignas(64) uint8_t m[kAdamW8Block], v[kAdamW8Block] = {};
  const auto codes = static_cast<size_t>(count), floats = codes * sizeof(float);
  std::memset(m, 127, sizeof(m));
  std::memcpy(g, gradient, floats);
  std::memcpy(w, weight, floats);
  std::memcpy(m, moments.m, codes);
  std::memcpy(v, moments.v, codes);
  kernels.blocks(Tables(), step, g, 1, w, {m, v, moments.m_absmax, moments.v_absmax});
  std::memcpy(weight, w, floats);
  std::memcpy(moments.m, m, codes);
  std::memcpy(moments.v, v, codes);
}

}  // namespace

const std::array<float, 256>& DynamicMap(DynamicSign sign) {
  static const std::array<float, 256> kUnsignedMap = MakeUnsignedMap();
  return sign == DynamicSign::kSigned ? format::Nf4NestedMap() : kUnsignedMap;
}

void AdamW8Update(const Context& context, const AdamW& step, const float* gradient, int64_t n, float* weight,
                  const Moments8& moments) {
  const AdamW8Kernels& kernels = KernelsFor(context.isa);
  const AdamW8Tables& tables = Tables();
  const int threads = ThreadsFor(context, n);
  OnEachThread(threads, [&](int thread) {
    const Share blocks = ShareOf(AdamW8Blocks(n), thread, threads);
    const int64_t begin = blocks.begin * kAdamW8Block;
    const int64_t whole = std::min(blocks.end, n / kAdamW8Block) - blocks.begin;
    const Moments8 own = {moments.m + begin, moments.v + begin, moments.m_absmax + blocks.begin,
                          moments.v_absmax + blocks.begin};
    kernels.blocks(tables, step, gradient + begin, whole, weight + begin, own);
    const int64_t done = begin + whole * kAdamW8Block;
    if (blocks.begin + whole == blocks.end) return;
    UpdatePart(kernels, step, gradient + done, n - done, weight + done,
               {moments.m + done, moments.v + done, own.m_absmax + whole, own.v_absmax + whole});
  });
}

}  // namespace rung::cpu
