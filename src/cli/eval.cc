#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "cli/data_flags.h"
#include "cli/load_model.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/samples_text.h"
#include "data/data_files.h"
#include "data/reader.h"
#include "eval/score.h"
#include "io/json_file.h"

namespace rung::cli {
namespace {

constexpr uint64_t kChoicesLimit = uint64_t{16} << 20;
constexpr uint64_t kEncodingStep = uint64_t{1} << 20;  // bytes between two reports of progress

struct EvalCommand {
  ComputeFlags compute;
  ModelFlags model;
  DataFlags data_flags;
  std::string adapter, data, choices, progress = "auto";
  int64_t limit = 0, tokens = 2048, max_length = 2048, max_new_tokens = 256, slots = 16, samples = 0;
  TemplateFlags templates;
  bool no_generate = false, json = false, per_token = false;
};

struct EvalData {
  std::vector<data::Record> records;
  std::vector<std::string> bad_rows;  // what --max-bad-rows let be left out
  uint64_t bytes = 0;                 // of the file, as far as it is used
};

struct EvalScores {
  eval::LossScore loss;
  std::optional<eval::Accuracy> accuracy;
  const char* accuracy_kind = nullptr;  // "exact_match" or "ranking"
};

uint64_t ShareOf(uint64_t bytes, int64_t part, int64_t all) {
  return static_cast<uint64_t>(static_cast<double>(bytes) * static_cast<double>(part) /
                               static_cast<double>(all));
}

// One choice a line, or a JSON array of texts.
std::vector<std::string> ReadChoices(const Path& path) {
  std::vector<std::string> choices;
  if (path.extension() == ".json") {
    const nlohmann::json list = io::ReadJson(path, kChoicesLimit).OrThrow();
    for (const nlohmann::json& item : list) {
      if (!list.is_array() || !item.is_string()) {
        throw Error(ExitCode::kBadInput, fmt::format("{}: must be an array of texts", path.string()));
      }
      choices.push_back(item.get<std::string>());
    }
  } else {
    const std::string text = ReadTextFile(path, kChoicesLimit).OrThrow();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      std::string line = text.substr(begin, end - begin);
      if (line.ends_with('\r')) line.pop_back();
      if (!line.empty()) choices.push_back(line);
      begin = end + 1;
    }
  }
  if (choices.empty()) throw Error(ExitCode::kBadInput, fmt::format("{}: no choices", path.string()));
  return choices;
}

std::vector<std::string> ResolveChoices(const std::string& choices) {
  if (choices.empty() || choices == "choices") return {};
  std::error_code error;
  if (std::filesystem::is_regular_file(choices, error)) return ReadChoices(choices);
  throw Error(ExitCode::kUsage,
              fmt::format("--choices {}: neither a file (one choice a line, or a .json array) nor the word "
                          "\"choices\", for the field of that name in each record",
                          choices));
}

EvalData ReadData(const EvalCommand& command) {
  const data::DataFile file = data::FindDataFile(command.data, data::Split::kTest).OrThrow();
  if (file.weight != 1.0) {
    throw Error(ExitCode::kUsage,
                fmt::format("{}: weights are of training: every record counts once here", command.data));
  }
  EvalData read;
  read.records = data::ReadRecords(file.path, ResolveReading(command.data_flags), &read.bad_rows).OrThrow();
  if (read.records.empty()) throw Error(ExitCode::kBadInput, fmt::format("{}: no records", command.data));
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(file.path, error);
  read.bytes = error ? 0 : size;
  const auto all = static_cast<int64_t>(read.records.size());
  if (command.limit > 0 && all > command.limit) {
    read.bytes = ShareOf(read.bytes, command.limit, all);
    read.records.resize(static_cast<size_t>(command.limit));
  }
  return read;
}

eval::OnProgress Reporter(Progress* progress, const char* what, size_t total) {
  return [=](size_t done) {
    progress->Count(what, done, total);
    return !InterruptFlag().load();
  };
}

std::vector<data::Example> Encode(const EvalCommand& command, const data::Encoder& encoder,
                                  const EvalData& read, Progress* progress) {
  uint64_t said = 0;
  const auto go_on = [&](size_t done) {
    const uint64_t bytes = ShareOf(read.bytes, static_cast<int64_t>(done), std::ssize(read.records));
    if (bytes >= said + kEncodingStep) {
      progress->Encoding(bytes, read.bytes);
      said = bytes;
    }
    return !InterruptFlag().load();
  };
  data::EncodeReport report;
  std::vector<data::Example> examples =
      encoder.EncodeAll(read.records, command.data, &report, go_on).OrThrow();
  progress->Encoding(read.bytes, read.bytes);
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    progress->Note(fmt::format("{}:{}: left out of the loss: {}", command.data, dropped.row, dropped.reason));
  }
  if (report.truncated > 0) {
    progress->Note(fmt::format("{} of {} records were cut to {} tokens", report.truncated,
                               read.records.size(), encoder.options().max_length));
  }
  return examples;
}

EvalScores Score(const EvalCommand& command, const eval::Subject& subject, const EvalData& read,
                 Progress* progress) {
  const std::vector<data::Record>& records = read.records;
  EvalScores scores;
  const int64_t max_length = std::min({command.max_length, command.tokens + 1, subject.backbone.positions()});
  data::EncodeOptions encode;
  encode.max_length = max_length;
  encode.special_tokens = command.data_flags.special_tokens;
  const data::Encoder encoder(subject.text.vocabulary(), encode);
  scores.loss = eval::ScoreLoss(subject, Encode(command, encoder, read, progress), command.tokens,
                                Reporter(progress, "loss", records.size()));
  if (!command.choices.empty()) {
    const std::vector<std::string> choices = ResolveChoices(command.choices);
    scores.accuracy =
        eval::ScoreRanking(subject, records, choices, {command.tokens, max_length, command.per_token},
                           Reporter(progress, "ranking", records.size()));
    scores.accuracy_kind = "ranking";
  } else if (!command.no_generate) {
    scores.accuracy = eval::ScoreExactMatch(subject, records, {command.slots, command.max_new_tokens},
                                            Reporter(progress, "answering", records.size()));
    scores.accuracy_kind = "exact_match";
  }
  if (scores.accuracy && scores.accuracy->answers.empty()) scores.accuracy.reset();
  return scores;
}

nlohmann::ordered_json ToJson(const EvalScores& scores) {
  nlohmann::ordered_json json = {{"loss", scores.loss.loss},
                                 {"perplexity", std::exp(scores.loss.loss)},
                                 {"token_accuracy", scores.loss.token_accuracy},
                                 {"target_tokens", scores.loss.targets},
                                 {"records", scores.loss.records},
                                 {"accuracy", nullptr},
                                 {"accuracy_kind", nullptr},
                                 {"tokens_per_second", scores.loss.tokens_per_second()}};
  if (scores.accuracy) {
    json["accuracy"] = scores.accuracy->share();
    json["accuracy_kind"] = scores.accuracy_kind;
  }
  return json;
}

void PrintScores(const EvalScores& scores) {
  const eval::LossScore& loss = scores.loss;
  fmt::print("loss            {:.4f} nats per target token\n", loss.loss);
  fmt::print("perplexity      {:.4f}\n", std::exp(loss.loss));
  fmt::print("token accuracy  {:.1f} %\n", 100.0 * loss.token_accuracy);
  fmt::print("target tokens   {}\n", loss.targets);
  fmt::print("records         {}\n", loss.records);
  if (scores.accuracy) {
    fmt::print("accuracy        {:.1f} % ({} of {}, {})\n", 100.0 * scores.accuracy->share(),
               scores.accuracy->right(), scores.accuracy->answers.size(),
               std::string_view(scores.accuracy_kind) == "ranking" ? "ranking" : "exact match");
  }
  fmt::print("speed           {:.0f} tokens/s\n", loss.tokens_per_second());
}

// Samples are for people: beside a JSON object they go to standard error.
void PrintSamples(const EvalCommand& command, const eval::Accuracy& accuracy,
                  const std::vector<data::Record>& records) {
  std::FILE* out = command.json ? stderr : stdout;
  const auto count = std::min<size_t>(static_cast<size_t>(command.samples), accuracy.answers.size());
  for (size_t i = 0; i < count; ++i) {
    const eval::Answer& answer = accuracy.answers[i];
    const data::Record& record = records[static_cast<size_t>(answer.record)];
    fmt::print(out, "\nrow {} {}\n  prompt    {}\n  expected  {}\n  got       {}\n", record.row,
               answer.right ? "right" : "wrong", ShortText(data::AskedIn(record), true),
               ShortText(answer.expected, false), ShortText(answer.got, false));
  }
}

void RunEval(const EvalCommand& command) {
  const train::ComputeOptions compute = Resolve(command.compute);
  ResolveChoices(command.choices);  // a mistake is told before minutes of work
  const EvalData read = ReadData(command);
  LoadedModel loaded = LoadedModel::ReadText(command.model.model, command.adapter, command.templates);
  // No more than are run: LongRoPE models choose their frequencies by it, as training does by --max-length.
  const bool generates = command.choices.empty() && !command.no_generate;
  const int64_t most = command.max_length + (generates ? command.max_new_tokens : 0);
  const int64_t positions = std::min(loaded.context(), most);
  loaded.ReadWeights(Resolve(command.model, compute), positions);
  const eval::Subject subject{loaded.backbone(), loaded.adapter(), loaded.text(), compute};

  CatchSignals();
  Progress progress(ParseProgress(command.progress));
  for (const std::string& row : read.bad_rows) progress.Note("left out: " + row);
  const EvalScores scores = Score(command, subject, read, &progress);
  progress.EndLine();
  if (!std::isfinite(scores.loss.loss)) {
    throw Error(ExitCode::kNonFinite, "the loss is not a finite number: the model or the adapter is damaged");
  }
  if (command.json) {
    PrintJson(ToJson(scores));
  } else {
    PrintScores(scores);
  }
  if (scores.accuracy && command.samples > 0) PrintSamples(command, *scores.accuracy, read.records);
}

}  // namespace

Action AddEval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  AddModelFlags(app, &command->model);
  app.add_option("--adapter", command->adapter, "folder of a trained adapter");
  app.add_option("--data", command->data,
                 "held-out records: .jsonl, .json, .csv, .tsv, .txt (also .gz, .zst), or a folder with test")
      ->required();
  AddReadFlags(app, &command->data_flags);
  CLI::Option* choices = app.add_option(
      "--choices", command->choices,
      "rank these instead of generating: a file with one a line or a .json array, or \"choices\" for the "
      "field of each record");
  app.add_flag("--per-token", command->per_token, "rank by the mean log-probability of a choice's tokens")
      ->needs(choices);
  CLI::Option* no_generate =
      app.add_flag("--no-generate", command->no_generate, "loss and perplexity only")->excludes(choices);
  app.add_option("--limit", command->limit, "first so many records; 0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--samples", command->samples, "print so many records with their answers")
      ->excludes(no_generate)
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-new-tokens", command->max_new_tokens, "of one answer")
      ->excludes(no_generate)
      ->excludes(choices)
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--slots", command->slots, "answers generated at once")
      ->excludes(no_generate)
      ->excludes(choices)
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--tokens", command->tokens, "tokens of a batch")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--max-length", command->max_length, "tokens of one record; longer ones are cut")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  AddTemplateFlags(app, &command->templates);
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->compute);
  AddProgressFlag(app, &command->progress);
  return [command] { RunEval(*command); };
}

}  // namespace rung::cli
