// One door to the kernels.
//
// An op checks its shapes, takes its scratch from the arena and calls Launch. While a plan is made nothing
// behind Launch happens; while running the kernel is called, timed when a trace is wanted, and what it wrote
// is looked at when a watch is set.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <span>
#include <string>

#include "exec/finite_watch.h"
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

  // `written`: every tensor of numbers that the kernel writes; empty ones are passed over.
  template <class Kernel>
  void Launch(const char* name, Cost cost, std::span<const Tensor> written, const Kernel& kernel) {
    Record(name, cost);
    if (planning()) return;
    trace_ ? Time(name, cost, kernel) : kernel();
    if (watch_) watch_->Check(name, place_, written);
  }
  template <class Kernel>
  void Launch(const char* name, Cost cost, std::initializer_list<Tensor> written, const Kernel& kernel) {
    Launch(name, cost, std::span(written.begin(), written.size()), kernel);
  }
  // Of a kernel that writes no tensor.
  template <class Kernel>
  void Launch(const char* name, Cost cost, const Kernel& kernel) {
    Launch(name, cost, std::span<const Tensor>(), kernel);
  }

  void set_trace(Trace* trace) { trace_ = trace; }
  // Looks at what every launch writes from now on; nullptr: none does. It outlives its time here.
  void set_watch(FiniteWatch* watch) { watch_ = watch; }
  bool watched() const { return watch_ != nullptr; }

  // The sequence of launches so far, as a hash, and the work in it. Equal for a plan and its run.
  uint64_t fingerprint() const { return fingerprint_; }
  double flops() const { return flops_; }
  void ResetCounters();

 private:
  friend class At;
  void Record(const char* name, Cost cost);
  template <class Kernel>
  void Time(const char* name, Cost cost, const Kernel& kernel) {
    const auto begin = std::chrono::steady_clock::now();
    kernel();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    TraceRow& row = (*trace_)[name];
    ++row.calls;
    row.seconds += elapsed.count();
    row.flops += cost.flops;
    row.bytes += cost.bytes;
  }

  Arena arena_;
  cpu::Context context_;
  DType compute_;
  Trace* trace_ = nullptr;
  FiniteWatch* watch_ = nullptr;
  Place place_;
  uint64_t fingerprint_ = 0;
  double flops_ = 0.0;
};

// Says which part of the model the launches of a scope are of; the innermost counts.
class At {
 public:
  At(Exec& ex, const char* part, int64_t index = -1) : place_(ex.place_), before_(ex.place_) {
    place_ = {part, index};
  }
  ~At() { place_ = before_; }
  At(const At&) = delete;
  At& operator=(const At&) = delete;

 private:
  Place& place_;
  Place before_;
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
