// Views of numbers in memory: two dimensions, row-major, no ownership.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "base/half.h"

namespace rung {

enum class DType : uint8_t { kF32, kBf16, kI32, kI8 };

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kBf16 ? 2 : dtype == DType::kI8 ? 1 : 4; }
constexpr const char* NameOf(DType dtype) {
  constexpr const char* kNames[] = {"f32", "bf16", "i32", "i8"};
  return kNames[static_cast<int>(dtype)];
}
template <class T>
inline constexpr DType kDTypeOf = DType::kF32;
template <>
inline constexpr DType kDTypeOf<Bf16> = DType::kBf16;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<int8_t> = DType::kI8;

// A (rows, cols) view. A vector (C) is one row. Copying a Tensor copies the view.
// `data` is an address that must not be read while a plan is made: there it is null-based.
struct Tensor {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t row_count = 0, col_count = 0;
  int64_t stride = 0;  // elements from one row to the next, >= col_count

  int64_t rows() const { return row_count; }
  int64_t cols() const { return col_count; }
  int64_t size() const { return row_count * col_count; }
  bool contiguous() const { return stride == col_count || row_count <= 1; }
  bool empty() const { return row_count == 0; }

  Tensor Rows(int64_t begin, int64_t count) const {
    RUNG_CHECK(begin >= 0 && count >= 0 && begin + count <= row_count, "rows outside of the tensor");
    Tensor t = *this;
    t.data += static_cast<size_t>(begin * stride) * SizeOf(dtype);
    t.row_count = count;
    return t;
  }
  Tensor Cols(int64_t begin, int64_t count) const {
    RUNG_CHECK(begin >= 0 && count >= 0 && begin + count <= col_count, "columns outside of the tensor");
    Tensor t = *this;
    t.data += static_cast<size_t>(begin) * SizeOf(dtype);
    t.col_count = count;
    return t;
  }
  // The same memory with another row length, e.g. (N, H*D) seen as (N*H, D).
  Tensor Reshape(int64_t rows, int64_t cols) const {
    RUNG_CHECK(contiguous() && rows * cols == size(), "reshape needs contiguous memory of the same size");
    return Tensor{data, dtype, rows, cols, cols};
  }
};

// A view of memory that lives outside of the arena.
template <class T>
Tensor View(T* data, int64_t rows, int64_t cols) {
  return Tensor{reinterpret_cast<std::byte*>(data), kDTypeOf<T>, rows, cols, cols};
}

// Access is spelled at the call site: RmsNorm(ex, x, gain, Out{y}).
// `=` and `+=` are the two classic mistakes of a hand-written backward pass, so they have
// different types.
struct In {
  In(const Tensor& tensor) : t(tensor) {}  // implicit: reading needs no ceremony
  template <class T>
  const T* as() const {
    RUNG_CHECK(t.dtype == kDTypeOf<T>, "tensor read as another type");
    return reinterpret_cast<const T*>(t.data);
  }
  Tensor t;
};
struct Out {  // overwritten: old contents are garbage
  explicit Out(const Tensor& tensor) : t(tensor) {}
  template <class T>
  T* as() const {
    RUNG_CHECK(t.dtype == kDTypeOf<T>, "tensor written as another type");
    return reinterpret_cast<T*>(t.data);
  }
  Tensor t;
};
struct Acc {  // added to: old contents count
  explicit Acc(const Tensor& tensor) : t(tensor) {}
  template <class T>
  T* as() const {
    RUNG_CHECK(t.dtype == kDTypeOf<T>, "tensor added to as another type");
    return reinterpret_cast<T*>(t.data);
  }
  Tensor t;
};

}  // namespace rung
