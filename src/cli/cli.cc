#include "cli/cli.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <span>
#include <vector>

#include "base/text.h"
#include "cli/config_file.h"
#include "cli/config_keys.h"
#include "cli/option_info.h"
#include "cli/say.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

constexpr Verb kVerbs[] = {
    {"train", "fine-tune a ladder, or low-rank pairs, beside a frozen model",
     "rung train --model smollm2.gguf --data examples/banking/train.jsonl --out runs/banking", AddTrain},
    {"eval", "loss, perplexity and accuracy on held-out records",
     "rung eval --model smollm2.gguf --adapter runs/banking --data examples/banking/test.jsonl", AddEval},
    {"generate", "text from a prompt",
     "rung generate --model smollm2.gguf --adapter runs/banking --prompt \"Where is my card?\"", AddGenerate},
    {"plan", "the memory of a run, before it starts",
     "rung plan --model config.json --tokens 2048 --max-length 2048", AddPlan},
    {"inspect", "what a model file or an adapter holds", "rung inspect smollm2.gguf --tensors", AddInspect},
    {"verify", "whether a model file is sound: the first thing to run on a download",
     "rung verify --model smollm2.gguf", AddVerify},
    {"quantize", "a model in another format: a folder in NF4 or 16 bits, or a GGUF file",
     "rung quantize --model SmolLM2-135M-Instruct --out smollm2-q8_0.gguf", AddQuantize},
    {"merge", "a low-rank adapter into the weights of its model",
     "rung merge --model SmolLM2-135M-Instruct --adapter runs/banking --out smollm2-banking", AddMerge},
    {"export", "a low-rank adapter as llama.cpp reads it",
     "rung export --gguf --model smollm2.gguf --adapter runs/banking --out banking-lora.gguf", AddExport},
    {"data", "what of a data set is learned, how it is distributed, and what is wrong with it",
     "rung data stats --model smollm2.gguf --data examples/banking/train.jsonl", AddData},
    {"report", "runs as one HTML page: curves, memory, samples, what differs", "rung report runs/banking",
     AddReport},
    {"bench", "speed of this machine and of a model on it",
     "rung bench step --model smollm2.gguf --tokens 2048", AddBench},
    {"config", "what a configuration file may hold, and what a run would make of one",
     "rung config show --config run.yaml", AddConfig},
    {"version", "build, instruction sets, libraries", "rung version", AddVersion},
};

// "rung train: --lerning-rate is not known here; did you mean --learning-rate?"
std::string DescribeUnknown(const CLI::App& app, const std::string& argument) {
  const std::string word = argument.substr(0, argument.find('='));
  const std::string dashed = word.starts_with("--") ? FlagOf(KeyOf(word.substr(2))) : word;
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  if (app.get_option_no_throw("--config")) {
    for (const std::string& name : KnownNames(app)) names.push_back(FlagOf(name));
  }
  for (const CLI::App* below : app.get_subcommands(nullptr)) names.push_back(below->get_name());
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string_view nearest = Nearest(dashed, views);
  const std::string hint = nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
  const std::string path = PathOf(app);
  return fmt::format("{}: {} is not known here{} ({} --help lists what is)", path, word, hint, path);
}

CLI::App* Below(CLI::App& app, const std::string& name) {
  for (CLI::App* verb : app.get_subcommands(nullptr)) {
    if (verb->get_name() == name) return verb;
  }
  return nullptr;
}

struct Unknown {
  const CLI::App* verb;
  std::string argument;
};

// The first long option that its verb does not have, or the first word that is none of a verb's verbs. Looked
// at before parsing: a typing mistake explains a missing required option better than the other way round.
std::optional<Unknown> FirstUnknown(CLI::App& top, std::span<const std::string> arguments) {
  CLI::App* verb = &top;
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument.starts_with("--")) {
      if (!verb->get_option_no_throw(argument.substr(0, argument.find('=')))) return Unknown{verb, argument};
      continue;
    }
    if (verb->get_subcommands(nullptr).empty() || argument.starts_with("-")) continue;
    CLI::App* next = Below(*verb, argument);
    if (!next) return Unknown{verb, argument};
    verb = next;
  }
  return std::nullopt;
}

// The verb of a command line, with those below it: that of `rung bench step` is "step".
CLI::App* VerbOf(CLI::App* verb, std::span<const std::string> arguments) {
  for (const std::string& word : arguments) {
    CLI::App* next = Below(*verb, word);
    if (!next) break;
    verb = next;
  }
  return verb;
}

// Names of other programs, then the file.
Status TakeNamesAndFile(CLI::App* verb, std::vector<std::string>* arguments) {
  if (Status translated = TranslateFlags(*verb, arguments); !translated.ok()) return translated;
  Result<ConfigOrigins> merged = MergeConfigFile(*verb, arguments);
  if (!merged.ok()) return merged.failure();
  if (auto* configured = dynamic_cast<ConfiguredApp*>(verb)) {
    configured->origins = std::move(merged).value();
  }
  return Ok{};
}

// `--name=` gives an empty value, as `--name ""` does; CLI11 would say that none was given.
void SplitEmptyValues(const CLI::App& verb, std::vector<std::string>* arguments) {
  for (size_t i = 0; i < arguments->size() && (*arguments)[i] != "--"; ++i) {
    std::string& argument = (*arguments)[i];
    if (!argument.starts_with("--") || !argument.ends_with('=')) continue;
    const std::string name = argument.substr(0, argument.size() - 1);
    const CLI::Option* option = verb.get_option_no_throw(name);
    if (!option || option->get_items_expected_min() == 0) continue;
    argument = name;
    arguments->insert(arguments->begin() + static_cast<std::ptrdiff_t>(i) + 1, "");
  }
}

std::string DescribeVerb(const std::string& word) {
  std::vector<std::string_view> names;
  for (const Verb& verb : kVerbs) names.push_back(verb.name);
  const std::string_view nearest = Nearest(word, names);
  const std::string hint = nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
  return fmt::format("rung: {} is not a verb{} (rung --help lists them)", word, hint);
}

// Messages quote names and texts of foreign files.
void PrintMessage(std::string_view message) { Say("{}\n", Printable(message, Newlines::kKeep)); }

// A stream that was closed leaves its number to the next file that is opened: messages would go into it. In
// its place nothing can be written to standard output: see RequireOutput.
void OpenStandardStreams() {
  for (int stream = 0; stream <= STDERR_FILENO; ++stream) {
    if (::fcntl(stream, F_GETFD) != -1) continue;
    if (stream == STDOUT_FILENO && ::open("/dev/full", O_WRONLY) == stream) continue;
    if (::open("/dev/null", O_RDWR) < 0) return;
  }
}

// A result that nobody got is no success.
void RequireOutput() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw Error(ExitCode::kFailed, "standard output cannot be written: not all of the result is there");
}

int Usage(const std::string& message) {
  PrintMessage(message);
  return static_cast<int>(ExitCode::kUsage);
}

// The verb below `app` that was given.
const CLI::App& GivenVerb(const CLI::App& app) {
  const CLI::App* verb = &app;
  while (!verb->get_subcommands().empty()) verb = verb->get_subcommands().front();
  return *verb;
}

int Run(const Action& action, const CLI::App& verb) {
  try {
    action();
    RequireOutput();
    return static_cast<int>(ExitCode::kDone);
  } catch (const Error& error) {
    const auto* configured = dynamic_cast<const ConfiguredApp*>(&verb);
    const bool of_options = configured && error.code() == ExitCode::kUsage;
    PrintMessage(of_options ? WithOrigins(error.what(), configured->origins) : error.what());
    return error.code() == ExitCode::kInterrupted ? InterruptExitCode() : static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    Say("out of memory\n");
    return static_cast<int>(ExitCode::kNoMemory);
  } catch (const std::exception& error) {
    PrintMessage(error.what());
    return static_cast<int>(ExitCode::kFailed);
  }
}

}  // namespace

int Main(int argc, char** argv) {
  OpenStandardStreams();
  KeepCommandLine({argv, static_cast<size_t>(argc)});
  CLI::App app(
      "rung fine-tunes large language models with a ladder: a small trained network beside a frozen model.",
      "rung");
  const Action action = AddVerbs(app, kVerbs);

  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && !arguments.front().starts_with("-")) {
    CLI::App* verb = VerbOf(&app, arguments);
    if (verb == &app) return Usage(DescribeVerb(arguments.front()));
    if (Status merged = TakeNamesAndFile(verb, &arguments); !merged.ok()) {
      return Usage(merged.failure().message);
    }
    SplitEmptyValues(*verb, &arguments);
    if (const auto unknown = FirstUnknown(app, arguments)) {
      return Usage(DescribeUnknown(*unknown->verb, unknown->argument));
    }
  }
  try {
    std::vector<std::string> reversed(arguments.rbegin(),
                                      arguments.rend());  // CLI11 takes them from the back
    app.parse(reversed);
  } catch (const CLI::ExtrasError&) {
    const std::vector<std::string> extras = app.remaining(true);
    return Usage(DescribeUnknown(GivenVerb(app), extras.empty() ? "" : extras.front()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    return Usage(fmt::format("rung: {}", error.what()));
  }
  return Run(action, GivenVerb(app));
}

}  // namespace rung::cli
