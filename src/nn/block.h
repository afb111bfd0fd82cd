// The decoder block, backbone's and ladder's alike: attention and MLP on a residual stream.
//
//   mid = x + Attention(norm(x))        y = mid + Mlp(norm(mid))
//
// Families differ by switches, not by classes. A block of the ladder is the same block, trained, in f32. The
// backward pass of a frozen block gives dx, and the gradients of the low-rank pairs beside its layers.
#pragma once

#include "nn/linear.h"
#include "ops/attention.h"
#include "ops/rows.h"

namespace rung::nn {

struct Norm {
  Param gain;                // (1,C)
  float gain_offset = 0.0f;  // some families store gain - 1
  float eps = 1e-5f;

  void Forward(Exec& ex, In x, Out y, const Out* rstd) const;
  // dx += ..., or dx = ...; the gain's gradient when it is trained.
  void Backward(Exec& ex, In dy, In x, In rstd, Acc dx) const;
  void Backward(Exec& ex, In dy, In x, In rstd, Out dx) const;
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
  bool qk_norm = false;           // RMSNorm of every query and key head before RoPE
  bool norms = true;              // before attention and MLP; without: their inputs are x and mid
  bool output_projection = true;  // without: attention heads are added as they are, Hq*D = C
  DType act = DType::kF32;        // of activations inside the block; the residual stream is f32
  // The rows of the plan that its memory counts for: scratch, and what is kept for Backward.
  Use use = Use::kBackbone, saved_use = Use::kSaved;
  // Rows of the MLP that are run at once; its inner activations (rows, F) are the widest of a model.
  int64_t mlp_rows = 1024;
  cpu::AttentionShape attention() const;
};

// The low-rank pairs beside the layers of one block; nullptr where there is none.
struct BlockLoras {
  const Lora *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr;
  const Lora *gate = nullptr, *up = nullptr, *down = nullptr;
};

// What a block reads besides its input.
struct BlockCall {
  const RowLayout& rows;
  const ops::RopeTable& rope;      // rotary 0: no positions
  const KvCache* cache = nullptr;  // generation
  const BlockLoras* loras = nullptr;
  uint64_t draw = 0;  // of dropout masks; 0: evaluation
};

struct Attention {
  Linear q, k, v, o;
  Norm q_norm, k_norm;  // over D, when shape.qk_norm

  struct Saved {
    Tensor q, k, v;                       // as attended: after norms and RoPE
    Tensor q_raw, k_raw, q_rstd, k_rstd;  // before their norms, when shape.qk_norm
    Tensor out;                           // (N, Hq*D)
    Tensor lse;                           // (N, Hq)
    Tensor q_low, k_low, v_low, o_low;    // (N,R) of low-rank pairs
  };
  // y += attention of h (N,C).
  void Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const;
  // dh (N,C) is overwritten.
  void Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                Out dh) const;
  void ForEachParam(const VisitParam& visit);
};

struct Mlp {
  Linear gate, up, down;  // gate is unused when not gated

  struct Saved {
    Tensor gate, up;                    // before the activation
    Tensor gate_low, up_low, down_low;  // (N,R) of low-rank pairs
  };
  void Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const;
  void Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                Out dh) const;
  void ForEachParam(const VisitParam& visit);
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
  void Forward(Exec& ex, In x, const BlockCall& call, Out y, Saved* saved) const;
  // Turns the gradient of y in `dx` into that of x.
  void Backward(Exec& ex, const BlockCall& call, const Saved& saved, Acc dx) const;

  // Visits what is trained, in a fixed order.
  void ForEachParam(const VisitParam& visit);
};

}  // namespace rung::nn
