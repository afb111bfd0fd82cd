#include "convert/merge.h"

#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/load_model.h"
#include "cli/progress.h"
#include "cli/say.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

struct MergeCommand {
  std::string model, adapter, out, dtype = "auto", progress = "auto";
  int threads = 0;
};

void RunMerge(const MergeCommand& command) {
  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  ComputeFlags threads;
  threads.threads = command.threads;
  convert::MergeOptions options;
  options.model = command.model;
  options.adapter = command.adapter;
  options.out = command.out;
  options.dtype = command.dtype;
  options.context = Resolve(threads).context;
  const auto report = [&](size_t done, size_t total) {
    progress.Count("merging", done, total);
    return !InterruptFlag().load();
  };
  WarnOfConfig(options.model);
  const convert::MergeResult result =
      convert::MergeModel(options, report, [&](const std::string& note) { progress.Note(note); });
  progress.EndLine();
  Say("{} matrices merged: {} of {} in {}\n", result.merged, FormatBytes(result.bytes), result.dtype,
      command.out);
}

}  // namespace

Action AddMerge(CLI::App& app) {
  auto command = std::make_shared<MergeCommand>();
  app.add_option(
         "--model", command->model,
         "a Hugging Face folder or a .gguf file; the 16-bit original is best. Quantised weights are "
         "decoded: the result is the model that an adapter trained beside them (train --quantize nf4) "
         "was trained with, which the original with this adapter is not")
      ->required();
  app.add_option("--adapter", command->adapter, "folder of low-rank pairs, rung's or PEFT's")->required();
  app.add_option("--out", command->out, "the Hugging Face folder to make")->required();
  app.add_option(
         "--dtype", command->dtype,
         "of the merged weights: bfloat16 or float16; auto: as config.json or most weights, else bfloat16")
      ->check(CLI::IsMember({"auto", "bfloat16", "float16"}));
  AddThreadsFlag(app, &command->threads);
  AddProgressFlag(app, &command->progress);
  return [command] { RunMerge(*command); };
}

}  // namespace rung::cli
