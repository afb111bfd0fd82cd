#include "ops/update.h"

#include <cmath>

namespace rung::ops {

double Norm(Exec& ex, In x) {
  double squares = 0.0;
  ex.Launch("norm", {}, [&] { squares = cpu::SumSquares(ex.cpu(), x.as<float>(), x.t.size()); });
  return std::sqrt(squares);
}

void AdamW(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m, Acc v) {
  const int64_t n = gradient.t.size();
  RUNG_CHECK(weight.t.size() == n && m.t.size() == n && v.t.size() == n,
             "adamw: arrays must have one length");
  ex.Launch("adamw", {}, [&] {
    cpu::AdamWUpdate(ex.cpu(), step, gradient.as<float>(), n, weight.as<float>(), m.as<float>(),
                     v.as<float>());
  });
}

void Moments(Exec& ex, In x, bool normalize, float eps, double* sum, double* sum_squares, Out row_rms) {
  const int64_t N = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(row_rms.t.cols() == N, "moments: row_rms must be (1,N)");
  ex.Launch("moments", {}, [&] {
    if (x.t.dtype == DType::kBf16) {
      cpu::Moments(ex.cpu(), x.as<Bf16>(), x.t.stride, normalize, eps, N, C, sum, sum_squares,
                   row_rms.as<float>());
    } else {
      cpu::Moments(ex.cpu(), x.as<float>(), x.t.stride, normalize, eps, N, C, sum, sum_squares,
                   row_rms.as<float>());
    }
  });
}

}  // namespace rung::ops
