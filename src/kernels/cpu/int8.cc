#include "kernels/cpu/int8.h"

#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/project_panels.h"

namespace rung::cpu {
namespace {

const Int8Kernels* Int8For(const Context& context) {
#if defined(__x86_64__)
  if (HasInt8(context.isa)) return &kInt8Avx512Vnni;
#endif
  static_cast<void>(context);
  return nullptr;
}

// What all threads share, and a panel of each.
struct Int8Scratch {
  Int8Scratch(std::byte* base, int threads, int thread, int64_t N, int64_t K) {
    Pieces pieces(base);
    // A line more than 64 bytes need: rows a power of two apart would fall into the same sets of a cache.
    rows.ld = RoundUp(K, 64) + 64;
    rows.most = OutliersOf(K);
    rows.codes = pieces.Take<uint8_t>(N * rows.ld);
    rows.scale = pieces.Take<float>(N);
    rows.outliers = pieces.Take<Outlier>(N * rows.most);
    rows.outlier_count = pieces.Take<int32_t>(N);
    for (int t = 0; t < threads; ++t) {
      const auto decoded_here = pieces.Take<Bf16>(PanelElements(K));
      const Int8Panel panel_here{pieces.Take<int8_t>(RoundUp(K, 4) * kPanelRows),
                                 pieces.Take<float>(kPanelRows), pieces.Take<int32_t>(kPanelRows)};
      if (t != thread) continue;
      decoded = decoded_here;
      panel = panel_here;
    }
    bytes = pieces.used();
  }
  Int8Rows rows;
  Bf16* decoded = nullptr;
  Int8Panel panel;
  size_t bytes = 0;
};

Int8Rows From(const Int8Rows& rows, int64_t n) {
  return {rows.codes + n * rows.ld, rows.ld,  rows.scale + n, rows.outliers + n * rows.most,
          rows.outlier_count + n,   rows.most};
}

Int8Result ResultAt(const Product& product, int64_t o) {
  const bool compute =
      product.store == Product::Store::kCompute || product.store == Product::Store::kAddCompute;
  const int64_t offset = o * static_cast<int64_t>(compute ? sizeof(Bf16) : sizeof(float));
  return {product.store, product.bias ? product.bias + o : nullptr,
          static_cast<std::byte*>(product.out) + offset, product.ldo,
          std::min(kPanelRows, product.weight->rows - o)};
}

}  // namespace

bool UsesInt8(const Context& context, int64_t N, int64_t K) {
  return context.int8 && N > kFewRows && K <= kMaxInt8Depth && Int8For(context);
}

bool IsInt8(const Product& product) { return product.weight->format != format::Format::kF32; }

void ProjectInt8(const Context& context, const Bf16* x, int64_t ldx, int64_t N,
                 std::span<const Product> products, std::byte* scratch) {
  if (std::none_of(products.begin(), products.end(), IsInt8)) return;
  const Int8Kernels& kernels = *Int8For(context);
  const PanelKernels<Bf16>& bf16 = *PanelFor<Bf16>(context.isa);
  const int64_t K = products[0].weight->cols;
  OnEachThread(context.threads, [&](int thread) {
    const Int8Scratch mine(scratch, context.threads, thread, N, K);
    const Share share = ShareOf(N, thread, context.threads);
    kernels.quantise_rows(x + share.begin * ldx, ldx, share.end - share.begin, K,
                          From(mine.rows, share.begin));
    Barrier(context.threads);
    ForEachPanel(products, N, thread, context.threads, IsInt8,
                 [&](const Product& product, int64_t o, int64_t begin, int64_t end) {
                   const Int8Result result = ResultAt(product, o);
                   bf16.decode_panel(*product.weight, o, result.cols, mine.decoded);
                   kernels.quantise_panel(mine.decoded, K, mine.panel);
                   kernels.multiply(mine.rows, begin, end, mine.panel, mine.decoded, K, result);
                 });
  });
}

size_t ProjectInt8Scratch(const Context& context, int64_t N, int64_t K) {
  return Int8Scratch(nullptr, context.threads, 0, N, K).bytes;
}

}  // namespace rung::cpu
