#include "ops/update.h"

#include <cmath>

#include "ops/common.h"

namespace rung::ops {
namespace {

// n elements behind each other.
bool IsFlat(const Tensor& t, int64_t n) { return t.size() == n && t.contiguous(); }

}  // namespace

double Norm(Exec& ex, In x) {
  RUNG_CHECK(x.t.contiguous(), "norm: x is contiguous");
  double squares = 0.0;
  ex.Launch("norm", {}, [&] { squares = cpu::SumSquares(ex.cpu(), x.as<float>(), x.t.size()); });
  return std::sqrt(squares);
}

void AddSquares(Exec& ex, In x, Acc y) {
  const int64_t n = x.t.size();
  RUNG_CHECK(IsFlat(x.t, n) && IsFlat(y.t, n), "add_squares: arrays must be flat and have one length");
  ex.Launch("add_squares", {}, {y.t}, [&] { cpu::AddSquares(ex.cpu(), x.as<float>(), n, y.as<float>()); });
}

void AdamW(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m, Acc v) {
  const int64_t n = gradient.t.size();
  RUNG_CHECK(IsFlat(gradient.t, n) && IsFlat(weight.t, n) && IsFlat(m.t, n) && IsFlat(v.t, n),
             "adamw: arrays must be flat and have one length");
  ex.Launch("adamw", {}, {weight.t, m.t, v.t}, [&] {
    cpu::AdamWUpdate(ex.cpu(), step, gradient.as<float>(), n, weight.as<float>(), m.as<float>(),
                     v.as<float>());
  });
}

void AdamW8(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m_codes, Acc m_absmax, Acc v_codes,
            Acc v_absmax) {
  const int64_t n = gradient.t.size(), blocks = cpu::AdamW8Blocks(n);
  RUNG_CHECK(IsFlat(gradient.t, n) && IsFlat(weight.t, n) && IsFlat(m_codes.t, n) && IsFlat(v_codes.t, n),
             "adamw8: arrays must be flat and have one length");
  RUNG_CHECK(IsFlat(m_absmax.t, blocks) && IsFlat(v_absmax.t, blocks),
             "adamw8: one maximum per block of 256 elements");
  const cpu::Moments8 moments = {reinterpret_cast<uint8_t*>(m_codes.as<int8_t>()),
                                 reinterpret_cast<uint8_t*>(v_codes.as<int8_t>()), m_absmax.as<float>(),
                                 v_absmax.as<float>()};
  ex.Launch("adamw8", {}, {weight.t, m_absmax.t, v_absmax.t},
            [&] { cpu::AdamW8Update(ex.cpu(), step, gradient.as<float>(), n, weight.as<float>(), moments); });
}

void Moments(Exec& ex, In x, bool normalize, float eps, double* sum, double* sum_squares, Out row_rms) {
  const int64_t N = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(row_rms.t.cols() == N, "moments: row_rms must be (1,N)");
  ex.Launch("moments", {}, {row_rms.t}, [&] {
    OnElementsOf(x, [&](const auto* from) {
      cpu::Moments(ex.cpu(), from, x.t.stride, normalize, eps, N, C, sum, sum_squares, row_rms.as<float>());
    });
  });
}

}  // namespace rung::ops
