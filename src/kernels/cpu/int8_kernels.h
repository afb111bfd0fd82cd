// Kernels of products in 8 bits (int8.h); what they compute stands there.
//
// Panels of Bf16 are those of kPanelAvx512Bf16: (depth, 64) dwords of two neighbouring k, depth = ceil(K/2).
#pragma once

#include <cstdint>

#include "base/half.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {

// One number of a row of x that is multiplied in Bf16, beside a zero: its place is 2*pair or 2*pair + 1.
struct Outlier {
  int32_t pair;
  uint32_t values;  // the two as they stand in x
};

// Rows of x in 8 bits.
struct Int8Rows {
  uint8_t* codes = nullptr;          // (N, ld): q + 128, and 128 from column K on
  int64_t ld = 0;                    // a multiple of 32
  float* scale = nullptr;            // (N)
  Outlier* outliers = nullptr;       // (N, most)
  int32_t* outlier_count = nullptr;  // (N)
  int64_t most = 0;
};

// A panel in 8 bits, 64-byte aligned.
struct Int8Panel {
  int8_t* codes = nullptr;  // (ceil(K/4), 64, 4); 0 from column K on
  float* scale = nullptr;   // (64)
  int32_t* sum = nullptr;   // (64): of a row's codes
};

// Where results of rows and the first `cols` panel rows go.
struct Int8Result {
  Product::Store store = Product::Store::kCompute;
  const float* bias = nullptr;  // (cols) or nullptr
  void* out = nullptr;
  int64_t ldo = 0, cols = 0;
};

struct Int8Kernels {
  void (*quantise_rows)(const Bf16* x, int64_t ldx, int64_t N, int64_t K, const Int8Rows& rows);
  void (*quantise_panel)(const Bf16* panel, int64_t K, const Int8Panel& out);
  // Rows [begin, end) times the panel, which is given in both types.
  void (*multiply)(const Int8Rows& rows, int64_t begin, int64_t end, const Int8Panel& panel,
                   const Bf16* bf16_panel, int64_t K, const Int8Result& result);
};

extern const Int8Kernels kInt8Avx512Vnni;

}  // namespace rung::cpu
