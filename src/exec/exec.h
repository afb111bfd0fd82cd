// One door to the kernels.
//
// An op checks its shapes, takes its scratch from the arena and calls Launch. While a plan is made nothing
// behind Launch happens; while running the kernel is called, and timed when a trace is wanted.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "kernels/cpu/isa.h"
#include "tensor/arena.h"
#include "tensor/tensor.h"

namespace rung {

// What a launch costs by its definition, whatever the kernel really does.
struct Cost {
  double flops = 0.0;  // 2 per multiply-add, of products only
  double bytes = 0.0;  // weights read once, for memory-bound products
};

struct TraceRow {
  int64_t calls = 0;
  double seconds = 0.0, flops = 0.0, bytes = 0.0;
};
using Trace = std::map<std::string, TraceRow, std::less<>>;

class Exec {
 public:
  // `compute`: f32, or bf16 where the ISA has products of it. No kernel asks again.
  //
  // An Exec that plans: launches nothing, and its arena only counts.
  static Exec Planning(const cpu::Context& context, DType compute) { return Exec(Arena(), context, compute); }
  // An Exec that runs in `slab`, which outlives it.
  Exec(Arena arena, const cpu::Context& context, DType compute);

  Arena& arena() { return arena_; }
  bool planning() const { return arena_.planning(); }
  const cpu::Context& cpu() const { return context_; }
  DType compute() const { return compute_; }  // of frozen products and their activations: kF32 or kBf16

  template <class Kernel>
  void Launch(const char* name, Cost cost, const Kernel& kernel) {
    Record(name, cost);
    if (planning()) return;
    if (!trace_) {
      kernel();
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    kernel();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    TraceRow& row = (*trace_)[name];
    ++row.calls;
    row.seconds += elapsed.count();
    row.flops += cost.flops;
    row.bytes += cost.bytes;
  }

  void set_trace(Trace* trace) { trace_ = trace; }

  // The sequence of launches so far, as a hash, and the work in it. Equal for a plan and its run.
  uint64_t fingerprint() const { return fingerprint_; }
  double flops() const { return flops_; }
  void ResetCounters();

 private:
  void Record(const char* name, Cost cost);

  Arena arena_;
  cpu::Context context_;
  DType compute_;
  Trace* trace_ = nullptr;
  uint64_t fingerprint_ = 0;
  double flops_ = 0.0;
};

// Memory for a running arena: anonymous, zero pages until touched, returned to the system when it dies.
class Slab {
 public:
  explicit Slab(size_t bytes);  // throws Error(kNoMemory)
  ~Slab();
  Slab(Slab&& other) noexcept : base_(other.base_), bytes_(other.bytes_) { other.base_ = nullptr; }
  Slab& operator=(Slab&&) = delete;

  std::byte* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(base_);
  }

 private:
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace rung
