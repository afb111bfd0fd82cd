// The decoder block, backbone's and ladder's alike: attention and MLP on a residual stream.
//
//   mid = x + m out(Attention(in(x)))      y = mid + m out(Mlp(in(mid)))       in, out: norms, or nothing
//   y   = x + Attention(in(x)) + Mlp(in'(x))                                   shape.parallel
//   mid = out(x + Attention(x))            y = out(mid + Mlp(mid))             shape.norm_after_sum
//
// Families differ by switches, not by classes. A block of the ladder is the same block, trained, in f32. The
// backward pass of a frozen block gives dx, and the gradients of the low-rank pairs beside its layers.
#pragma once

#include "nn/linear.h"
#include "nn/norm.h"
#include "ops/attention.h"
#include "ops/rows.h"

namespace rung::nn {

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

// How a block's query, key and value weights stand in its checkpoint, which is how they are used.
//
//   kSeparate     three layers
//   kStacked      one layer: the rows of q, of k, of v
//   kInterleaved  one layer: q, k, v of head 0, then of head 1, ... (Hq = Hkv)
enum class QkvRows : uint8_t { kSeparate, kStacked, kInterleaved };

// Norms of queries and keys before RoPE: of every head, or over all heads together (Hq*D and Hkv*D).
enum class QkNorm : uint8_t { kNone, kHead, kWide };

struct BlockShape {
  int64_t C = 0, Hq = 0, Hkv = 0, D = 0, F = 0;
  cpu::Activation activation = cpu::Activation::kSilu;
  bool gated = true;
  bool fused_gate_up = false;  // one layer: the rows of gate, then of up
  QkvRows qkv = QkvRows::kSeparate;
  QkNorm qk_norm = QkNorm::kNone;
  bool norms = true;              // before attention and MLP; without: their inputs are x and mid
  bool output_norms = false;      // of what attention and MLP add
  bool norm_after_sum = false;    // instead of `norms`: those norms are of the sums
  bool parallel = false;          // both read x
  bool output_projection = true;  // without: attention heads are added as they are, Hq*D = C
  float residual_scale = 1.0f;    // m
  float score_scale = 0.0f;       // of attention; 0: 1/sqrt(D)
  float score_cap = 0.0f;         // soft cap of attention scores; 0: none
  int64_t window = 0;             // keys a query sees, itself included; 0: all before it
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
  const Lora *qkv = nullptr, *gate_up = nullptr;  // beside fused layers
};

// How far down the backward pass of a block goes: to its input, or to the lowest of its layers that has
// something to train, where nobody wants the gradient of the input.
enum class Reach : uint8_t { kInput, kTrained };

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
  Linear qkv;           // instead of q, k, v, when they are fused
  Norm q_norm, k_norm;  // over D or all heads, see shape.qk_norm

  struct Saved {
    Tensor qkv;                             // (N, (Hq+2*Hkv)*D) of a fused layer: q, k, v are parts of it
    Tensor q, k, v;                         // as attended: after norms and RoPE
    Tensor q_raw, k_raw, q_stats, k_stats;  // before their norms, when shape.qk_norm
    Tensor out;                             // (N, Hq*D)
    Tensor lse;                             // (N, Hq)
    Tensor q_low, k_low, v_low, o_low, qkv_low;  // (N,R) of low-rank pairs
  };
  // y += attention of h (N,C).
  void Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const;
  // dh (N,C) is overwritten; nullptr: nobody wants it.
  void Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                const Out* dh) const;
  // Any of its layers is trained or has a pair.
  bool Learns(const BlockCall& call) const;
  void ForEachParam(const VisitParam& visit);
};

struct Mlp {
  Linear gate, up, down;  // gate is unused when not gated
  Linear gate_up;         // instead of gate and up, when they are fused

  struct Saved {
    Tensor gate, up;  // before the activation; of a fused layer parts of one array
    Tensor gate_low, up_low, down_low, gate_up_low;  // (N,R) of low-rank pairs
  };
  void Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const;
  // dh as of Attention.
  void Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                const Out* dh) const;
  void ForEachParam(const VisitParam& visit);
};

struct DecoderBlock {
  BlockShape shape;
  Norm attention_norm, mlp_norm;                // shape.norms or shape.norm_after_sum
  Norm attention_output_norm, mlp_output_norm;  // shape.output_norms
  Attention attention;
  Mlp mlp;

  struct Saved {
    Tensor x;                                   // a view: the caller keeps the input
    Tensor mid;                                 // (N,C); not of a parallel block
    Tensor stats_in, stats_mid;                 // (Norm::stat_rows, N) of attention_norm and mlp_norm
    Tensor attention_out, mlp_out;              // (N,C) before output_norms; the sums of norm_after_sum
    Tensor attention_out_stats, mlp_out_stats;  // of output_norms
    Attention::Saved attention;
    Mlp::Saved mlp;
  };
  // x, y (N,C) f32; y may be x when nothing is saved. A null `saved` means nobody will call Backward.
  void Forward(Exec& ex, In x, const BlockCall& call, Out y, Saved* saved) const;
  // Turns the gradient of y in `dx` into that of x; of Reach::kTrained into garbage. The gradients of what is
  // trained are the same bits either way.
  void Backward(Exec& ex, const BlockCall& call, const Saved& saved, Acc dx,
                Reach reach = Reach::kInput) const;

  // Visits what is trained, in a fixed order.
  void ForEachParam(const VisitParam& visit);
};

}  // namespace rung::nn
