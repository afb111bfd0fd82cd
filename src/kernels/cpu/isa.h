// Instruction sets of x86-64, as levels: each has everything below it.
//
// A kernel family X (panel, attention, rows, ...) is a struct of function pointers `XKernels`
// filled once per level. The code of a level stands in `x_<level>.cc`, compiled with that level's flags (see
// CMakeLists.txt) and reached through `XFor(isa)`, so nothing newer than the machine is ever executed.
// Such a file keeps its functions in an anonymous namespace and calls no inline function of a standard
// header: the linker may pick a copy compiled for a newer machine.
#pragma once

#include <optional>
#include <string_view>

namespace rung::cpu {

enum class Isa {
  kBaseline,    // x86-64 (SSE2), or any other machine
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and BF16 dot products, VBMI
};
inline constexpr int kIsaCount = 4;

const char* NameOf(Isa isa);  // "baseline", "avx2", "avx512", "avx512_bf16"
std::optional<Isa> ParseIsa(std::string_view name);
Isa BestIsa();  // of this machine, as the processor and the kernel report it
// Whether code of this level may multiply in 8 bits here (kernels/cpu/int8.h): kAvx512Bf16, and VNNI in this
// machine. Not a level of its own: every processor with BF16 dot products so far has VNNI.
bool HasInt8(Isa isa = BestIsa());

// What every kernel driver gets: which code, and on how many threads.
struct Context {
  Isa isa = Isa::kBaseline;
  int threads = 1;
  // Frozen products of many rows in 8 bits where the machine has the instructions (kernels/cpu/int8.h): an
  // approximation, which the user asks for.
  bool int8 = false;
};

}  // namespace rung::cpu
