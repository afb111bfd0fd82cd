#include "cli/verify.h"

#include <fmt/format.h>

#include <algorithm>
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

std::string VerificationText(const Verification& found) {
  std::string text;
  for (const Check& check : found.checks) {
    text += fmt::format("{:<8} {:<14} {}\n", NameOf(check.finding), check.what, Printable(check.message));
  }
  return text;
}

nlohmann::ordered_json VerificationJson(const Verification& found, const std::string& model) {
  nlohmann::ordered_json json = {{"model", model},
                                 {"problems", found.Count(Finding::kProblem)},
                                 {"warnings", found.Count(Finding::kWarning)},
                                 {"checks", nlohmann::ordered_json::array()},
                                 {"sha256", found.sha256},
                                 {"perplexity", nullptr},
                                 {"bits_per_byte", nullptr}};
  for (const Check& check : found.checks) {
    json["checks"].push_back(
        {{"check", check.what}, {"result", NameOf(check.finding)}, {"message", check.message}});
  }
  if (found.perplexity) json["perplexity"] = *found.perplexity;
  if (found.bits_per_byte) json["bits_per_byte"] = *found.bits_per_byte;
  return json;
}

void RunVerify(const VerifyCommand& command) {
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  VerifyOptions options;
  options.model = command.model;
  options.sha256 = command.sha256;
  options.checksums = !command.no_checksums;
  options.perplexity = !command.no_perplexity;
  options.compute = Resolve(command.compute);
  const Verification found = Verify(options, [&](const char* what, size_t done, size_t total) {
    progress.Count(what, done, total);
    return !InterruptFlag().load();
  });
  progress.EndLine();
  if (command.json) {
    PrintJson(VerificationJson(found, command.model));
  } else {
    fmt::print("{}", VerificationText(found));
  }
  if (const int64_t problems = found.Count(Finding::kProblem); problems > 0) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {} problem{}: the model should not be used",
                                                 command.model, problems, problems == 1 ? "" : "s"));
  }
}

}  // namespace

const char* NameOf(Finding finding) {
  switch (finding) {
    case Finding::kOk:
      return "ok";
    case Finding::kWarning:
      return "warning";
    case Finding::kProblem:
      return "problem";
    case Finding::kSkipped:
      return "skipped";
  }
  return "";
}

int64_t Verification::Count(Finding finding) const {
  return std::count_if(checks.begin(), checks.end(), [&](const Check& c) { return c.finding == finding; });
}

bool Verification::HasProblem(const char* what) const {
  return std::any_of(checks.begin(), checks.end(),
                     [&](const Check& c) { return c.what == what && c.finding == Finding::kProblem; });
}

void Verification::AddUnread(const char* what, const std::string& message) {
  const bool told = std::any_of(damaged.begin(), damaged.end(), [&](const std::string& file) {
    return message.find(file) != std::string::npos;
  });
  if (told) return Add(what, Finding::kSkipped, "the file has the problem above: " + message);
  Add(what, Finding::kProblem, message);
}

namespace {

// Why the model is not run; nullptr: it is.
const char* WhyNotRun(const VerifyOptions& options, const Verification& found, bool weights, bool tokenizer) {
  if (!options.perplexity) return "not asked for";
  if (!weights) return "the weights cannot be used";
  if (tokenizer) return nullptr;
  return found.HasProblem("tokenizer") ? "the tokenizer cannot be used"
         : found.vocabulary            ? "no tokenizer"
                                       : "the tokenizer was not checked";
}

}  // namespace

Verification Verify(const VerifyOptions& options, const VerifyProgress& on_progress) {
  Verification found;
  VerifyFiles(options, on_progress, &found);
  const bool header = VerifyTensors(options.model, &found);
  bool weights = false;
  if (header) {
    weights = VerifyWeights(options.model, on_progress, &found);
  } else {
    found.Add("weights", Finding::kSkipped, "the tensors cannot be used");
  }
  std::optional<text::Tokenizer> tokenizer;
  if (const Result<model::Config> config = model::ReadConfig(options.model);
      config.ok() && found.vocabulary) {
    tokenizer = VerifyTokenizer(options.model, config.value().V, &found);
  } else {
    found.Add("tokenizer", Finding::kSkipped, "the model's vocabulary is not known");
  }
  if (const char* why = WhyNotRun(options, found, weights, tokenizer.has_value())) {
    found.Add("perplexity", Finding::kSkipped, why);
  } else {
    if (on_progress && !on_progress("perplexity", 0, 1)) throw Error(ExitCode::kInterrupted, "interrupted");
    VerifyPerplexity(options, *tokenizer, &found);
  }
  return found;
}

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
