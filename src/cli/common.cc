#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cli/config_file.h"
#include "cli/verb.h"

namespace rung::cli {

CLI::App* AddVerb(CLI::App& app, const Verb& verb) {
  auto sub = std::make_shared<ConfiguredApp>(verb.what, verb.name);
  sub->footer(fmt::format("Example:\n  {}", verb.example));
  return app.add_subcommand(std::move(sub));
}

Action AddVerbs(CLI::App& app, std::span<const Verb> table) {
  app.require_subcommand(1);
  auto verbs = std::make_shared<std::vector<std::pair<const CLI::App*, Action>>>();
  for (const Verb& verb : table) {
    CLI::App* sub = AddVerb(app, verb);
    verbs->emplace_back(sub, verb.add(*sub));
  }
  return [verbs] {
    for (const auto& [sub, action] : *verbs) {
      if (sub->parsed()) action();
    }
  };
}

namespace {

std::atomic<bool> interrupted{false};
std::atomic<int> caught_signal{SIGINT};
std::string command_line;

// How many bytes the character at `at` has; 1 of what is no UTF-8.
size_t LengthAt(std::string_view text, size_t at) {
  for (size_t length = 1; length <= 4; ++length) {
    if (IsUtf8(text.substr(at, length))) return length;
  }
  return 1;
}

// A word as a POSIX shell must be given it. What a message does not print as it is, it writes by its bytes.
std::string ShellQuoted(std::string_view word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) return std::string(word);
  std::string quoted = "'";
  for (size_t at = 0, length = 0; at < word.size(); at += length) {
    length = LengthAt(word, at);
    const std::string_view character = word.substr(at, length);
    if (character == "'") {
      quoted += "'\\''";
    } else if (Printable(character, Newlines::kKeep) == character) {
      quoted += character;
    } else {
      quoted += "'\"$(printf '";
      for (const char c : character) quoted += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
      quoted += "')\"'";
    }
  }
  return quoted + "'";
}

void OnSignal(int signal) {
  if (interrupted.exchange(true)) std::_Exit(128 + signal);
  caught_signal = signal;
}

// `isa`: of the run, without products in 8 bits; `best`: of the machine.
std::string Int8Refusal(cpu::Isa isa, cpu::Isa best) {
  const std::string needs = "--compute int8: needs AVX-512 with BF16 and VNNI";
  constexpr cpu::Isa kBf16 = cpu::Isa::kAvx512Bf16;
  if (isa == best) {
    return isa == kBf16
               ? needs + ", this machine has no VNNI; use --compute bf16"
               : fmt::format("{}, this machine has {} at most; use --compute f32", needs, cpu::NameOf(best));
  }
  const std::string asked = fmt::format("{}, --isa {} was given; ", needs, cpu::NameOf(isa));
  if (best != kBf16)
    return asked + fmt::format("this machine has {} at most: use --compute f32", cpu::NameOf(best));
  return asked + fmt::format("without --isa, --compute {} here; with it, --compute f32",
                             cpu::HasInt8(best) ? "int8 and --compute bf16 work" : "bf16 works");
}

}  // namespace

void AddThreadsFlag(CLI::App& app, int* threads) {
  app.add_option("--threads", *threads, "threads; 0: all cores")->check(CLI::Range(0, 1024));
}

void AddProgressFlag(CLI::App& app, std::string* progress) {
  app.add_option("--progress", *progress, "auto, none, plain, bar")
      ->check(CLI::IsMember({"auto", "none", "plain", "bar"}));
}

void AddComputeFlags(CLI::App& app, ComputeFlags* flags) {
  AddThreadsFlag(app, &flags->threads);
  app.add_option("--compute", flags->compute,
                 "arithmetic of the frozen model: auto, bf16, f32, or int8 (approximate)")
      ->check(CLI::IsMember({"auto", "bf16", "f32", "int8"}));
  app.add_option("--isa", flags->isa, "instruction set: auto, baseline, avx2, avx512 or avx512_bf16")
      ->check(CLI::IsMember({"auto", "baseline", "avx2", "avx512", "avx512_bf16"}));
}

train::ComputeOptions Resolve(const ComputeFlags& flags) {
  train::ComputeOptions options;
  const cpu::Isa best = cpu::BestIsa();
  options.context.isa = flags.isa == "auto" ? best : *cpu::ParseIsa(flags.isa);
  if (options.context.isa > best) {
    throw Error(ExitCode::kUsage,
                fmt::format("--isa {}: this machine has {} at most", flags.isa, cpu::NameOf(best)));
  }
  const bool has_bf16 = options.context.isa == cpu::Isa::kAvx512Bf16;
  if (flags.compute == "bf16" && !has_bf16) {
    throw Error(ExitCode::kUsage, fmt::format("--compute bf16: {} has no bf16 products; use --compute f32",
                                              cpu::NameOf(options.context.isa)));
  }
  options.context.int8 = flags.compute == "int8";
  if (options.context.int8 && !cpu::HasInt8(options.context.isa)) {
    throw Error(ExitCode::kUsage, Int8Refusal(options.context.isa, best));
  }
  options.compute = has_bf16 && flags.compute != "f32" ? DType::kBf16 : DType::kF32;
  options.context.threads = flags.threads > 0 ? flags.threads : omp_get_num_procs();
  omp_set_num_threads(options.context.threads);
  return options;
}

const char* NameOfArithmetic(const train::ComputeOptions& compute) {
  return compute.context.int8 ? "int8" : NameOf(compute.compute);
}

void AddModelFlags(CLI::App& app, ModelFlags* flags) {
  app.add_option("--model", flags->model, "a .gguf file or a Hugging Face folder")->required();
  AddRecipeFlags(app, flags);
}

void AddRecipeFlags(CLI::App& app, ModelFlags* flags) {
  app.add_option("--quantize", flags->quantize,
                 "floating-point matrices of a folder become: " + model::QuantizeNames())
      ->capture_default_str()
      ->each([flags](const std::string&) { flags->quantize_given = true; });
  AddEmbeddingsFlag(app, &flags->quantize_embeddings,
                    "the embedding and the head too, in a format of their own if one is given");
  AddKeepFlag(app, &flags->keep, "tensors whose names match PATTERN (* and ?) become FORMAT instead");
}

void AddEmbeddingsFlag(CLI::App& app, std::string* format, const std::string& what) {
  app.add_option("--quantize-embeddings", *format, what)
      ->expected(0, 1)
      ->default_str("true")       // when no value is given
      ->option_text("[FORMAT]");  // not the above, in --help
}

void AddKeepFlag(CLI::App& app, std::vector<std::string>* patterns, const std::string& what) {
  app.add_option("--keep", *patterns, what)
      ->type_name("PATTERN=FORMAT")
      ->delimiter(',')
      ->allow_extra_args(false);
}

model::Quantize EmbeddingsOf(const std::string& format, model::Quantize matrices, model::Quantize otherwise) {
  if (format == "true") return matrices;
  if (format.empty() || format == "false") return otherwise;
  return model::ParseQuantize(format, "--quantize-embeddings").OrThrow();
}

model::Recipe RecipeOf(const ModelFlags& flags) {
  model::Recipe recipe;
  recipe.matrices = model::ParseQuantize(flags.quantize, "--quantize").OrThrow();
  recipe.embeddings = EmbeddingsOf(flags.quantize_embeddings, recipe.matrices, model::Quantize::kNone);
  for (const std::string& pattern : flags.keep) {
    recipe.patterns.push_back(model::ParsePattern(pattern, "--keep").OrThrow());
  }
  if (flags.model.empty()) return recipe;
  const bool embeddings = !flags.quantize_embeddings.empty() && flags.quantize_embeddings != "false";
  model::CheckRecipe(recipe, flags.model,
                     {flags.quantize_given && flags.quantize != "none" ? "--quantize " + flags.quantize : "",
                      embeddings ? "--quantize-embeddings" : "", "--keep"})
      .OrThrow();
  return recipe;
}

model::BackboneOptions Resolve(const ModelFlags& flags, const train::ComputeOptions& compute) {
  model::BackboneOptions options;
  options.recipe = RecipeOf(flags);
  options.compute = compute.compute;
  return options;
}

void KeepCommandLine(std::span<const char* const> arguments) {
  for (const char* argument : arguments) {
    if (!command_line.empty()) command_line += ' ';
    command_line += ShellQuoted(argument);
  }
}

const std::string& CommandLine() { return command_line; }

const std::atomic<bool>& InterruptFlag() { return interrupted; }

void CatchSignals() {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  // A terminal that is gone asks a run to end, unless it was started to outlive it (nohup).
  if (std::signal(SIGHUP, OnSignal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
}

void OutliveReaders() { std::signal(SIGPIPE, SIG_IGN); }

int InterruptExitCode() { return 128 + caught_signal.load(); }

}  // namespace rung::cli
