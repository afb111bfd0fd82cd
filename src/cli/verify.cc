#include "verify/verify.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

struct VerifyCommand {
  std::string model, sha256, progress = "auto";
  bool json = false, no_checksums = false, no_perplexity = false;
  ComputeFlags compute;
};

std::string VerificationText(const verify::Verification& found) {
  std::string text;
  for (const verify::Check& check : found.checks) {
    text +=
        fmt::format("{:<8} {:<14} {}\n", verify::NameOf(check.finding), check.what, Printable(check.message));
  }
  return text;
}

nlohmann::ordered_json VerificationJson(const verify::Verification& found, const std::string& model) {
  nlohmann::ordered_json json = {{"model", model},
                                 {"problems", found.Count(verify::Finding::kProblem)},
                                 {"warnings", found.Count(verify::Finding::kWarning)},
                                 {"checks", nlohmann::ordered_json::array()},
                                 {"sha256", found.sha256},
                                 {"perplexity", nullptr},
                                 {"bits_per_byte", nullptr}};
  for (const verify::Check& check : found.checks) {
    json["checks"].push_back(
        {{"check", check.what}, {"result", verify::NameOf(check.finding)}, {"message", check.message}});
  }
  if (found.perplexity) json["perplexity"] = *found.perplexity;
  if (found.bits_per_byte) json["bits_per_byte"] = *found.bits_per_byte;
  return json;
}

void RunVerify(const VerifyCommand& command) {
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  verify::VerifyOptions options;
  options.model = command.model;
  options.sha256 = command.sha256;
  options.checksums = !command.no_checksums;
  options.perplexity = !command.no_perplexity;
  options.compute = Resolve(command.compute);
  const verify::Verification found =
      verify::Verify(options, [&](const char* what, size_t done, size_t total) {
        progress.Count(what, done, total);
        return !InterruptFlag().load();
      });
  progress.EndLine();
  if (command.json) {
    PrintJson(VerificationJson(found, command.model));
  } else {
    fmt::print("{}", VerificationText(found));
  }
  if (const int64_t problems = found.Count(verify::Finding::kProblem); problems > 0) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {} problem{}: the model should not be used",
                                                 command.model, problems, problems == 1 ? "" : "s"));
  }
}

}  // namespace

Action AddVerify(CLI::App& app) {
  auto command = std::make_shared<VerifyCommand>();
  app.add_option("--model", command->model, "a .gguf file or a Hugging Face folder")->required();
  CLI::Option* sha256 = app.add_option(
      "--sha256", command->sha256,
      "what the file of weights should have; SHA256SUMS and FILE.sha256 beside it are looked at anyway");
  app.add_flag("--no-checksums", command->no_checksums, "leave the SHA-256 of the files out")
      ->excludes(sha256);
  app.add_flag("--no-perplexity", command->no_perplexity, "leave the run of the model out");
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->compute);
  AddProgressFlag(app, &command->progress);
  return [command] { RunVerify(*command); };
}

}  // namespace rung::cli
