#include "model/block_linears.h"

namespace rung::model {

std::vector<BlockLinear> BlockLinears(const Config& c) {
  using A = nn::Attention;
  using M = nn::Mlp;
  using P = nn::BlockLoras;
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  std::vector<BlockLinear> linears;
  const auto attention = [&](const char* role, std::string Names::*name, int64_t rows, int64_t cols,
                             bool bias, const nn::Lora* P::*pair, nn::Linear A::*place) {
    linears.push_back({role, name, rows, cols, bias, pair, place, nullptr});
  };
  const auto mlp = [&](const char* role, std::string Names::*name, int64_t rows, int64_t cols,
                       const nn::Lora* P::*pair, nn::Linear M::*place) {
    linears.push_back({role, name, rows, cols, c.mlp_bias, pair, nullptr, place});
  };
  if (c.qkv == nn::QkvRows::kSeparate) {
    attention("q", &Names::q, q, c.C, c.qkv_bias, &P::q, &A::q);
    attention("k", &Names::k, kv, c.C, c.qkv_bias, &P::k, &A::k);
    attention("v", &Names::v, kv, c.C, c.qkv_bias, &P::v, &A::v);
  } else {
    attention("qkv", &Names::qkv, q + 2 * kv, c.C, c.qkv_bias, &P::qkv, &A::qkv);
  }
  attention("o", &Names::o, c.C, q, c.o_bias, &P::o, &A::o);
  if (c.fused_gate_up) {
    mlp("gate_up", &Names::gate_up, 2 * c.F, c.C, &P::gate_up, &M::gate_up);
  } else {
    if (c.gated_mlp) mlp("gate", &Names::gate, c.F, c.C, &P::gate, &M::gate);
    mlp("up", &Names::up, c.F, c.C, &P::up, &M::up);
  }
  mlp("down", &Names::down, c.C, c.F, &P::down, &M::down);
  return linears;
}

}  // namespace rung::model
