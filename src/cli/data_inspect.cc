#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/text.h"
#include "cli/data.h"
#include "cli/print.h"
#include "cli/say.h"
#include "data/data_files.h"

namespace rung::cli {
namespace {

struct InspectDataCommand : DataCommand {
  int64_t row = 0, count = 1;
  std::string color = "auto";
};

bool UsesColor(const std::string& color) {
  if (color != "auto") return color == "always";
  const char* refused = std::getenv("NO_COLOR");
  return ::isatty(STDOUT_FILENO) == 1 && !(refused && *refused);
}

// The bytes of ids, which may begin or end inside a character.
std::string BytesOf(const text::Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string bytes;
  for (const int32_t id : ids) bytes += tokenizer.Piece(id);
  return bytes;
}

// The text with its learned parts in colour or between brackets.
std::string Marked(const text::Tokenizer& tokenizer, const data::Example& example, bool color) {
  const std::string_view begin = color ? "\x1b[1;32m" : "\u27e6", end = color ? "\x1b[0m" : "\u27e7";
  std::string marked;
  for (size_t i = 0; i < example.ids.size();) {
    size_t to = i;
    while (to < example.ids.size() && example.learn[to] == example.learn[i]) ++to;
    const std::string text =
        Printable(BytesOf(tokenizer, std::span(example.ids).subspan(i, to - i)), Newlines::kKeep);
    marked += example.learn[i] ? fmt::format("{}{}{}", begin, text, end) : text;
    i = to;
  }
  return marked;
}

void PrintExample(const text::Tokenizer& tokenizer, const data::Example& example, bool color) {
  fmt::print("{}\n\n  {:>8}  {:<7}  token\n", Marked(tokenizer, example, color), "id", "learned");
  for (size_t i = 0; i < example.ids.size(); ++i) {
    const std::string piece = Printable(tokenizer.Piece(example.ids[i]));
    const bool learned = example.learn[i] != 0;
    // A special token and its text in plain letters are not the same.
    const bool special = tokenizer.IsSpecial(example.ids[i]);
    const std::string line = fmt::format("  {:>8}  {:<7}  \"{}\"{}", example.ids[i], learned ? "yes" : "",
                                         piece, special ? "  special" : "");
    fmt::print("{}\n", color && learned ? fmt::format("\x1b[32m{}\x1b[0m", line) : line);
  }
}

nlohmann::ordered_json ToJson(const text::Tokenizer& tokenizer, const data::Example& example) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::array();
  for (size_t i = 0; i < example.ids.size(); ++i) {
    const std::string piece = tokenizer.Piece(example.ids[i]);
    tokens.push_back({{"id", example.ids[i]},
                      {"text", IsUtf8(piece) ? piece : Printable(piece)},
                      {"special", tokenizer.IsSpecial(example.ids[i])},
                      {"learned", example.learn[i] != 0}});
  }
  return {{"text", tokenizer.Decode(example.ids, false)},
          {"tokens", tokens},
          {"learned", example.target_count()}};
}

// One record: printed, or added to `list`.
void Show(const InspectDataCommand& command, const std::string& name, const data::Record& record,
          const data::Encoder& encoder, const text::Tokenizer& tokenizer, nlohmann::ordered_json* list) {
  bool truncated = false;
  Result<std::vector<data::Example>> parts = encoder.EncodeParts(record, &truncated);
  nlohmann::ordered_json entry = {
      {"file", name}, {"row", record.row}, {"format", data::NameOf(record.format)}};
  if (!parts.ok()) {
    entry["left_out"] = parts.failure().message;
    if (!command.json) {
      fmt::print("{}:{}  {}  left out: {}\n\n", name, record.row, data::NameOf(record.format),
                 Printable(parts.failure().message));
    }
  } else {
    entry["truncated"] = truncated;
    entry["examples"] = nlohmann::ordered_json::array();
    for (const data::Example& example : parts.value()) {
      if (command.json) {
        entry["examples"].push_back(ToJson(tokenizer, example));
        continue;
      }
      fmt::print("{}:{}  {}  {} tokens, {} learned{}\n\n", name, record.row, data::NameOf(record.format),
                 example.ids.size(), example.target_count(),
                 !truncated                 ? ""
                 : parts.value().size() > 1 ? ", a part of a longer one"
                                            : ", cut to what --max-length and --tokens allow");
      PrintExample(tokenizer, example, UsesColor(command.color));
      fmt::print("\n");
    }
    if (const std::string special = encoder.SpecialText(record); !special.empty()) {
      entry["special_text"] = special;
      if (!command.json) {
        fmt::print("\"{}\" stands in it as plain text: --special-tokens reads it as the special token\n\n",
                   Printable(special));
      }
    }
  }
  if (command.json) list->push_back(std::move(entry));
}

// The records of one file that were asked for; how many there were.
int64_t ShowFile(const InspectDataCommand& command, const Path& path, const train::DataOptions& options,
                 const data::Encoder& encoder, const text::Tokenizer& tokenizer,
                 nlohmann::ordered_json* list) {
  const std::unique_ptr<data::RowReader> reader =
      data::RowReader::Open(path, options.read.sample_by).OrThrow();
  int64_t shown = 0, bad = 0;
  for (data::RawRow row; shown < command.count && reader->Next(&row).OrThrow();) {
    if (row.row < command.row) continue;
    if (shown == 0 && command.row > 0 && row.row > command.row) break;
    Result<data::Record> record = data::RecordOfRow(row, *reader, options.read);
    if (!record.ok()) {
      const std::string what = fmt::format("{}:{}: {}", reader->name(), row.row, record.failure().message);
      if (row.row == command.row || ++bad > options.read.max_bad_rows) throw Error(ExitCode::kBadInput, what);
      Say("left out: {}\n", Printable(what, Newlines::kKeep));
      continue;
    }
    data::Record whole = std::move(record).value();
    whole.row = row.row;
    Show(command, reader->name(), whole, encoder, tokenizer, list);
    ++shown;
  }
  return shown;
}

void RunInspectData(const InspectDataCommand& command) {
  const LoadedModel model = LoadTextOf(command);
  const data::Encoder encoder = EncoderOf(command, model);
  const train::DataOptions options = Resolve(command.flags);
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  const std::vector<data::DataFile> files = data::FindDataFiles(command.data, data::Split::kTrain).OrThrow();
  int64_t shown = 0;
  for (const data::DataFile& file : files)
    shown += ShowFile(command, file.path, options, encoder, model.text().tokenizer, &list);
  if (shown == 0) {
    throw Error(ExitCode::kUsage,
                fmt::format("{}: no {}", data::Describe(files),
                            command.row > 0 ? fmt::format("record begins in row {}", command.row)
                                            : std::string("row holds a record")));
  }
  if (command.json) PrintJson(list);
}

}  // namespace

Action AddDataInspect(CLI::App& app) {
  auto command = std::make_shared<InspectDataCommand>();
  AddDataFlags(app, command.get(), true);
  app.add_option("--row", command->row, "the record that begins in this line (of a .json list: this record)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--count", command->count, "records to show from there")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--color", command->color, "auto (on a terminal, unless NO_COLOR is set), always, never")
      ->check(CLI::IsMember({"auto", "always", "never"}));
  return [command] { RunInspectData(*command); };
}

}  // namespace rung::cli
