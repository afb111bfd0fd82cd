// How products are shared out among threads: in whole (panel, row tile) units.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/threads.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {

// Rows of x, or of dx, in a unit of work: the micro tile of the fastest kernels.
inline constexpr int64_t kTileRows = 6;

inline int64_t PanelsOf(const Product& product) {
  return (product.weight->rows + kPanelRows - 1) / kPanelRows;
}

// Calls body(product, o, begin, end) for this thread's part of the products that `takes`: rows [begin, end)
// of x times weight rows [o, o + 64).
template <class Takes, class Body>
void ForEachPanel(std::span<const Product> products, int64_t N, int thread, int threads, const Takes& takes,
                  const Body& body) {
  const int64_t tiles = (N + kTileRows - 1) / kTileRows;
  int64_t panels = 0;
  for (const Product& product : products) panels += takes(product) ? PanelsOf(product) : 0;
  const Share share = ShareOf(panels * tiles, thread, threads);
  int64_t first = 0;  // unit where the product begins
  for (const Product& product : products) {
    if (!takes(product)) continue;
    const int64_t last = first + PanelsOf(product) * tiles;
    for (int64_t unit = std::max(share.begin, first); unit < std::min(share.end, last);) {
      const int64_t p = (unit - first) / tiles, tile = (unit - first) % tiles;
      const int64_t stop = std::min(share.end, first + (p + 1) * tiles);
      body(product, p * kPanelRows, tile * kTileRows, std::min(N, (tile + stop - unit) * kTileRows));
      unit = stop;
    }
    first = last;
  }
}

}  // namespace rung::cpu
