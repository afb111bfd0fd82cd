#include "data/dataset.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "data/row_pieces.h"
#include "data/token_file.h"
#include "io/json_file.h"

namespace rung::data {
namespace {

using Json = nlohmann::json;

// What became of one row.
struct Outcome {
  std::optional<Result<Record>> record;
  bool here = true;  // in the part that is wanted
  RecordReport report;
  std::vector<std::vector<TokenWord>> examples;
};

struct Counts {
  EncodeReport report;
  std::vector<std::string> bad_rows;
  std::vector<int64_t> ends;  // examples at the end of each file
};

// Where examples go: memory or a file.
using Sink = std::function<Status(std::span<const TokenWord>)>;

class FileEncoder {
 public:
  FileEncoder(const DatasetOptions& options, const Encoder& encoder, const Sink& sink, Counts* counts)
      : options_(options), encoder_(encoder), sink_(sink), counts_(counts) {}

  // `before`, `total`: bytes of the files before this one, and of all.
  Status Run(const DataFile& file, uint64_t before, uint64_t total) {
    uint64_t taken = 0;
    Result<std::unique_ptr<RowReader>> opened = RowReader::Open(file.path, options_.read.sample_by, &taken);
    if (!opened.ok()) return opened.failure();
    RowReader& reader = *opened.value();
    FileCheck check(reader.name(), options_.read.max_bad_rows);
    RowPieces pieces(&reader, options_.threads, options_.interrupt);
    for (;;) {
      Result<std::span<RawRow>> piece = pieces.Next();
      if (!piece.ok()) return piece.failure();
      const std::span<RawRow> rows = piece.value();
      if (rows.empty()) return check.Finish();
      outcomes_.clear();
      outcomes_.resize(rows.size());
      Status done = pieces.ForEach([&](size_t i) {
        EncodeRow(reader, rows[i], check.failed(), &outcomes_[i]);
        rows[i] = {rows[i].row, {}, {}, {}};
      });
      if (done.ok()) done = TakePiece(rows, &check);
      if (!done.ok()) return done;
      if (options_.on_progress) options_.on_progress(before + taken, total);
    }
  }

 private:
  void EncodeRow(const RowReader& reader, const RawRow& row, bool only_parse, Outcome* outcome) const {
    outcome->record = RecordOfRow(row, reader, options_.read);
    if (only_parse || !outcome->record->ok()) return;
    const Record& record = outcome->record->value();
    if (options_.part != Part::kAll) {
      outcome->here =
          IsHeldOut(ContentHash(record), options_.valid_fraction) == (options_.part == Part::kValid);
      if (!outcome->here) return;
    }
    for (const Example& example : encoder_.EncodeReported(record, &outcome->report)) {
      outcome->examples.push_back(WordsOf(example));
    }
  }

  Status TakePiece(std::span<const RawRow> rows, FileCheck* check) {
    for (size_t i = 0; i < outcomes_.size(); ++i) {
      Outcome& outcome = outcomes_[i];
      const int64_t row = rows[i].row;
      if (!check->Take(std::move(*outcome.record), row, &counts_->bad_rows) || !outcome.here) continue;
      if (check->failed()) continue;
      counts_->report.Add(std::move(outcome.report), row, check->name());
      for (const std::vector<TokenWord>& words : outcome.examples) {
        if (Status added = sink_(words); !added.ok()) return added;
      }
    }
    return Ok{};
  }

  const DatasetOptions& options_;
  const Encoder& encoder_;
  const Sink& sink_;
  Counts* counts_;
  std::vector<Outcome> outcomes_;
};

uint64_t SizeOf(const DataFile& file) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(file.path, error);
  return error ? 0 : size;
}

Result<Counts> EncodeFiles(const DatasetOptions& options, const Encoder& encoder, const Sink& sink) {
  Counts counts;
  int64_t examples = 0;
  const Sink counting = [&](std::span<const TokenWord> words) {
    ++examples;
    return sink(words);
  };
  uint64_t before = 0, total = 0;
  for (const DataFile& file : options.files) total += SizeOf(file);
  for (const DataFile& file : options.files) {
    Status done = FileEncoder(options, encoder, counting, &counts).Run(file, before, total);
    if (!done.ok()) return done.failure();
    counts.ends.push_back(examples);
    before += SizeOf(file);
  }
  if (examples > 0) return counts;
  if (counts.report.records == 0 && options.part != Part::kAll) {
    return UsageFailure(
        fmt::format("{}: --valid-fraction {} leaves no record {}: choose another, or name the held-out "
                    "records with --eval-data",
                    Describe(options.files), options.valid_fraction,
                    options.part == Part::kValid ? "to evaluate on" : "to train on"));
  }
  const auto& dropped = counts.report.dropped;
  const std::string why = dropped.empty()
                              ? "there are no records"
                              : fmt::format("row {}: {}", dropped.front().row, dropped.front().reason);
  return Failure{fmt::format("{}: no record has a target token: {}", Describe(options.files), why)};
}

// Each example as often as the weight of its file says.
Examples ApplyWeights(const Examples& examples, std::span<const DataFile> files,
                      std::span<const int64_t> ends) {
  bool plain = true;
  for (const DataFile& file : files) plain = plain && file.weight == 1.0;
  if (plain) return examples;
  std::vector<int64_t> places;
  int64_t begin = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    const double weight = files[f].weight;
    for (int64_t i = begin; i < ends[f]; ++i) {
      const auto n = static_cast<double>(i - begin);
      const auto times = static_cast<int64_t>(std::floor((n + 1) * weight) - std::floor(n * weight));
      places.insert(places.end(), static_cast<size_t>(times), i);
    }
    begin = ends[f];
  }
  return examples.Pick(std::move(places));
}

std::string ToNotes(const Counts& counts) {
  Json dropped = Json::array();
  for (const auto& record : counts.report.dropped)
    dropped.push_back({record.row, record.reason, record.file});
  const EncodeReport& r = counts.report;
  return Json{{"ends", counts.ends},  {"bad_rows", counts.bad_rows},
              {"dropped", dropped},   {"truncated", r.truncated},
              {"rows", r.rows},       {"targets", r.targets},
              {"records", r.records}, {"dropped_count", r.dropped_count},
              {"special", r.special}, {"special_texts", r.special_texts}}
      .dump();
}

// Written by ToNotes, and covered by the file's checksum; still, nothing in it may end the program.
std::optional<Counts> FromNotes(const std::string& notes) {
  Result<Json> parsed = io::ParseJson(notes, "notes");
  if (!parsed.ok()) return std::nullopt;
  try {
    const Json& json = parsed.value();
    Counts counts;
    counts.ends = json.at("ends").get<std::vector<int64_t>>();
    counts.bad_rows = json.at("bad_rows").get<std::vector<std::string>>();
    EncodeReport& r = counts.report;
    for (const Json& record : json.at("dropped")) {
      r.dropped.push_back(
          {record.at(0).get<int64_t>(), record.at(1).get<std::string>(), record.at(2).get<std::string>()});
    }
    r.special = json.at("special").get<std::string>();
    for (const auto& [key, into] : {std::pair{"truncated", &r.truncated},
                                    {"special_texts", &r.special_texts},
                                    {"rows", &r.rows},
                                    {"targets", &r.targets},
                                    {"records", &r.records},
                                    {"dropped_count", &r.dropped_count}}) {
      *into = json.at(key).get<int64_t>();
    }
    return counts;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

// What besides the files' bytes decides the tokens: all of EncodeOptions is.
std::vector<std::string> SettingsOf(const DatasetOptions& options, const EncodeOptions& encode) {
  const auto& [max_length, completion_only, mask_history, truncation, special_tokens] = encode;
  return {options.encoder_identity, options.read.Key(),
          fmt::format("length={} completion={} history={} truncation={} specials={}", max_length,
                      completion_only, mask_history, static_cast<int>(truncation), special_tokens),
          fmt::format("part={} fraction={}", static_cast<int>(options.part),
                      options.part == Part::kAll ? 0.0 : options.valid_fraction)};
}

Result<Dataset> Finish(const Examples& examples, Counts counts, const DatasetOptions& options) {
  Dataset made;
  made.examples =
      options.part == Part::kValid ? examples : ApplyWeights(examples, options.files, counts.ends);
  if (made.examples.empty()) {
    return UsageFailure(fmt::format("{}: the weights leave none of {} examples: raise FILE:{}",
                                    Describe(options.files), examples.size(), options.files.front().weight));
  }
  made.report = std::move(counts.report);
  made.bad_rows = std::move(counts.bad_rows);
  return made;
}

// Nothing: the file must be made.
Result<std::optional<Dataset>> FromCache(const Path& path, const DatasetOptions& options, std::string* note) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::optional<Dataset>();
  Result<TokenFile> file = OpenTokenFile(path, options.interrupt);
  if (!file.ok() && file.failure().code == ExitCode::kInterrupted) return file.failure();
  std::optional<Counts> counts = file.ok() ? FromNotes(file.value().notes) : std::nullopt;
  if (!counts || counts->ends.size() != options.files.size() || file.value().examples.empty() ||
      counts->ends.back() != file.value().examples.size()) {
    *note = fmt::format("{}: damaged; the data is encoded again", path.string());
    return std::optional<Dataset>();
  }
  Result<Dataset> made = Finish(file.value().examples, std::move(*counts), options);
  if (!made.ok()) return made.failure();
  MarkUsed(path);
  return std::optional(std::move(made).value());
}

Result<Dataset> InMemory(const DatasetOptions& options, const Encoder& encoder) {
  ExampleBuilder builder;
  Result<Counts> counts = EncodeFiles(options, encoder, [&](std::span<const TokenWord> words) {
    builder.Add(words);
    return Status(Ok{});
  });
  if (!counts.ok()) return counts.failure();
  return Finish(std::move(builder).Finish(), std::move(counts).value(), options);
}

// `cache_failed` is set when the data is right and the file cannot be kept.
Result<Dataset> Build(const Path& path, const DatasetOptions& options, const Encoder& encoder,
                      bool* cache_failed) {
  *cache_failed = true;
  // Two runs may make the same file at once: each under a name of its own, the last rename stays.
  Result<TokenFileWriter> created = TokenFileWriter::Create(path, OwnTokenFile(path));
  if (!created.ok()) return created.failure();
  TokenFileWriter writer = std::move(created).value();
  bool added = true;
  Result<Counts> counts = EncodeFiles(options, encoder, [&](std::span<const TokenWord> words) {
    Status status = writer.Add(words);
    added = status.ok();
    return status;
  });
  *cache_failed = !added;
  if (!counts.ok()) return counts.failure();
  *cache_failed = true;
  if (Status wrote = writer.Commit(ToNotes(counts.value())); !wrote.ok()) return wrote.failure();
  Result<TokenFile> file = OpenTokenFile(path, options.interrupt);
  *cache_failed = !file.ok() && file.failure().code != ExitCode::kInterrupted;
  if (!file.ok()) return file.failure();
  return Finish(file.value().examples, std::move(counts).value(), options);
}

std::string NoteOf(const Tidied& tidied, uint64_t limit) {
  return fmt::format("token cache: removed {} file{} of {}, used longest ago, for the limit of {}",
                     tidied.files, tidied.files == 1 ? "" : "s", FormatBytes(tidied.bytes),
                     FormatBytes(limit));
}

}  // namespace

bool IsHeldOut(uint64_t content_hash, double valid_fraction) {
  return static_cast<double>(content_hash >> 11) * 0x1p-53 < valid_fraction;
}

Result<Dataset> LoadDataset(const DatasetOptions& options, const Encoder& encoder) {
  RUNG_CHECK(!options.files.empty() && options.threads >= 1,
             "a data set has files, and threads that read them");
  if (options.cache.empty()) return InMemory(options, encoder);
  Result<std::string> name =
      TokenFileName(options.files, SettingsOf(options, encoder.options()),
                    [&](uint64_t) { return !options.interrupt || !options.interrupt->load(); });
  if (!name.ok()) return name.failure();
  const Path path = options.cache / name.value();
  std::string note;
  Result<std::optional<Dataset>> cached = FromCache(path, options, &note);
  if (!cached.ok()) return cached.failure();
  const bool found = cached.value().has_value();
  if (!found) {
    std::error_code error;
    std::filesystem::create_directories(options.cache, error);
    bool cache_failed = static_cast<bool>(error);
    Result<Dataset> built =
        error ? Result<Dataset>(
                    Failure{fmt::format("cannot create {}: {}", options.cache.string(), error.message()),
                            ExitCode::kFailed})
              : Build(path, options, encoder, &cache_failed);
    if (!built.ok() && cache_failed && options.cache_is_default) {
      Result<Dataset> kept = InMemory(options, encoder);
      if (!kept.ok()) return kept.failure();
      Dataset made = std::move(kept).value();
      made.notes.push_back(fmt::format("{}; tokens are kept in memory: name a folder with --token-cache",
                                       built.failure().message));
      return made;
    }
    if (!built.ok()) return built.failure();
    cached = std::optional(std::move(built).value());
  }
  Dataset made = std::move(*std::move(cached).value());
  made.cached = found;
  made.cache_file = path;
  if (!note.empty()) made.notes.push_back(std::move(note));
  const Tidied tidied = TidyCache(options.cache, options.cache_limit);
  if (tidied.files > 0) made.notes.push_back(NoteOf(tidied, options.cache_limit));
  return made;
}

}  // namespace rung::data
