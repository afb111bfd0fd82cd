#include "cli/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "base/text.h"
#include "cli/print.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

struct InspectCommand {
  ModelFlags flags;  // the model is what is inspected
  bool tensors = false, json = false;
};

// "1.24 B", "134.5 M", "656 K".
std::string Count(int64_t n) {
  const auto x = static_cast<double>(n);
  if (x >= 1e9) return fmt::format("{:.2f} B", x / 1e9);
  if (x >= 1e6) return fmt::format("{:.1f} M", x / 1e6);
  if (x >= 1e3) return fmt::format("{:.0f} K", x / 1e3);
  return std::to_string(n);
}

// Both come from the file, or may.
std::string Line(std::string_view what, const std::string& value) {
  return fmt::format("{:<16} {}\n", Printable(what), Printable(value));
}

std::string RopeText(const model::RopeConfig& rope) {
  std::string text = fmt::format("theta {}", rope.theta);
  if (rope.rotary > 0) text += fmt::format(", of {} elements of a head", rope.rotary);
  switch (rope.scaling) {
    case model::RopeScaling::kNone:
      break;
    case model::RopeScaling::kLinear:
      text += fmt::format(", positions divided by {}", rope.factor);
      break;
    case model::RopeScaling::kLlama3:
      text += fmt::format(", llama3 scaling by {} of {} positions", rope.factor, rope.original_context);
      break;
    case model::RopeScaling::kYarn:
      text += fmt::format(", YaRN by {} of {} positions", rope.factor, rope.original_context);
      break;
    case model::RopeScaling::kLongRope:
      text += fmt::format(", LongRoPE beyond {} positions", rope.original_context);
      break;
  }
  if (!rope.divisors.empty()) text += ", frequencies scaled by the file";
  return text + (rope.half ? "" : ", pairs interleaved");
}

std::string PositionsText(const model::Config& c) {
  std::string text;
  if (c.position_rows > 0) text += Line("positions", fmt::format("{} learned", c.position_rows));
  if (c.no_rope) return text;
  text += Line("rope", RopeText(c.rope));
  if (c.local_rope) text += Line("rope in windows", RopeText(*c.local_rope));
  if (!c.unrotated.empty()) text += Line("no rope", fmt::format("in {} layers", c.unrotated.size()));
  return text;
}

std::string WindowText(const model::Config& c) {
  if (c.window == 0) return std::to_string(c.context);
  return fmt::format("{}, window {}{}", c.context, c.window,
                     c.windowed.empty() ? "" : fmt::format(" in {} of {} layers", c.windowed.size(), c.L));
}

std::string ConfigText(const model::Config& c) {
  std::string text = Line("layers", std::to_string(c.L));
  text += Line("hidden size", std::to_string(c.C));
  text += Line("heads", fmt::format("{}, {} for keys and values, {} wide", c.Hq, c.Hkv, c.D));
  text += Line("MLP size", std::to_string(c.F));
  text += Line("vocabulary", fmt::format("{}{}", c.V, c.tied_head ? ", head tied to the embedding" : ""));
  text += Line("context", WindowText(c));
  return text + PositionsText(c);
}

std::string LadderText(const model::LadderSpec& spec) {
  const nn::BlockShape block = spec.block();
  std::string text =
      Line("rungs", fmt::format("{} of width {}, MLP {}, {} heads {} wide{}", spec.rungs, spec.S, spec.F,
                                block.Hq, block.D, block.norms ? "" : ", plain"));
  text += Line("taps", fmt::format("after layers {}{}", fmt::join(spec.taps, ", "),
                                   spec.tap_map == model::TapMap::kPooled ? ", pooled" : ""));
  text += Line("gate", spec.gate == model::Gate::kSum           ? "sum"
                       : spec.gate == model::Gate::kInterpolate ? "interpolate"
                                                                : "interpolate, a gate a channel");
  if (spec.rejoin > 0) text += Line("rejoins", fmt::format("{} layers below the top", spec.rejoin));
  text += Line("output scale", fmt::format("{}", spec.output_scale));
  return text;
}

std::string LoraText(const model::LoraSpec& spec) {
  std::string text =
      Line("low-rank pairs", fmt::format("rank {}, alpha {}{}, dropout {}", spec.R, spec.alpha,
                                         spec.rank_stabilized ? ", rank-stabilised" : "", spec.dropout));
  text += Line("of", fmt::format("{}", fmt::join(spec.targets, ", ")));
  text += Line("in layers", fmt::format("{}", fmt::join(spec.layers, ", ")));
  return text;
}

std::string AdapterText(const model::AdapterInfo& a) {
  std::string text = Line("made for", a.L > 0 ? fmt::format("{} ({} layers, hidden size {}, vocabulary {})",
                                                            a.base_model, a.L, a.C, a.V)
                                              : a.base_model);
  if (!a.base_formats.empty()) text += Line("trained beside", model::Describe(a.base_formats));
  if (a.spec.ladder) text += LadderText(*a.spec.ladder);
  if (a.spec.lora) text += LoraText(*a.spec.lora);
  return text;
}

void AddAdapter(const model::AdapterInfo& a, nlohmann::ordered_json* json) {
  if (const model::BaseFormats& formats = a.base_formats; !formats.empty()) {
    (*json)["base_weights"] = {{"blocks", formats.blocks}, {"embedding", formats.embedding}};
    if (!formats.head.empty()) (*json)["base_weights"]["head"] = formats.head;
  }
  if (a.spec.ladder) {
    const model::LadderSpec& spec = *a.spec.ladder;
    (*json)["ladder"] = {{"taps", spec.taps},         {"rungs", spec.rungs},
                         {"width", spec.S},           {"mlp_width", spec.F},
                         {"head_dim", spec.head_dim}, {"output_scale", spec.output_scale},
                         {"rejoin", spec.rejoin}};
  }
  if (a.spec.lora) {
    const model::LoraSpec& spec = *a.spec.lora;
    (*json)["lora"] = {{"r", spec.R},
                       {"alpha", spec.alpha},
                       {"dropout", spec.dropout},
                       {"rslora", spec.rank_stabilized},
                       {"targets", spec.targets},
                       {"layers", spec.layers}};
  }
  (*json)["base_model"] = {
      {"name", a.base_model}, {"layers", a.L}, {"hidden_size", a.C}, {"vocabulary", a.V}};
  (*json)["chat_template"] = a.chat_template;
}

std::string TemplateText(const std::string& source) {
  if (source.empty()) return Line("chat template", "none");
  std::string first = source.substr(0, source.find('\n'));
  constexpr size_t kShown = 60;
  if (first.size() > kShown) first = first.substr(0, kShown) + "...";
  return Line("chat template", fmt::format("{} bytes: {}", source.size(), first));
}

std::string TokenizerText(const text::Tokenizer& t) {
  const auto special = [&](int32_t id) {
    return id < 0 ? std::string("none") : fmt::format("{} {}", id, t.Piece(id));
  };
  std::string text = Line("tokenizer", fmt::format("{}, {} tokens", t.kind(), t.vocab_size()));
  std::string ends;
  for (const int32_t id : t.end_ids()) ends += fmt::format("{}{}", ends.empty() ? "" : ", ", special(id));
  text += Line("special ids", fmt::format("begin {}{}, end {}", special(t.bos()),
                                          t.adds_bos() ? " (added)" : "", ends.empty() ? "none" : ends));
  return text;
}

std::string InspectionText(const Inspection& found, bool tensors) {
  std::string text = Line("kind", found.kind);
  text += Line("architecture", found.architecture.empty() ? "not named" : found.architecture);
  if (!found.name.empty()) text += Line("name", found.name);
  if (found.config) text += ConfigText(*found.config);
  if (found.adapter) text += AdapterText(*found.adapter);
  for (const auto& [key, value] : found.shapes) text += Line(key, value);
  text += Line("parameters", fmt::format("{} ({})", Count(found.parameters), found.parameters));
  for (const auto& [format, total] : found.formats) {
    text += Line("tensors", fmt::format("{:<10} {:>4}  {:>10}{}", format, total.tensors,
                                        FormatBytes(total.bytes), total.supported ? "" : "  not supported"));
  }
  for (const auto& [format, bytes] : found.loaded) {
    text += Line("as loaded", fmt::format("{:<10} {:>4}  {:>10}", format, "", FormatBytes(bytes)));
  }
  if (found.no_vocabulary)
    text += Line("tokenizer", "none: the file says that it has weights alone (no_vocab)");
  if (found.tokenizer)
    text += TokenizerText(*found.tokenizer) + TemplateText(found.tokenizer->chat_template());
  if (found.adapter) text += TemplateText(found.adapter->chat_template);
  for (const std::string& reason : found.not_supported) text += Line("not supported", reason);
  for (const std::string& warning : found.warnings) text += Line("warning", warning);
  if (!tensors) return text;
  text += "\n";
  for (const TensorRow& row : found.tensors) {
    const std::string format = row.used.empty() ? row.format : row.format + " -> " + row.used;
    text += fmt::format("{:<48} {:<{}} {:>16} {:>11}\n", Printable(row.name), Printable(format),
                        found.loaded.empty() ? 10 : 18, fmt::format("{}", fmt::join(row.shape, "x")),
                        FormatBytes(row.bytes));
  }
  return text;
}

nlohmann::ordered_json InspectionJson(const Inspection& found, bool tensors) {
  nlohmann::ordered_json json = {
      {"kind", found.kind}, {"architecture", found.architecture}, {"name", found.name}};
  if (found.config) {
    const model::Config& c = *found.config;
    json["shapes"] = {
        {"layers", c.L},      {"hidden_size", c.C},       {"mlp_size", c.F},           {"heads", c.Hq},
        {"kv_heads", c.Hkv},  {"head_size", c.D},         {"vocabulary", c.V},         {"context", c.context},
        {"window", c.window}, {"tied_head", c.tied_head}, {"rope_theta", c.rope.theta}};
  } else {
    json["shapes"] = found.shapes;
  }
  if (found.adapter) {
    AddAdapter(*found.adapter, &json);
  }
  json["parameters"] = found.parameters;
  json["formats"] = nlohmann::ordered_json::object();
  for (const auto& [format, total] : found.formats) {
    json["formats"][format] = {
        {"tensors", total.tensors}, {"bytes", total.bytes}, {"supported", total.supported}};
  }
  if (found.tokenizer) {
    const text::Tokenizer& t = *found.tokenizer;
    json["tokenizer"] = {{"kind", t.kind()}, {"vocabulary", t.vocab_size()}, {"bos", t.bos()},
                         {"eos", t.eos()},   {"adds_bos", t.adds_bos()},     {"end_ids", t.end_ids()}};
    json["chat_template"] = t.chat_template();
  }
  if (found.no_vocabulary) json["tokenizer"] = nullptr;
  if (!found.loaded.empty()) json["loaded"] = found.loaded;
  json["not_supported"] = found.not_supported;
  json["warnings"] = found.warnings;
  if (!tensors) return json;
  json["tensors"] = nlohmann::ordered_json::array();
  for (const TensorRow& row : found.tensors) {
    json["tensors"].push_back(
        {{"name", row.name}, {"format", row.format}, {"shape", row.shape}, {"bytes", row.bytes}});
    if (!found.loaded.empty()) json["tensors"].back()["used"] = row.used.empty() ? row.format : row.used;
  }
  return json;
}

void RunInspect(const InspectCommand& command) {
  const ModelFlags& flags = command.flags;
  const bool asked = flags.quantize_given || !flags.quantize_embeddings.empty() || !flags.keep.empty();
  const model::Recipe recipe = asked ? RecipeOf(flags) : model::Recipe();
  const Inspection found = Inspect(flags.model, asked ? &recipe : nullptr);
  if (command.json) {
    // Names come from the file: in ASCII none steers a terminal, and broken UTF-8 does not lose the rest.
    PrintJson(InspectionJson(found, command.tensors), true);
  } else {
    fmt::print("{}", InspectionText(found, command.tensors));
  }
}

}  // namespace

Action AddInspect(CLI::App& app) {
  auto command = std::make_shared<InspectCommand>();
  app.add_option("path", command->flags.model,
                 "a .gguf file, a model folder, a config.json or an adapter folder")
      ->required();
  app.add_flag("--tensors", command->tensors, "name, format, shape and bytes of every tensor");
  app.add_flag("--json", command->json, "print one JSON object");
  AddRecipeFlags(app, &command->flags);
  return [command] { RunInspect(*command); };
}

}  // namespace rung::cli
