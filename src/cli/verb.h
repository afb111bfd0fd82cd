// What every verb is made of. A verb adds its options to a CLI11 subcommand and returns what to do once they
// are parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <span>
#include <string>

#include "train/options.h"

namespace rung::cli {

using Action = std::function<void()>;  // throws Error

// A row of a table of verbs: its name, help, an example for the help, and what adds its options.
struct Verb {
  const char* name;
  const char* what;
  const char* example;
  Action (*add)(CLI::App&);
};
// The subcommand of a row, without its options.
CLI::App* AddVerb(CLI::App& app, const Verb& verb);
// One of these verbs is required below `app`, as in `rung bench step`; the action is that of the verb given.
Action AddVerbs(CLI::App& app, std::span<const Verb> table);

Action AddTrain(CLI::App& app);
Action AddEval(CLI::App& app);
Action AddGenerate(CLI::App& app);
Action AddPlan(CLI::App& app);
Action AddInspect(CLI::App& app);
Action AddVerify(CLI::App& app);
Action AddQuantize(CLI::App& app);
Action AddMerge(CLI::App& app);
Action AddExport(CLI::App& app);
Action AddData(CLI::App& app);
Action AddReport(CLI::App& app);
Action AddBench(CLI::App& app);
Action AddConfig(CLI::App& app);
Action AddVersion(CLI::App& app);

// --threads, --compute, --isa: shared by the verbs that compute. The strings live as long as the parse.
struct ComputeFlags {
  int threads = 0;  // 0: all that this process may run on
  std::string compute = "auto", isa = "auto";
};
void AddComputeFlags(CLI::App& app, ComputeFlags* flags);
void AddThreadsFlag(CLI::App& app, int* threads);            // the first of them alone
void AddProgressFlag(CLI::App& app, std::string* progress);  // for ParseProgress
train::ComputeOptions Resolve(const ComputeFlags& flags);
// "f32", "bf16" or "int8".
const char* NameOfArithmetic(const train::ComputeOptions& compute);

// --model, --quantize, --quantize-embeddings, --keep.
struct ModelFlags {
  std::string model, quantize = "nf4";
  // A format, "true" (that of --quantize) or empty (none).
  std::string quantize_embeddings;
  std::vector<std::string> keep;  // PATTERN=FORMAT
  bool quantize_given = false;
};
void AddModelFlags(CLI::App& app, ModelFlags* flags);
void AddRecipeFlags(CLI::App& app, ModelFlags* flags);  // those without --model
void AddEmbeddingsFlag(CLI::App& app, std::string* format, const std::string& what);
void AddKeepFlag(CLI::App& app, std::vector<std::string>* patterns, const std::string& what);
// What --quantize-embeddings says: empty or "false" is `otherwise`. Throws Error (kUsage).
model::Quantize EmbeddingsOf(const std::string& format, model::Quantize matrices, model::Quantize otherwise);
// Throws Error (kUsage) for what would change nothing of the model (model::CheckRecipe).
model::Recipe RecipeOf(const ModelFlags& flags);
model::BackboneOptions Resolve(const ModelFlags& flags, const train::ComputeOptions& compute);

// The command that began this process, quoted for a shell. For messages that say how to go on.
void KeepCommandLine(std::span<const char* const> arguments);
const std::string& CommandLine();

// Set by SIGINT, SIGTERM and SIGHUP. The second signal ends the process at once.
const std::atomic<bool>& InterruptFlag();
void CatchSignals();
// Who reads the process's output may go away: that is no reason to lose a run.
void OutliveReaders();
// 128 + the signal that was caught.
int InterruptExitCode();

}  // namespace rung::cli
