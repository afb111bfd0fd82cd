// The kernels of panel.h as templates over a Core: one compute type on one ISA. Include only from
// panel_<isa>.cc.
//
// A core sees both types as dwords: one float, or two neighbouring Bf16 that are multiplied together.
//
//   T, kDword               element; elements in a dword (1 or 2)
//   V, Reg                  vector of f32 sums (vec.h); register of kWidth = V::kWidth dwords
//   kRegisters              vector registers of the machine
//   kRows, kVecs            micro tile: kRows rows of A by kVecs vectors of panel rows, all in registers
//   Load, Store             a Reg from and to unaligned memory
//   Round(const float*)     kWidth*kDword floats, as a Reg
//   Broadcast(const T*)     one dword, to all of a Reg
//   Column(src, ld)         kWidth neighbouring columns of kDword rows: dword j is (src[j], src[ld + j])
//   Dot(sum, a, b)          sum + the products of the dwords of a and b
//   Transpose(Reg*)         a square of kWidth x kWidth dwords in place
//
// A panel is 64/kSlice slices of (depth, kSlice) dwords, kSlice = kVecs*kWidth: what one micro tile reads is
// contiguous. depth is K in dwords.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel.h"
#include "kernels/cpu/vec.h"

#define RUNG_INLINE [[gnu::always_inline]] inline
// Inlined into their callers, micro tiles lose registers to them and spill.
#define RUNG_TILE [[gnu::noinline]]

namespace rung::cpu {
namespace {

template <class Core>
inline constexpr int64_t kWidth = Core::V::kWidth;
template <class Core>
inline constexpr int64_t kSlice = Core::kVecs* kWidth<Core>;
template <class Core>
inline constexpr int64_t kLanes = kWidth<Core>* Core::kDword;  // elements of a Reg

template <class Core>
constexpr int64_t Depth(int64_t K) {
  return (K + Core::kDword - 1) / Core::kDword;
}

template <class Core, class T>
RUNG_INLINE T* DwordOf(T* panel, int64_t depth, int64_t d, int64_t r) {
  return panel + Core::kDword * ((r / kSlice<Core> * depth + d) * kSlice<Core> + r % kSlice<Core>);
}

}  // namespace
}  // namespace rung::cpu
