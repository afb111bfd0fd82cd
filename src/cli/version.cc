#include "cli/version.h"

#include <fmt/format.h>
#include <omp.h>

#include <memory>

#include "cli/print.h"
#include "cli/verb.h"
#include "kernels/cpu/library.h"

// RUNG_VERSION, RUNG_COMMIT, RUNG_BUILD_TYPE and RUNG_*_VERSION of the libraries come from CMakeLists.txt.

namespace rung::cli {
namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "g++ " __VERSION__;
#endif

}  // namespace

nlohmann::ordered_json VersionJson() {
  const cpu::Isa best = cpu::BestIsa();
  nlohmann::ordered_json supported = nlohmann::ordered_json::array();
  for (int isa = 0; isa < cpu::kIsaCount; ++isa) supported.push_back(cpu::NameOf(static_cast<cpu::Isa>(isa)));
  nlohmann::ordered_json compute = nlohmann::ordered_json::array({"f32"});
  if (best == cpu::Isa::kAvx512Bf16) compute.push_back("bf16");
  return {{"version", RUNG_VERSION},
          {"commit", *RUNG_COMMIT ? nlohmann::ordered_json(RUNG_COMMIT) : nullptr},
          {"build", RUNG_BUILD_TYPE},
          {"compiler", kCompiler},
          {"isa", cpu::NameOf(best)},
          {"isa_supported", supported},
          {"compute", compute},
          {"threads", omp_get_num_procs()},
          {"libraries",
           {{"oneDNN", cpu::OneDnnVersion()},
            {"fmt", RUNG_FMT_VERSION},
            {"yaml-cpp", RUNG_YAML_VERSION},
            {"PCRE2", RUNG_PCRE2_VERSION},
            {"utf8proc", RUNG_UTF8PROC_VERSION},
            {"nlohmann-json", RUNG_JSON_VERSION},
            {"CLI11", CLI11_VERSION}}}};
}

namespace {

std::string Joined(const nlohmann::ordered_json& list) {
  std::string text;
  for (const nlohmann::ordered_json& item : list)
    text += (text.empty() ? "" : ", ") + item.get<std::string>();
  return text;
}

void RunVersion(bool json) {
  const nlohmann::ordered_json v = VersionJson();
  if (json) {
    PrintJson(v);
    return;
  }
  const auto text = [&](const char* key) { return v[key].get<std::string>(); };
  fmt::print("rung {}{}\n", text("version"),
             v["commit"].is_null() ? "" : fmt::format(" ({})", text("commit")));
  fmt::print("build            {}, {}\n", text("build"), text("compiler"));
  fmt::print("instruction set  {} (known: {})\n", text("isa"), Joined(v["isa_supported"]));
  fmt::print("compute types    {}\n", Joined(v["compute"]));
  fmt::print("threads          {}\n", v["threads"].get<int>());
  for (const auto& [name, version] : v["libraries"].items())
    fmt::print("{:<16} {}\n", name, version.get<std::string>());
}

}  // namespace

Action AddVersion(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  app.add_flag("--json", *json, "print one JSON object");
  return [json] { RunVersion(*json); };
}

}  // namespace rung::cli
