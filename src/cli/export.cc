#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/say.h"
#include "cli/verb.h"
#include "convert/export_gguf.h"

namespace rung::cli {
namespace {

struct ExportCommand {
  std::string model, adapter, out;
  bool gguf = false;
};

void RunExport(const ExportCommand& command) {
  const convert::ExportResult result = convert::ExportGguf({command.model, command.adapter, command.out});
  Say("{} pairs: {} in {}\n", result.pairs, FormatBytes(result.bytes), command.out);
}

}  // namespace

Action AddExport(CLI::App& app) {
  auto command = std::make_shared<ExportCommand>();
  app.add_flag("--gguf", command->gguf, "as llama.cpp reads it (--lora FILE)")->required();
  app.add_option("--model", command->model,
                 "the model it was trained for: a .gguf file or a Hugging Face folder")
      ->required();
  app.add_option("--adapter", command->adapter, "folder of low-rank pairs, rung's or PEFT's")->required();
  app.add_option("--out", command->out, "the file to make; one that is there is not replaced")->required();
  return [command] { RunExport(*command); };
}

}  // namespace rung::cli
