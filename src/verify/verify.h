// The first thing to run on a suspicious download: is this model what it says it is (docs/guide/verify.md)?
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "train/options.h"

namespace rung::verify {

enum class Finding : uint8_t { kOk, kWarning, kProblem, kSkipped };
const char* NameOf(Finding finding);  // "ok", "warning", "problem", "skipped"

struct Check {
  std::string what;  // "files", "config", "tensors", "weights", "tokenizer", "chat template", "perplexity"
  Finding finding = Finding::kOk;
  std::string message;
};

struct Verification {
  std::vector<Check> checks;
  std::map<std::string, std::string> sha256;  // by file name
  std::vector<std::string> damaged;           // names of files with a problem of their own
  bool vocabulary = true;  // false: the embedding or the head is not what the config asks for
  std::optional<double> perplexity, bits_per_byte;

  void Add(const char* what, Finding finding, std::string message) {
    checks.push_back({what, finding, std::move(message)});
  }
  int64_t Count(Finding finding) const;
  bool HasProblem(const char* what) const;
  // A problem; but skipped where its message names a file whose damage is a problem already.
  void AddUnread(const char* what, const std::string& message);
};

struct VerifyOptions {
  Path model;
  std::string sha256;  // of the one file of weights; empty: only what stands beside it is compared
  bool checksums = true, perplexity = true;
  train::ComputeOptions compute;
};

// What is done, and how much of it: returns false to stop.
using VerifyProgress = std::function<bool(const char* what, size_t done, size_t total)>;

// Never throws for a damaged model: all that is wrong with it is a finding. What is wrong is a problem once:
// checks that need what is damaged are skipped, and say so. Throws Error for a `sha256` that is none or is of
// no single file (kUsage), and when it is stopped.
Verification Verify(const VerifyOptions& options, const VerifyProgress& on_progress);

// What a model of so many parameters, trained on English, should reach on the shipped paragraph: rough
// (docs/guide/verify.md). More than `high` is a warning.
struct PerplexityRange {
  double low, high;
};
PerplexityRange ExpectedPerplexity(int64_t parameters);

}  // namespace rung::verify
