#include "nn/block_reference.h"

#include <algorithm>
#include <cmath>

namespace rung::nn::reference {
namespace {

struct Dual {
  double v = 0.0, d = 0.0;
  Dual(double value = 0.0, double derivative = 0.0) : v(value), d(derivative) {}
};
Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
Dual operator/(Dual a, Dual b) { return {a.v / b.v, (a.d * b.v - a.v * b.d) / (b.v * b.v)}; }
Dual& operator+=(Dual& a, Dual b) { return a = a + b; }
Dual Exp(Dual a) { return {std::exp(a.v), a.d * std::exp(a.v)}; }
Dual Tanh(Dual a) { return {std::tanh(a.v), a.d * (1.0 - std::tanh(a.v) * std::tanh(a.v))}; }
Dual Sqrt(Dual a) { return {std::sqrt(a.v), a.d / (2.0 * std::sqrt(a.v))}; }
Dual Erf(Dual a) { return {std::erf(a.v), a.d * 2.0 / std::sqrt(std::acos(-1.0)) * std::exp(-a.v * a.v)}; }

using Row = std::vector<Dual>;
using Rows = std::vector<Row>;

size_t At(int64_t i) { return static_cast<size_t>(i); }

class Block {
 public:
  // seed: the number that derivatives are towards; nullptr: none.
  Block(const DecoderBlock& block, const BlockLoras& loras, const Rotation& rotation, const float* seed)
      : block_(block), shape_(block.shape), loras_(loras), rotation_(rotation), seed_(seed) {}

  // Packed sequences: span s is rows [starts[s], starts[s+1]).
  Rows Forward(const Tensor& x_in, const std::vector<int64_t>& starts) const {
    const Rows x = Read(x_in);
    const Dual m = static_cast<double>(shape_.residual_scale);
    if (shape_.norm_after_sum) {
      const Rows mid = Normed(block_.attention_norm, Sum(x, 1.0, Attend(x, starts)));
      return Normed(block_.mlp_norm, Sum(mid, 1.0, Widen(mid)));
    }
    const auto in = [&](const Norm& norm, const Rows& rows) {
      return shape_.norms ? Normed(norm, rows) : rows;
    };
    const auto out = [&](const Norm& norm, const Rows& rows) {
      return shape_.output_norms ? Normed(norm, rows) : rows;
    };
    const Rows attended = out(block_.attention_output_norm, Attend(in(block_.attention_norm, x), starts));
    const Rows mid = Sum(x, m, attended);
    const Rows& mlp_in = shape_.parallel ? x : mid;
    return Sum(mid, m, out(block_.mlp_output_norm, Widen(in(block_.mlp_norm, mlp_in))));
  }

 private:
  Dual Read(const float* p) const { return {static_cast<double>(*p), p == seed_ ? 1.0 : 0.0}; }
  Rows Read(const Tensor& t) const {
    Rows rows(At(t.rows()), Row(At(t.cols())));
    for (int64_t n = 0; n < t.rows(); ++n) {
      for (int64_t c = 0; c < t.cols(); ++c) rows[At(n)][At(c)] = Read(In(t).as<float>() + n * t.stride + c);
    }
    return rows;
  }

  static Rows Sum(Rows a, Dual factor, const Rows& b) {
    for (size_t n = 0; n < a.size(); ++n) {
      for (size_t c = 0; c < a[n].size(); ++c) a[n][c] += factor * b[n][c];
    }
    return a;
  }

  Row NormRow(const Norm& norm, const Row& x) const {
    const Dual count = static_cast<double>(x.size());
    Dual mean, square;
    if (norm.kind == NormKind::kLayer) {
      for (const Dual& v : x) mean += v / count;
    }
    for (const Dual& v : x) square += (v - mean) * (v - mean) / count;
    const Dual deviation = Sqrt(square + Dual(static_cast<double>(norm.eps)));
    Row y;
    for (size_t c = 0; c < x.size(); ++c) {
      const Dual gain = Read(In(norm.gain.value).as<float>() + c) + Dual(norm.gain_offset);
      const Dual bias = norm.bias.value.empty() ? Dual() : Read(In(norm.bias.value).as<float>() + c);
      y.push_back((x[c] - mean) / deviation * gain + bias);
    }
    return y;
  }
  Rows Normed(const Norm& norm, const Rows& x) const {
    Rows y;
    for (const Row& row : x) y.push_back(NormRow(norm, row));
    return y;
  }

  Rows Times(const float* weight, const float* bias, int64_t O, int64_t K, const Rows& x) const {
    Rows y;
    for (const Row& row : x) {
      Row& out = y.emplace_back();
      for (int64_t o = 0; o < O; ++o) {
        Dual sum = bias ? Read(bias + o) : Dual();
        for (int64_t k = 0; k < K; ++k) sum += row[At(k)] * Read(weight + o * K + k);
        out.push_back(sum);
      }
    }
    return y;
  }
  Rows Apply(const Linear& layer, const Lora* pair, const Rows& x) const {
    const int64_t O = layer.out_features(), K = layer.in_features();
    if (layer.trained) {
      const Tensor& b = layer.trained_bias.value;
      return Times(In(layer.weight.value).as<float>(), b.empty() ? nullptr : In(b).as<float>(), O, K, x);
    }
    const Rows y = Times(reinterpret_cast<const float*>(layer.frozen.data),
                         layer.bias.empty() ? nullptr : layer.bias.data(), O, K, x);
    if (!pair) return y;
    const int64_t R = pair->a.value.rows();
    const Rows u = Times(In(pair->a.value).as<float>(), nullptr, R, K, x);
    return Sum(y, static_cast<double>(pair->scale), Times(In(pair->b.value).as<float>(), nullptr, O, R, u));
  }

  // Head h of one row: columns [begin, begin + D).
  Row Head(const Row& row, int64_t begin) const {
    return Row(row.begin() + begin, row.begin() + begin + shape_.D);
  }
  void Turn(Row* head, int64_t position) const {
    const int64_t pairs = rotation_.rotary / 2;
    for (int64_t p = 0; p < pairs; ++p) {
      const double angle = static_cast<double>(position) *
                           std::pow(rotation_.theta, -static_cast<double>(p) / static_cast<double>(pairs));
      Dual& a = (*head)[At(rotation_.half ? p : 2 * p)];
      Dual& b = (*head)[At(rotation_.half ? p + pairs : 2 * p + 1)];
      const Dual c = std::cos(angle), s = std::sin(angle), first = a;
      a = first * c - b * s;
      b = b * c + first * s;
    }
  }

  struct Projected {
    std::vector<Rows> q, k, v;  // by head
  };
  Projected Project(const Rows& h) const {
    const Attention& a = block_.attention;
    const int64_t D = shape_.D, Hq = shape_.Hq, Hkv = shape_.Hkv;
    Projected heads{std::vector<Rows>(At(Hq)), std::vector<Rows>(At(Hkv)), std::vector<Rows>(At(Hkv))};
    const auto split = [&](const Rows& from, int64_t first, int64_t step, std::vector<Rows>* to) {
      for (size_t i = 0; i < to->size(); ++i) {
        for (const Row& row : from) {
          (*to)[i].push_back(Head(row, first + static_cast<int64_t>(i) * step));
        }
      }
    };
    if (shape_.qkv == QkvRows::kSeparate) {
      Rows q = Apply(a.q, loras_.q, h), k = Apply(a.k, loras_.k, h);
      if (shape_.qk_norm == QkNorm::kWide) q = Normed(a.q_norm, q), k = Normed(a.k_norm, k);
      split(q, 0, D, &heads.q);
      split(k, 0, D, &heads.k);
      split(Apply(a.v, loras_.v, h), 0, D, &heads.v);
    } else {
      const Rows all = Apply(a.qkv, loras_.qkv, h);
      const bool stacked = shape_.qkv == QkvRows::kStacked;
      const int64_t step = stacked ? D : 3 * D;
      split(all, 0, step, &heads.q);
      split(all, stacked ? Hq * D : D, step, &heads.k);
      split(all, stacked ? (Hq + Hkv) * D : 2 * D, step, &heads.v);
    }
    if (shape_.qk_norm == QkNorm::kHead) {
      for (Rows& head : heads.q) head = Normed(a.q_norm, head);
      for (Rows& head : heads.k) head = Normed(a.k_norm, head);
    }
    return heads;
  }

  Dual Score(const Row& q, const Row& k) const {
    const double scale = shape_.score_scale > 0.0f ? static_cast<double>(shape_.score_scale)
                                                   : 1.0 / std::sqrt(static_cast<double>(shape_.D));
    Dual s;
    for (size_t d = 0; d < q.size(); ++d) s += q[d] * k[d];
    s = s * Dual(scale);
    const Dual cap = static_cast<double>(shape_.score_cap);
    return shape_.score_cap > 0.0f ? cap * Tanh(s / cap) : s;
  }

  // softmax(q k^T) v of one row over keys [first, i].
  Row Mixed(const Rows& q, const Rows& k, const Rows& v, int64_t first, int64_t i) const {
    Row out(At(shape_.D));
    Dual total;
    for (int64_t j = first; j <= i; ++j) {
      const Dual weight = Exp(Score(q[At(i)], k[At(j)]));
      total += weight;
      for (size_t d = 0; d < out.size(); ++d) out[d] += weight * v[At(j)][d];
    }
    for (Dual& value : out) value = value / total;
    return out;
  }

  Rows Attend(const Rows& h, const std::vector<int64_t>& starts) const {
    Projected heads = Project(h);
    Rows out(h.size());
    const int64_t group = shape_.Hq / shape_.Hkv;
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      for (int64_t i = starts[s]; i < starts[s + 1]; ++i) {
        for (Rows& head : heads.q) Turn(&head[At(i)], i - starts[s]);
        for (Rows& head : heads.k) Turn(&head[At(i)], i - starts[s]);
      }
      for (int64_t i = starts[s]; i < starts[s + 1]; ++i) {
        const int64_t first = shape_.window > 0 ? std::max(starts[s], i - shape_.window + 1) : starts[s];
        for (int64_t g = 0; g < shape_.Hq; ++g) {
          const Row mixed = Mixed(heads.q[At(g)], heads.k[At(g / group)], heads.v[At(g / group)], first, i);
          out[At(i)].insert(out[At(i)].end(), mixed.begin(), mixed.end());
        }
      }
    }
    return shape_.output_projection ? Apply(block_.attention.o, loras_.o, out) : out;
  }

  Dual Activated(Dual x) const {
    const Dual half = 0.5, one = 1.0;
    switch (shape_.activation) {
      case cpu::Activation::kSilu:
        return x / (one + Exp(Dual() - x));
      case cpu::Activation::kGelu:
        return half * x * (one + Erf(x * Dual(std::sqrt(0.5))));
      case cpu::Activation::kGeluTanh: {
        const Dual c = std::sqrt(2.0 / std::acos(-1.0));
        return half * x * (one + Tanh(c * (x + Dual(0.044715) * x * x * x)));
      }
      case cpu::Activation::kRelu:
        return x.v > 0.0 ? x : Dual();
    }
    return {};
  }

  Rows Widen(const Rows& h) const {
    const Mlp& mlp = block_.mlp;
    const size_t F = At(shape_.F);
    Rows inner;
    if (!shape_.gated) {
      inner = Apply(mlp.up, loras_.up, h);
      for (Row& row : inner) {
        for (Dual& value : row) value = Activated(value);
      }
    } else {
      const bool fused = shape_.fused_gate_up;
      const Rows gate = fused ? Apply(mlp.gate_up, loras_.gate_up, h) : Apply(mlp.gate, loras_.gate, h);
      const Rows up = fused ? gate : Apply(mlp.up, loras_.up, h);
      for (size_t n = 0; n < h.size(); ++n) {
        Row& row = inner.emplace_back();
        for (size_t f = 0; f < F; ++f) row.push_back(Activated(gate[n][f]) * up[n][fused ? F + f : f]);
      }
    }
    return Apply(mlp.down, loras_.down, inner);
  }

  const DecoderBlock& block_;
  const BlockShape& shape_;
  const BlockLoras& loras_;
  const Rotation& rotation_;
  const float* seed_;
};

}  // namespace

std::vector<double> Forward(const DecoderBlock& block, const BlockLoras& loras, const Rotation& rotation,
                            const Tensor& x, const std::vector<int64_t>& starts) {
  std::vector<double> y;
  for (const Row& row : Block(block, loras, rotation, nullptr).Forward(x, starts)) {
    for (const Dual& value : row) y.push_back(value.v);
  }
  return y;
}

std::vector<double> Gradient(const DecoderBlock& block, const BlockLoras& loras, const Rotation& rotation,
                             const Tensor& x, const std::vector<int64_t>& starts,
                             const std::vector<float>& dy, const Tensor& at, int64_t step) {
  std::vector<double> gradient;
  for (int64_t i = 0; i < at.size(); i += step) {
    const Rows y = Block(block, loras, rotation, In(at).as<float>() + i).Forward(x, starts);
    double sum = 0.0;
    for (size_t n = 0; n < dy.size(); ++n) {
      sum += static_cast<double>(dy[n]) * y[n / y[0].size()][n % y[0].size()].d;
    }
    gradient.push_back(sum);
  }
  return gradient;
}

}  // namespace rung::nn::reference
