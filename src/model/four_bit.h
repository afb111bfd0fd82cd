// The tensors that bitsandbytes keeps of a packed 4-bit matrix: docs/formats/nf4.md.
#pragma once

#include <string>
#include <string_view>

#include "format/format.h"
#include "io/safetensors.h"

namespace rung::model {

// state: the suffix of the JSON text that describes it, which matrices of this kind alone have.
struct FourBit {
  format::Format format;
  const char* name;
  const char* state;
};
inline constexpr FourBit kFourBits[] = {
    {format::Format::kNf4, "nf4", ".quant_state.bitsandbytes__nf4"},
    {format::Format::kFp4, "fp4", ".quant_state.bitsandbytes__fp4"},
};
inline constexpr std::string_view kNf4State = kFourBits[0].state;

// Behind the name of the codes: all that is kept beside them.
inline constexpr std::string_view kFourBitParts[] = {
    ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", kFourBits[0].state, kFourBits[1].state};

// What `name` is the codes of; nullptr: of no such matrix.
inline const FourBit* FourBitOf(const io::Safetensors& tensors, const std::string& name) {
  for (const FourBit& kind : kFourBits) {
    if (tensors.Find(name + kind.state)) return &kind;
  }
  return nullptr;
}

}  // namespace rung::model
