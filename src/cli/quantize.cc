#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/progress.h"
#include "cli/quantize_folder.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

struct QuantizeCommand {
  std::string model, out, progress = "auto";
  bool single = false, embeddings = false;
};

void RunQuantize(const QuantizeCommand& command) {
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  const QuantizeResult result = QuantizeFolder(
      {command.model, command.out, !command.single, command.embeddings}, [&](size_t done, size_t total) {
        progress.Count("quantising", done, total);
        return !InterruptFlag().load();
      });
  progress.EndLine();
  fmt::print(stderr, "{} matrices to {}: {} became {} in {}\n", result.linears,
             command.single ? "nf4-single" : "nf4", FormatBytes(result.bytes_before),
             FormatBytes(result.bytes_after), command.out);
}

}  // namespace

Action AddQuantize(CLI::App& app) {
  auto command = std::make_shared<QuantizeCommand>();
  app.add_option("--model", command->model, "a 16- or 32-bit Hugging Face folder")->required();
  app.add_option("--out", command->out, "the folder to make")->required();
  app.add_flag("--single", command->single, "scales stay f32: 4.5 instead of 4.13 bits a weight");
  app.add_flag("--quantize-embeddings", command->embeddings,
               "the embedding and the head too; other programs do not read that");
  app.add_option("--progress", command->progress, "auto, none, plain, bar")
      ->check(CLI::IsMember({"auto", "none", "plain", "bar"}));
  return [command] { RunQuantize(*command); };
}

}  // namespace rung::cli
