#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/progress.h"
#include "cli/quantize_folder.h"
#include "cli/quantize_random.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

struct QuantizeCommand {
  std::string model, random, out, progress = "auto";
  bool single = false, embeddings = false;
  uint64_t seed = 0;
};

void RunQuantize(const QuantizeCommand& command) {
  if (command.model.empty() == command.random.empty()) {
    throw Error(ExitCode::kUsage, "rung quantize: one of --model FOLDER and --random SHAPE is needed");
  }
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  const bool nested = !command.single;
  const auto report = [&](size_t done, size_t total) {
    progress.Count(command.random.empty() ? "quantising" : "writing", done, total);
    return !InterruptFlag().load();
  };
  const QuantizeResult result =
      command.random.empty()
          ? QuantizeFolder({command.model, command.out, nested, command.embeddings}, report)
          : QuantizeRandom({command.random, command.out, nested, command.embeddings, command.seed}, report);
  progress.EndLine();
  const char* format = command.single ? "nf4-single" : "nf4";
  if (command.random.empty()) {
    fmt::print(stderr, "{} matrices to {}: {} became {} in {}\n", result.linears, format,
               FormatBytes(result.bytes_before), FormatBytes(result.bytes_after), command.out);
  } else {
    fmt::print(stderr, "{} random matrices in {}: {} in {}; 16-bit weights would take {}\n", result.linears,
               format, FormatBytes(result.bytes_after), command.out, FormatBytes(result.bytes_before));
  }
}

}  // namespace

Action AddQuantize(CLI::App& app) {
  auto command = std::make_shared<QuantizeCommand>();
  CLI::Option* model = app.add_option("--model", command->model, "a 16- or 32-bit Hugging Face folder");
  app.add_option("--random", command->random,
                 "instead of a model: random weights of this shape, a name like qwen2.5-7b or a config.json")
      ->excludes(model);
  app.add_option("--out", command->out, "the folder to make")->required();
  app.add_flag("--single", command->single, "scales stay f32: 4.5 instead of 4.13 bits a weight");
  app.add_flag("--quantize-embeddings", command->embeddings,
               "the embedding and the head too; other programs do not read that");
  app.add_option("--seed", command->seed, "of random weights")->capture_default_str();
  app.add_option("--progress", command->progress, "auto, none, plain, bar")
      ->check(CLI::IsMember({"auto", "none", "plain", "bar"}));
  return [command] { RunQuantize(*command); };
}

}  // namespace rung::cli
