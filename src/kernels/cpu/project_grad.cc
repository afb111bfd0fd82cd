// The gradient of a frozen product's input: dx = dy W.
//
// W is stored by rows, and a product needs panels of its columns. So a thread decodes a strip of columns, a
// chunk of rows at a time, packs 64 of its columns into a panel and multiplies rows of dy with it.
//
//              strip
//          +---+------+------+     a strip is narrow enough for its dx to stay in cache while the thread
//   chunk  |   | xxxx |      |     walks down the chunks of W, and dx is read and written once per chunk
//          +---+------+------+
//          |   |      |      |  W (O,K)
#include <algorithm>

#include "base/threads.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/project_panels.h"

namespace rung::cpu {
namespace {

// Most rows of W in a chunk. Twice as many as 512: dx is read and written half as often, which gains more
// than a panel of half an L2 cache loses.
constexpr int64_t kMaxChunk = 1024;
// Most columns of a strip. Wider ones decode no faster, and a chunk of them no longer fits L2.
constexpr int64_t kMaxStrip = 256;

// Rows of W in a chunk; even. The order of every sum depends on it, hence it depends on O alone.
constexpr int64_t ChunkOf(int64_t O) { return RoundUp(CeilDiv(O, CeilDiv(O, kMaxChunk)), 2); }

// Columns of a strip: whole panels and whole blocks of the format, and a divisor of K. When there are no such
// strips, K.
int64_t StripOf(const format::Matrix& weight, int threads) {
  const int64_t K = weight.cols, block = format::Of(weight.format).block;
  if (K % kPanelRows != 0) return K;
  const int64_t panels = K / kPanelRows, least = CeilDiv(block, kPanelRows);
  int64_t widest = least;
  for (int64_t width = 2 * least; width <= kMaxStrip / kPanelRows; width += least) {
    // A strip cut by two threads is decoded twice: they should have a few each.
    if (panels % width == 0 && panels / width >= 3 * int64_t{threads}) widest = width;
  }
  return widest * kPanelRows;
}

template <class T>
struct ThreadScratch {
  ThreadScratch(std::byte* base, int threads, int thread, const format::Matrix& weight) {
    Pieces one(nullptr);
    Lay(&one, threads, weight);
    bytes = one.used();
    Pieces mine(base ? base + bytes * static_cast<size_t>(thread) : nullptr);
    Lay(&mine, threads, weight);
  }
  void Lay(Pieces* pieces, int threads, const format::Matrix& weight) {
    rows = pieces->Take<T>(ChunkOf(weight.rows) * StripOf(weight, threads));
    panel = pieces->Take<T>(PanelElements(ChunkOf(weight.rows)));
  }
  T* rows = nullptr;   // (chunk, strip): decoded
  T* panel = nullptr;  // 64 columns of them
  size_t bytes = 0;    // of one thread
};

template <class T>
class GradInput {
 public:
  GradInput(const PanelKernels<T>& kernels, int threads, const T* dy, int64_t lddy, int64_t N,
            const format::Matrix& weight, bool add, float* dx, int64_t lddx)
      : kernels_(kernels),
        dy_(dy),
        lddy_(lddy),
        N_(N),
        add_(add),
        dx_(dx),
        lddx_(lddx),
        weight_(weight),
        width_(StripOf(weight, threads)) {}

  // Shared out in whole (strip, row tile) units, so a strip is decoded twice only where two threads meet.
  void Run(Share units, int64_t tiles, const ThreadScratch<T>& scratch) const {
    for (int64_t unit = units.begin; unit < units.end;) {
      const int64_t strip = unit / tiles, tile = unit % tiles;
      const int64_t stop = std::min(units.end, (strip + 1) * tiles);
      RunStrip(strip, {tile * kTileRows, std::min(N_, (tile + stop - unit) * kTileRows)}, scratch);
      unit = stop;
    }
  }
  int64_t strips() const { return weight_.cols / width_; }

 private:
  void RunStrip(int64_t strip, Share n, const ThreadScratch<T>& scratch) const {
    const int64_t O = weight_.rows, begin = strip * width_;
    for (int64_t o = 0, depth; o < O; o += depth) {
      depth = std::min(ChunkOf(O), O - o);
      // Products of Bf16 read dy in pairs: an odd last row is a chunk of its own.
      const bool single = sizeof(T) == 2 && depth == 1;
      if (sizeof(T) == 2 && !single) depth -= depth % 2;
      kernels_.decode_columns(weight_, o, depth, begin, begin + width_, scratch.rows, width_);
      for (int64_t k = 0; k < width_; k += kPanelRows) {
        const int64_t cols = std::min(kPanelRows, width_ - k);
        kernels_.pack_cols(scratch.rows + k, width_, depth, cols, scratch.panel);
        float* dx = dx_ + n.begin * lddx_ + begin + k;
        const T* dy = dy_ + n.begin * lddy_ + o;
        if (single) {
          MultiplySingle(dy, n.end - n.begin, scratch.panel, cols, add_ || o > 0, dx);
        } else {
          kernels_.multiply(dy, lddy_, n.end - n.begin, scratch.panel, depth, cols, add_ || o > 0, dx, lddx_);
        }
      }
    }
  }
  // A panel of depth 1 times a column of dy, each element paired with a zero.
  void MultiplySingle(const T* dy, int64_t N, const T* panel, int64_t cols, bool add, float* dx) const {
    constexpr int64_t kRows = 64;
    for (int64_t n = 0; n < N; n += kRows) {
      const int64_t rows = std::min(kRows, N - n);
      T pairs[2 * kRows] = {};
      for (int64_t i = 0; i < rows; ++i) pairs[2 * i] = dy[(n + i) * lddy_];
      kernels_.multiply(pairs, 2, rows, panel, 1, cols, add, dx + n * lddx_, lddx_);
    }
  }

  const PanelKernels<T>& kernels_;
  const T* dy_;
  int64_t lddy_, N_;
  bool add_;
  float* dx_;
  int64_t lddx_;
  const format::Matrix& weight_;
  int64_t width_;  // of a strip
};

}  // namespace

template <class T>
void ProjectGradInput(const Context& context, const T* dy, int64_t lddy, int64_t N,
                      const format::Matrix& weight, bool add, float* dx, int64_t lddx, std::byte* scratch) {
  const PanelKernels<T>& kernels = *PanelFor<T>(context.isa);
  if (N == 0) return;
  const GradInput<T> product(kernels, context.threads, dy, lddy, N, weight, add, dx, lddx);
  const int64_t tiles = CeilDiv(N, kTileRows);
  OnEachThread(context.threads, [&](int thread) {
    const ThreadScratch<T> mine(scratch, context.threads, thread, weight);
    product.Run(ShareOf(product.strips() * tiles, thread, context.threads), tiles, mine);
  });
}

template void ProjectGradInput<float>(const Context&, const float*, int64_t, int64_t, const format::Matrix&,
                                      bool, float*, int64_t, std::byte*);
template void ProjectGradInput<Bf16>(const Context&, const Bf16*, int64_t, int64_t, const format::Matrix&,
                                     bool, float*, int64_t, std::byte*);

size_t ProjectGradInputScratch(const Context& context, size_t element_size, int64_t N,
                               const format::Matrix& weight) {
  if (N == 0) return 0;
  const size_t bytes = element_size == sizeof(float)
                           ? ThreadScratch<float>(nullptr, context.threads, 0, weight).bytes
                           : ThreadScratch<Bf16>(nullptr, context.threads, 0, weight).bytes;
  return static_cast<size_t>(context.threads) * bytes;
}

}  // namespace rung::cpu
