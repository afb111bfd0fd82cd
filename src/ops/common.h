// What the ops of this room share: checks of shapes, the two types of elements, scratch in bytes.
#pragma once

#include "exec/exec.h"

namespace rung::ops {

inline bool SameShape(const Tensor& a, const Tensor& b) {
  return a.rows() == b.rows() && a.cols() == b.cols();
}
inline bool IsVector(const Tensor& t, int64_t size) { return t.rows() == 1 && t.cols() == size; }

// body(pointer to the tensor's elements), of the type that it has: f32 or bf16. `x` is an In, Out or Acc.
template <class Access, class Body>
void OnElementsOf(const Access& x, const Body& body) {
  if (x.t.dtype == DType::kBf16) {
    body(x.template as<Bf16>());
  } else {
    body(x.template as<float>());
  }
}

// Scratch counted in bytes for a kernel that lays it out itself.
inline std::byte* KernelScratch(Exec& ex, size_t bytes, Use use, const char* label) {
  return ex.arena().Scratch(DType::kF32, 1, static_cast<int64_t>((bytes + 3) / 4), use, label).data;
}

}  // namespace rung::ops
