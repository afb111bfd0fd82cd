// The decoder block, backbone's and ladder's alike: pre-norm attention and MLP on a residual stream.
//
//   mid = x + Attention(norm(x))        y = mid + Mlp(norm(mid))
//
// Families differ by switches, not by classes. A block of the ladder is the same block, trained, in f32.
#pragma once

#include <functional>

#include "nn/linear.h"
#include "ops/attention.h"
#include "ops/rows.h"

namespace rung::nn {

struct Norm {
  Param gain;                // (1,C)
  float gain_offset = 0.0f;  // some families store gain - 1
  float eps = 1e-5f;

  void Forward(Exec& ex, In x, Out y, const Out* rstd) const;
  // dx += ...; the gain's gradient when it is trained.
  void Backward(Exec& ex, In dy, In x, In rstd, Acc dx) const;
};

// Where the rows of a call belong. In training keys are the call's own rows; with a cache they are the
// cache's.
struct RowLayout {
  Tensor position;                        // (1,N) i32
  std::vector<cpu::AttentionSpan> spans;  // q ranges cover all rows, in order
  int64_t rows() const { return position.cols(); }
};
// Keys and values of earlier calls, (capacity, Hkv*D) each. The call's own rows are written behind them.
struct KvCache {
  Tensor k, v;
};

struct BlockShape {
  int64_t C = 0, Hq = 0, Hkv = 0, D = 0, F = 0;
  cpu::Activation activation = cpu::Activation::kSilu;
  bool gated = true;
  bool qk_norm = false;      // RMSNorm of every query and key head before RoPE
  DType act = DType::kF32;   // of activations inside the block; the residual stream is f32
  Use use = Use::kBackbone;  // the row of the plan that its memory counts for
  cpu::AttentionShape attention() const;
};

struct Attention {
  Linear q, k, v, o;
  Norm q_norm, k_norm;  // over D, when shape.qk_norm

  struct Saved {
    Tensor q, k, v;  // as attended: after RoPE
    Tensor out;      // (N, Hq*D)
    Tensor lse;      // (N, Hq)
  };
  // y += attention of h (N,C).
  void Forward(Exec& ex, const BlockShape& shape, In h, const RowLayout& rows, const ops::RopeTable& rope,
               const KvCache* cache, Acc y, Saved* saved) const;
  // dh (N,C) is overwritten.
  void Backward(Exec& ex, const BlockShape& shape, In dy, In h, const RowLayout& rows,
                const ops::RopeTable& rope, const Saved& saved, Out dh) const;
};

struct Mlp {
  Linear gate, up, down;  // up is unused when not gated

  struct Saved {
    Tensor gate, up;  // before the activation
  };
  void Forward(Exec& ex, const BlockShape& shape, In h, Acc y, Saved* saved) const;
  void Backward(Exec& ex, const BlockShape& shape, In dy, In h, const Saved& saved, Out dh) const;
};

struct DecoderBlock {
  BlockShape shape;
  Norm attention_norm, mlp_norm;
  Attention attention;
  Mlp mlp;

  struct Saved {
    Tensor x;                  // a view: the caller keeps the input
    Tensor mid;                // (N,C)
    Tensor rstd_in, rstd_mid;  // (1,N)
    Attention::Saved attention;
    Mlp::Saved mlp;
  };
  // x, y (N,C) f32; y may be x when nothing is saved. A null `saved` means nobody will call Backward.
  void Forward(Exec& ex, In x, const RowLayout& rows, const ops::RopeTable& rope, const KvCache* cache, Out y,
               Saved* saved) const;
  // Turns the gradient of y in `dx` into that of x. Trained blocks, f32 only.
  void Backward(Exec& ex, const RowLayout& rows, const ops::RopeTable& rope, const Saved& saved,
                Acc dx) const;

  // Visits what is trained, in a fixed order.
  void ForEachParam(const std::function<void(Param&)>& visit);
};

}  // namespace rung::nn
