// The parts of a verification, in their order. Each adds its findings.
#pragma once

#include <optional>

#include "text/tokenizer.h"
#include "verify/verify.h"

namespace rung::verify {

void VerifyFiles(const VerifyOptions& options, const VerifyProgress& on_progress, Verification* found);
// False: the header is so wrong that nothing can be read behind it.
bool VerifyTensors(const Path& model, Verification* found);
// Every number of every tensor. False: some are no numbers, a matrix is all zero, or a tensor cannot be read.
bool VerifyWeights(const Path& model, const VerifyProgress& on_progress, Verification* found);
// nullopt: there is none, or it has a problem.
std::optional<text::Tokenizer> VerifyTokenizer(const Path& model, int64_t V, Verification* found);
void VerifyPerplexity(const VerifyOptions& options, const text::Tokenizer& tokenizer, Verification* found);

}  // namespace rung::verify
