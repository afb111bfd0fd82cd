#include "nn/lora.h"

#include <algorithm>

#include "ops/products.h"

namespace rung::nn {
namespace {

// Rows of a bf16 input that are widened at once for the gradient of A.
constexpr int64_t kWidenRows = 256;

// The same numbers in type T: a view when they are already. bf16 products read columns in pairs: an odd width
// has a column of zeros behind it.
Tensor InCompute(Exec& ex, const Tensor& x, const char* label) {
  if (x.dtype == ex.compute()) return x;
  const int64_t cols = x.cols(), even = cols + cols % 2;
  const Tensor padded = ex.arena().Scratch(ex.compute(), x.rows(), even, Use::kLowRank, label);
  if (even > cols) ops::Zero(ex, Out{padded});
  ops::Convert(ex, x, Out{padded.Cols(0, cols)});
  return padded.Cols(0, cols);
}

void GradA(Exec& ex, In du, In x, const Tensor& grad) {
  if (x.t.dtype == DType::kF32) {
    ops::ProjectGradWeight(ex, du, x, Acc{grad});
    return;
  }
  Frame frame(ex.arena());
  const int64_t N = x.t.rows();
  const Tensor wide = ex.arena().Scratch(DType::kF32, std::min(N, kWidenRows), x.t.cols(), Use::kLowRank,
                                         "widened input rows");
  for (int64_t begin = 0; begin < N; begin += kWidenRows) {
    const int64_t rows = std::min(kWidenRows, N - begin);
    ops::Convert(ex, x.t.Rows(begin, rows), Out{wide.Rows(0, rows)});
    ops::ProjectGradWeight(ex, du.t.Rows(begin, rows), wide.Rows(0, rows), Acc{grad});
  }
}

}  // namespace

void Lora::Forward(Exec& ex, In x, Draw draw, Acc y, Out u) const {
  Frame frame(ex.arena());
  Tensor input = x.t;
  if (const ops::Dropout drop = mask(draw); drop.p > 0) {
    input = ex.arena().Scratch(x.t.dtype, x.t.rows(), x.t.cols(), Use::kLowRank, "dropped input");
    ops::Drop(ex, drop, x, Out{input});
  }
  const format::Matrix down = ops::AsMatrix(a.value), up = ops::AsMatrix(b.value);
  const ops::FrozenProduct into_u{&down, nullptr, u.t, false};
  ops::ProjectFrozen(ex, input, {&into_u, 1});
  ops::Scale(ex, scale, Acc{u.t});
  const ops::FrozenProduct into_y{&up, nullptr, y.t, true};
  ops::ProjectFrozen(ex, InCompute(ex, u.t, "low-rank state"), {&into_y, 1});
}

void Lora::Backward(Exec& ex, In dy, In dyt, In x, Draw draw, In u, const Acc* dx) const {
  Frame frame(ex.arena());
  const int64_t N = x.t.rows(), K = x.t.cols();
  const ops::Dropout drop = mask(draw);
  ops::ProjectGradWeight(ex, dy, u, Acc{b.grad});
  const Tensor du = ex.arena().Scratch(DType::kF32, N, a.value.rows(), Use::kLowRank, "d low-rank state");
  ops::ProjectFrozenGradInput(ex, dyt, ops::AsMatrix(b.value), Out{du});
  ops::Scale(ex, scale, Acc{du});
  if (drop.p > 0) {
    const Tensor input = ex.arena().Scratch(x.t.dtype, N, K, Use::kLowRank, "dropped input");
    ops::Drop(ex, drop, x, Out{input});
    GradA(ex, du, input, a.grad);
  } else {
    GradA(ex, du, x, a.grad);
  }
  if (!dx) return;
  const Tensor dut = InCompute(ex, du, "d low-rank state");
  if (drop.p > 0) {
    const Tensor dinput = ex.arena().Scratch(DType::kF32, N, K, Use::kLowRank, "d dropped input");
    ops::ProjectFrozenGradInput(ex, dut, ops::AsMatrix(a.value), Out{dinput});
    ops::DropGrad(ex, drop, dinput, *dx);
  } else {
    ops::ProjectFrozenGradInput(ex, dut, ops::AsMatrix(a.value), *dx);
  }
}

}  // namespace rung::nn
