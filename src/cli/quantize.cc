#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/load_model.h"
#include "cli/progress.h"
#include "cli/say.h"
#include "cli/verb.h"
#include "convert/quantize_folder.h"
#include "convert/quantize_gguf.h"
#include "convert/random_model.h"

namespace rung::cli {
namespace {

using model::Quantize;

struct QuantizeCommand {
  std::string model, random, out, format, progress = "auto";
  std::string embeddings;  // a format, "true" (that of the linear layers) or empty (not given)
  std::vector<std::string> keep;
  bool single = false;
  uint64_t seed = 0;
};

bool IsGgufName(const std::string& out) { return Path(out).extension() == ".gguf"; }

Quantize MatricesOf(const QuantizeCommand& command) {
  const bool gguf = IsGgufName(command.out);
  if (command.single && !command.format.empty() && command.format != "nf4" &&
      command.format != "nf4-single") {
    throw Error(ExitCode::kUsage,
                fmt::format("--single: is of nf4, --format {} has no such choice", command.format));
  }
  if (command.single) return Quantize::kNf4Single;
  if (!command.format.empty()) return model::ParseQuantize(command.format, "--format").OrThrow();
  return gguf ? Quantize::kQ8_0 : Quantize::kNf4;
}

model::Recipe RecipeOf(const QuantizeCommand& command) {
  model::Recipe recipe;
  recipe.matrices = MatricesOf(command);
  const bool is_float = recipe.matrices == Quantize::kBf16 || recipe.matrices == Quantize::kF16 ||
                        recipe.matrices == Quantize::kF32;
  // A floating-point format is of the whole model.
  recipe.embeddings =
      EmbeddingsOf(command.embeddings, recipe.matrices, is_float ? recipe.matrices : Quantize::kNone);
  for (const std::string& text : command.keep) {
    recipe.patterns.push_back(model::ParsePattern(text, "--keep").OrThrow());
  }
  return recipe;
}

// Of a random model. Throws Error (kUsage) for what such a one cannot have.
model::Recipe RandomRecipe(const QuantizeCommand& command) {
  const auto refuse = [](const std::string& what) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--random: weights are made in nf4 or nf4-single, in a folder; leave {} out", what));
  };
  if (IsGgufName(command.out)) refuse(".gguf");
  if (!command.keep.empty()) refuse("--keep");
  const model::Recipe recipe = RecipeOf(command);
  if (recipe.matrices != Quantize::kNf4 && recipe.matrices != Quantize::kNf4Single) {
    refuse("--format " + command.format);
  }
  if (recipe.embeddings != Quantize::kNone && recipe.embeddings != recipe.matrices) {
    refuse("--quantize-embeddings " + command.embeddings);
  }
  return recipe;
}

// What was done, in one line.
std::string Summary(const convert::QuantizeResult& result, const model::Recipe& recipe,
                    const std::string& out) {
  const std::string after = FormatBytes(result.bytes_after);
  if (result.linears == 0) {
    return fmt::format("no matrix needed another format: {} of weights as they were in {}", after, out);
  }
  const bool one = recipe.patterns.empty() && recipe.matrices != Quantize::kNone &&
                   (recipe.embeddings == Quantize::kNone || recipe.embeddings == recipe.matrices);
  return fmt::format("{} {} {}: {} became {} in {}", result.linears,
                     result.linears == 1 ? "matrix" : "matrices",
                     one ? fmt::format("to {}", model::NameOf(recipe.matrices)) : "converted",
                     FormatBytes(result.bytes_before), after, out);
}

void RunQuantize(const QuantizeCommand& command) {
  if (command.model.empty() == command.random.empty()) {
    throw Error(ExitCode::kUsage, "rung quantize: one of --model MODEL and --random SHAPE is needed");
  }
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  const auto report = [&](size_t done, size_t total) {
    progress.Count(command.random.empty() ? "converting" : "writing", done, total);
    return !InterruptFlag().load();
  };
  const auto note = [&](const std::string& text) { progress.Note(text); };
  if (!command.random.empty()) {
    const model::Recipe recipe = RandomRecipe(command);
    const convert::QuantizeResult result =
        convert::QuantizeRandom({command.random, command.out, recipe.matrices == Quantize::kNf4,
                                 recipe.embeddings != Quantize::kNone, command.seed},
                                report);
    progress.EndLine();
    Say("{} random matrices in {}: {} in {}; 16-bit weights would take {}\n", result.linears,
        model::NameOf(recipe.matrices), FormatBytes(result.bytes_after), command.out,
        FormatBytes(result.bytes_before));
    return;
  }
  WarnOfConfig(command.model);
  const convert::QuantizeOptions options{command.model, command.out, RecipeOf(command)};
  const convert::QuantizeResult result = IsGgufName(command.out)
                                             ? convert::QuantizeGguf(options, report, note)
                                             : convert::QuantizeFolder(options, report, note);
  progress.EndLine();
  Say("{}\n", Summary(result, options.recipe, command.out));
}

}  // namespace

Action AddQuantize(CLI::App& app) {
  auto command = std::make_shared<QuantizeCommand>();
  CLI::Option* model = app.add_option("--model", command->model,
                                      "a Hugging Face folder or a .gguf file, in any format that is read");
  CLI::Option* random =
      app.add_option(
             "--random", command->random,
             "instead of a model: random weights of this shape, a name like qwen2.5-7b or a config.json")
          ->excludes(model);
  app.add_option("--out", command->out, "what to make: a GGUF file when it ends in .gguf, else a folder")
      ->required();
  app.add_option(
      "--format", command->format,
      "of the linear layers: nf4, nf4-single (folders); q8_0, q4_0, q4_1, q5_0, q5_1, mxfp4 (GGUF); "
      "bf16, f16, f32; none: as they are. Default: nf4 for a folder, q8_0 for a GGUF file");
  app.add_flag("--single", command->single, "nf4-single: scales stay f32, 4.5 instead of 4.13 bits a weight");
  AddEmbeddingsFlag(app, &command->embeddings,
                    "the embedding and the head in this format; without a name in that of the linear layers. "
                    "Other programs do not read NF4 embeddings");
  AddKeepFlag(app, &command->keep,
              "another format for the matrices whose name matches, as in \"blk.0.*=bf16\" or "
              "\"*.down_proj=q8_0\"; may be given several times");
  app.add_option("--seed", command->seed, "of random weights")->capture_default_str()->needs(random);
  AddProgressFlag(app, &command->progress);
  return [command] { RunQuantize(*command); };
}

}  // namespace rung::cli
