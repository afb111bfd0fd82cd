#include "verify/verify.h"

#include <algorithm>

#include "base/error.h"
#include "model/config.h"
#include "verify/parts.h"

namespace rung::verify {

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

}  // namespace rung::verify
