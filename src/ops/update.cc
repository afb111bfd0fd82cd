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

void AdamW8(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m_codes, Acc m_absmax, Acc v_codes,
            Acc v_absmax) {
  const int64_t n = gradient.t.size(), blocks = cpu::AdamW8Blocks(n);
  RUNG_CHECK(weight.t.size() == n && m_codes.t.size() == n && v_codes.t.size() == n,
             "adamw8: arrays must have one length");
  RUNG_CHECK(m_absmax.t.size() == blocks && v_absmax.t.size() == blocks,
             "adamw8: one maximum per block of 256 elements");
  const cpu::Moments8 moments = {reinterpret_cast<uint8_t*>(m_codes.as<int8_t>()),
                                 reinterpret_cast<uint8_t*>(v_codes.as<int8_t>()), m_absmax.as<float>(),
                                 v_absmax.as<float>()};
  ex.Launch("adamw8", {},
            [&] { cpu::AdamW8Update(ex.cpu(), step, gradient.as<float>(), n, weight.as<float>(), moments); });
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
