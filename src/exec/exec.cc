#include "exec/exec.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>

#include "base/text.h"
#include "kernels/cpu/panel.h"

namespace rung {

Exec::Exec(Arena arena, const cpu::Context& context, DType compute)
    : arena_(std::move(arena)), context_(context), compute_(compute) {
  const bool has_bf16 = cpu::PanelFor<Bf16>(context.isa) != nullptr;
  RUNG_CHECK(compute == DType::kF32 || (compute == DType::kBf16 && has_bf16),
             "exec: the ISA has no products in the compute type");
}

void Exec::Record(const char* name, Cost cost) {
  // FNV-1a over name and cost: a skipped, added or moved launch and a resized product change it.
  constexpr uint64_t kPrime = 0x100000001b3ull;
  for (; *name; ++name) fingerprint_ = (fingerprint_ ^ static_cast<unsigned char>(*name)) * kPrime;
  fingerprint_ = (fingerprint_ ^ std::bit_cast<uint64_t>(cost.flops + 1.0)) * kPrime;
  flops_ += cost.flops;
}

void Exec::ResetCounters() {
  fingerprint_ = 0;
  flops_ = 0.0;
}

Slab::Slab(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    throw Error(ExitCode::kNoMemory, fmt::format("the system refused {} of memory", FormatBytes(bytes)));
  }
  base_ = static_cast<std::byte*>(base);
}

Slab::~Slab() {
  if (base_) ::munmap(base_, bytes_);
}

}  // namespace rung
