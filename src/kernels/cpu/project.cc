#include <algorithm>
#include <type_traits>

#include "base/threads.h"
#include "kernels/cpu/int8.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/project_panels.h"

namespace rung::cpu {
namespace {

// Weight rows in a unit of work when x has few rows: few enough to share out evenly. A call takes several:
// enough to hide what it prepares of x.
constexpr int64_t kFewUnit = 16, kFewCall = 128;
// Rows of x that pass through a buffer of f32 on their way to a result with a bias, or added to in T.
constexpr int64_t kBufferRows = 48;

// Scratch of a thread: one panel.
size_t PanelBytes(size_t element_size, int64_t K) { return PieceBytes(PanelElements(K), element_size); }

// Where rows [n, ...) and weight rows [o, ...) of a product go.
template <class TOut>
TOut* OutAt(const Product& product, int64_t n, int64_t o) {
  return static_cast<TOut*>(product.out) + n * product.ldo + o;
}

// C += out.
template <class T>
void AddWidened(const T* out, int64_t ldo, int64_t N, int64_t cols, float* C, int64_t ld) {
  for (int64_t n = 0; n < N; ++n, out += ldo, C += ld) {
    for (int64_t r = 0; r < cols; ++r) C[r] += ToFloat(out[r]);
  }
}

// C (N, cols) f32, row stride ld: the result without its bias. C is used up.
template <class T>
void StoreF32(const PanelKernels<T>& kernels, const Product& product, float* C, int64_t ld, int64_t N,
              int64_t n, int64_t o, int64_t cols) {
  const float* bias = product.bias ? product.bias + o : nullptr;
  const bool add_compute = product.store == Product::Store::kAddCompute;
  if (product.store == Product::Store::kCompute || add_compute) {
    T* to = OutAt<T>(product, n, o);
    if (add_compute) AddWidened(static_cast<const T*>(to), product.ldo, N, cols, C, ld);
    return kernels.add_bias_to(C, ld, N, cols, bias, to, product.ldo);
  }
  const bool add = product.store == Product::Store::kAddF32;
  float* out = OutAt<float>(product, n, o);
  for (int64_t i = 0; i < N; ++i, C += ld, out += product.ldo) {
    for (int64_t r = 0; r < cols; ++r) {
      const float value = bias ? C[r] + bias[r] : C[r];
      out[r] = add ? out[r] + value : value;
    }
  }
}

// Rows [begin, end) of x times one panel.
template <class T>
void MultiplyRows(const PanelKernels<T>& kernels, const Product& product, const T* x, int64_t ldx,
                  int64_t begin, int64_t end, int64_t o, const T* panel) {
  const int64_t K = product.weight->cols, cols = std::min(kPanelRows, product.weight->rows - o);
  if (!product.bias && product.store != Product::Store::kAddCompute) {
    if (product.store == Product::Store::kCompute) {
      kernels.multiply_to(x + begin * ldx, ldx, end - begin, panel, K, cols, OutAt<T>(product, begin, o),
                          product.ldo);
    } else {
      kernels.multiply(x + begin * ldx, ldx, end - begin, panel, K, cols,
                       product.store == Product::Store::kAddF32, OutAt<float>(product, begin, o),
                       product.ldo);
    }
    return;
  }
  alignas(64) float buffer[kBufferRows * kPanelRows];
  for (int64_t n = begin; n < end; n += kBufferRows) {
    const int64_t rows = std::min(kBufferRows, end - n);
    kernels.multiply(x + n * ldx, ldx, rows, panel, K, cols, false, buffer, kPanelRows);
    StoreF32(kernels, product, buffer, kPanelRows, rows, n, o, cols);
  }
}

template <class T, class Takes>
void ProjectByPanels(const Context& context, const PanelKernels<T>& kernels, const T* x, int64_t ldx,
                     int64_t N, std::span<const Product> products, const Takes& takes, std::byte* scratch) {
  const int64_t K = products[0].weight->cols;
  OnEachThread(context.threads, [&](int thread) {
    T* panel = reinterpret_cast<T*>(scratch + static_cast<size_t>(thread) * PanelBytes(sizeof(T), K));
    ForEachPanel(products, N, thread, context.threads, takes,
                 [&](const Product& product, int64_t o, int64_t begin, int64_t end) {
                   kernels.decode_panel(*product.weight, o, std::min(kPanelRows, product.weight->rows - o),
                                        panel);
                   MultiplyRows(kernels, product, x, ldx, begin, end, o, static_cast<const T*>(panel));
                 });
  });
}

template <class T>
void ProjectFew(const Context& context, const PanelKernels<T>& kernels, const T* x, int64_t ldx, int64_t N,
                std::span<const Product> products) {
  int64_t units = 0;
  for (const Product& product : products) units += (product.weight->rows + kFewUnit - 1) / kFewUnit;
  OnEachThread(context.threads, [&](int thread) {
    const Share share = ShareOf(units, thread, context.threads);
    int64_t first = 0;
    for (const Product& product : products) {
      const format::Matrix& weight = *product.weight;
      const int64_t last = first + (weight.rows + kFewUnit - 1) / kFewUnit;
      const int64_t end = std::min((std::min(share.end, last) - first) * kFewUnit, weight.rows);
      for (int64_t o = std::max<int64_t>(share.begin - first, 0) * kFewUnit; o < end; o += kFewCall) {
        const int64_t cols = std::min(kFewCall, end - o);
        alignas(64) float buffer[kFewRows * kFewCall];
        kernels.multiply_few(x, ldx, N, weight, o, cols, buffer, kFewCall);
        StoreF32(kernels, product, buffer, kFewCall, N, 0, o, cols);
      }
      first = last;
    }
  });
}

}  // namespace

template <class T>
void Project(const Context& context, const T* x, int64_t ldx, int64_t N, std::span<const Product> products,
             std::byte* scratch) {
  const PanelKernels<T>& kernels = *PanelFor<T>(context.isa);
  if (products.empty() || N == 0) return;
  if (N <= kFewRows) return ProjectFew(context, kernels, x, ldx, N, products);
  if constexpr (std::is_same_v<T, Bf16>) {
    if (UsesInt8(context, N, products[0].weight->cols)) {
      ProjectInt8(context, x, ldx, N, products, scratch);
      const auto others = [](const Product& product) { return !IsInt8(product); };
      if (std::none_of(products.begin(), products.end(), others)) return;
      return ProjectByPanels(context, kernels, x, ldx, N, products, others, scratch);
    }
  }
  ProjectByPanels(
      context, kernels, x, ldx, N, products, [](const Product&) { return true; }, scratch);
}

template void Project<float>(const Context&, const float*, int64_t, int64_t, std::span<const Product>,
                             std::byte*);
template void Project<Bf16>(const Context&, const Bf16*, int64_t, int64_t, std::span<const Product>,
                            std::byte*);

size_t ProjectScratch(const Context& context, size_t element_size, int64_t N, int64_t K) {
  if (N <= kFewRows) return 0;
  const size_t panels = static_cast<size_t>(context.threads) * PanelBytes(element_size, K);
  if (element_size != sizeof(Bf16) || !UsesInt8(context, N, K)) return panels;
  return std::max(panels, ProjectInt8Scratch(context, N, K));
}

}  // namespace rung::cpu
