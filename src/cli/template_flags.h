// --raw and --chat-template: which chat template a verb uses.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace rung::cli {

struct TemplateFlags {
  bool raw = false;           // none
  std::string chat_template;  // a file or a text, in place of the model's own; empty: that
};
// --raw and --chat-template. `raw_help`: of the first.
void AddTemplateFlags(CLI::App& app, TemplateFlags* flags, const std::string& raw_help = "no chat template");
// The text that --chat-template says: of the file of that name, or itself; "" when it is not given. It is a
// template that can be parsed. Throws Error.
std::string ReadTemplate(const TemplateFlags& flags);

}  // namespace rung::cli
