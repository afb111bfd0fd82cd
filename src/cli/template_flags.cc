#include "cli/template_flags.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/files.h"
#include "base/result.h"
#include "base/text.h"
#include "text/chat_template.h"

namespace rung::cli {
namespace {

constexpr uint64_t kTemplateLimit = uint64_t{1} << 20;  // what the interpreter takes

// A mistake in it is said of where it comes from, not of the model that it is for.
std::string Checked(std::string text, const std::string& name) {
  text::ChatTemplate::Parse(text, name).OrThrow();
  return text;
}

}  // namespace

void AddTemplateFlags(CLI::App& app, TemplateFlags* flags, const std::string& raw_help) {
  app.add_flag("--raw", flags->raw, raw_help);
  app.add_option("--chat-template", flags->chat_template,
                 "a file with a chat template in Jinja, or its text, in place of the model's own")
      ->check([](const std::string& given) -> std::string {
        return given.empty() ? "empty: give a file or a template, or --raw for none" : "";
      });
}

std::string ReadTemplate(const TemplateFlags& flags) {
  const std::string& given = flags.chat_template;
  if (given.empty()) return "";
  if (flags.raw)
    throw Error(ExitCode::kUsage, "--raw uses no chat template: leave it or --chat-template out");
  std::error_code error;
  if (std::filesystem::is_regular_file(given, error)) {
    std::string text = ReadTextFile(given, kTemplateLimit).OrThrow();
    if (text.find_first_not_of(" \t\r\n") == text.npos)
      throw Error(ExitCode::kBadInput, fmt::format("{}: empty: a chat template is needed", given));
    return Checked(std::move(text), given);
  }
  if (given.find("{{") != given.npos || given.find("{%") != given.npos)
    return Checked(given, "--chat-template");
  throw Error(
      ExitCode::kUsage,
      fmt::format("--chat-template {}: neither a file nor a template, which has {{{{ }}}} or {{% %}} in it",
                  Printable(given.substr(0, 80))));
}

}  // namespace rung::cli
