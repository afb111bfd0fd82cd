#include "infer/generate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/load_model.h"
#include "cli/print.h"
#include "cli/say.h"

namespace rung::cli {
namespace {

constexpr uint64_t kPromptLimit = uint64_t{64} << 20;

struct GenerateCommand {
  ComputeFlags compute;
  ModelFlags model;
  std::string adapter, prompt, prompt_file, system;
  infer::GenerateOptions options;
  const CLI::Option* has_prompt = nullptr;  // an empty prompt is one too
  TemplateFlags templates;
  bool json = false;
};

std::string PromptText(const GenerateCommand& command) {
  if (command.prompt_file.empty() && !command.has_prompt->count()) {
    throw Error(ExitCode::kUsage, "rung generate: --prompt or --prompt-file is missing");
  }
  if (command.prompt_file.empty()) return command.prompt;
  return ReadTextFile(command.prompt_file, kPromptLimit).OrThrow();
}

std::vector<int32_t> PromptIds(const GenerateCommand& command, const LoadedModel& loaded,
                               const std::string& prompt) {
  const data::Encoder encoder(loaded.text().vocabulary(), {});
  if (!loaded.uses_template()) {
    if (!command.system.empty()) {
      throw Error(ExitCode::kUsage, "--system: needs a chat template, and none is used here");
    }
    std::vector<int32_t> ids = encoder.PlainPrompt(prompt);
    if (ids.empty() && loaded.text().tokenizer.bos() >= 0) ids.push_back(loaded.text().tokenizer.bos());
    if (ids.empty())
      throw Error(ExitCode::kUsage, "--prompt: empty, and the model has no token to begin with");
    return ids;
  }
  std::vector<text::Message> messages;
  if (!command.system.empty()) messages.push_back({"system", command.system});
  messages.push_back({"user", prompt});
  return encoder.ChatPrompt(messages).OrThrow();
}

// Positions the run needs; refuses what the model was not made for.
int64_t Positions(const LoadedModel& loaded, int64_t prompt, int64_t max_tokens) {
  if (prompt >= loaded.context()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("the prompt has {} tokens, the model takes {} with the answer: shorten it",
                            prompt, loaded.context()));
  }
  return std::min(loaded.context(), prompt + max_tokens);
}

nlohmann::ordered_json ToJson(const infer::Generation& g) {
  return {{"text", g.text},
          {"ids", g.ids},
          {"finish_reason", g.finish_reason},
          {"prompt_tokens", g.prompt_tokens},
          {"tokens_per_second", g.tokens_per_second()},
          {"prefill_tokens_per_second", g.prefill_tokens_per_second()}};
}

void RunGenerate(const GenerateCommand& command) {
  const train::ComputeOptions compute = Resolve(command.compute);
  const std::string text = PromptText(command);
  LoadedModel loaded = LoadedModel::ReadText(command.model.model, command.adapter, command.templates);
  const std::vector<int32_t> prompt = PromptIds(command, loaded, text);
  const int64_t positions =
      Positions(loaded, static_cast<int64_t>(prompt.size()), command.options.max_tokens);
  loaded.ReadWeights(Resolve(command.model, compute), positions);

  infer::GenerateOptions options = command.options;
  // A prompt of a beginning token alone is no text that could go on.
  options.continues = !loaded.uses_template() && prompt.size() > 1;
  infer::Session session(compute.context, compute.compute, loaded.backbone(), loaded.adapter(), 1, positions);
  CatchSignals();
  const auto print = [&](const std::string& piece) {
    if (command.json) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  const infer::Generation g =
      infer::Generate(session, loaded.text().tokenizer, prompt, options, print, &InterruptFlag());
  if (command.json) {
    PrintJson(ToJson(g));
  } else {
    if (!g.text.ends_with('\n')) fmt::print("\n");
    std::fflush(stdout);
    Say("prompt {} tokens at {:.0f} tokens/s, answer {} tokens at {:.1f} tokens/s, ended by {}\n",
        g.prompt_tokens, g.prefill_tokens_per_second(), g.ids.size(), g.tokens_per_second(), g.finish_reason);
  }
  if (g.finish_reason == "interrupted") throw Error(ExitCode::kInterrupted, "interrupted");
}

}  // namespace

Action AddGenerate(CLI::App& app) {
  auto command = std::make_shared<GenerateCommand>();
  infer::GenerateOptions& o = command->options;
  AddModelFlags(app, &command->model);
  app.add_option("--adapter", command->adapter, "folder of a trained adapter");
  CLI::Option* prompt =
      app.add_option("--prompt", command->prompt, "text to answer, or to go on from with --raw");
  app.add_option("--prompt-file", command->prompt_file, "the same from a file")->excludes(prompt);
  command->has_prompt = prompt;
  app.add_option("--system", command->system, "system message of the chat template");
  app.add_option("--max-tokens", o.max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--temperature", o.sample.temperature, "0: always the most probable token")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--top-p", o.sample.top_p, "sample from the most probable tokens of this share")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--top-k", o.sample.top_k, "sample from so many tokens; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", o.sample.seed, "of the sampling")->capture_default_str();
  app.add_option("--stop", o.stop, "text that ends the answer; repeatable")->expected(1)->take_all();
  AddTemplateFlags(app, &command->templates, "no chat template: go on from the text");
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->compute);
  return [command] { RunGenerate(*command); };
}

}  // namespace rung::cli
