// Rungs that begin as pruned blocks of the backbone: of a layer's weights the most important ones, copied.
//
// Rung j, tapped or free, is made from layer taps[j mod m] of m taps. I(w) >= 0 is the importance of a
// weight. Written W[rows, columns], "all" left out, sums over what is written:
//
//   R     the S channels c with the largest sum over the layers of
//           I(q[,c]) + I(k[,c]) + I(v[,c]) + I(gate[,c]) + I(up[,c]) + I(o[c,]) + I(down[c,])
//         One set for the whole ladder, so that a state of one rung means the same to the next.
//   P     the D'/2 rotary pairs p with the largest sum over the layers and all heads of
//           I(q[rows of p, R]) + I(k[rows of p, R])
//         One set for the whole ladder: its rungs turn by one table.
//
// and then of each layer by itself:
//
//   key-value heads   the Hkv' largest I(k[h,R]) + I(v[h,R]) + sum over the query heads g of h of
//                     I(q[g,R]) + I(o[R,g])
//   query heads       of each, the Hq'/Hkv' largest I(q[g,R]) + I(o[R,g])
//   value dimensions  of each, the D' largest I(v[d,R]) + sum over the chosen g of I(o[R,d of g])
//   neurons           the F' largest I(gate[f,R]) + I(up[f,R]) + I(down[R,f])
//
// Of equal sums the lower index is taken; what is taken keeps its order. Weights and norm gains are copied as
// they are, whatever pairs of rows the backbone turns (ops::RopeTable). Biases of the backbone's q, k and v
// have no place in a rung and are left out, and a rung's norms have an epsilon of their own, 1e-5. A tap's
// projection picks the channels R; the up-projection is zero.
#pragma once

#include <functional>
#include <vector>

#include "model/ladder.h"

namespace rung::model {

enum class BlockMatrix : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kBlockMatrices = 7;
template <class Block>  // nn::DecoderBlock, const or not
auto& LinearOf(Block& block, BlockMatrix matrix) {
  auto& attention = block.attention;
  decltype(&attention.q) all[] = {&attention.q,    &attention.k,  &attention.v,   &attention.o,
                                  &block.mlp.gate, &block.mlp.up, &block.mlp.down};
  return *all[static_cast<int>(matrix)];
}

// Writes the importance of one row (cols) of a layer's matrix.
using Importance = std::function<void(int64_t layer, BlockMatrix matrix, int64_t row, float* out)>;
// |w|, decoded when asked for. The backbone outlives it.
Importance Magnitude(const Backbone& backbone);

// Shapes the rungs of a pruned ladder of width S, as is in `spec`; with S = C they are the backbone's blocks,
// but for the biases of q, k and v and the norms' epsilon.
//   D'    D, or S where that is less
//   Hkv'  Hkv s, Hq'/Hkv' as near to Hq s as it goes, s = S D / (C D') the share of the heads
//   F'    F S / C in whole 16
// Refuses an S that is odd or above C, and models whose blocks are not such as a rung is: pre-norm by RMS,
// separate layers, SwiGLU, RoPE of whole heads, no other biases, and no window shorter than the context.
Status ShapePruned(const Config& config, LadderSpec* spec);

// What one layer gives to its rungs: rows and columns of its matrices, in the order of the rung's.
struct PrunedLayer {
  std::vector<int64_t> q_rows, k_rows, v_rows, o_cols, neurons;
};
struct PrunedSelection {
  std::vector<int64_t> channels;    // R
  std::vector<int64_t> rope_pairs;  // P: goes into the spec before the ladder is made
  std::vector<PrunedLayer> layers;  // of each tap
};

// `spec` as ShapePruned left it. Fails when an importance is not finite.
Result<PrunedSelection> SelectPruned(const Backbone& backbone, const LadderSpec& spec,
                                     const Importance& importance);
// Sets blocks, tap projections and the up-projection; gates stay as they are.
void FillPruned(const Backbone& backbone, const PrunedSelection& selection, Ladder* ladder);

}  // namespace rung::model
