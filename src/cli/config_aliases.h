// What other programs (transformers, TRL, axolotl, LLaMA-Factory, mlx-lm, LitGPT, torchtune, PEFT) call our
// keys and values.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace rung::cli {

struct Alias {
  std::string_view name;
  std::string_view key;   // ours; empty: there is none
  std::string_view hint;  // what to write instead, where there is no key or the value is not understood
  bool inverted = false;  // true there is false here
  // In a file our default, by this name, is as if it were not given: a packed model takes no --quantize, but
  // may be said to be one of 4 bits.
  bool tacit = false;
};
// A value of the key or alias `name` that is written differently here.
struct ValueAlias {
  std::string_view name, value;
  std::string_view ours;  // empty: it is so anyway, nothing need be set
  std::string_view hint;  // not empty: the value means something else there; refused with this
};

std::span<const Alias> Aliases();
std::span<const ValueAlias> ValueAliases();
const Alias* FindAlias(std::string_view name);
// Whether the alias has the values of its own that ValueAliases lists, and no others.
bool IsClosed(const Alias& alias);
// nullptr: the value stands for itself.
const ValueAlias* FindValueAlias(std::string_view name, std::string_view value);

}  // namespace rung::cli
