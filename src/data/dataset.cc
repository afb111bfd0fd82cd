#include "data/dataset.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "base/threads.h"
#include "data/token_file.h"
#include "io/json_file.h"
#include "io/sha256.h"

namespace rung::data {
namespace {

using Json = nlohmann::json;

// Rows read at once: enough work for all cores between two waits, and a bound on memory.
constexpr size_t kPieceRows = 4096;
constexpr size_t kPieceBytes = size_t{8} << 20;
// Rows that a thread takes at a time.
constexpr size_t kGrain = 16;

// What became of one row.
struct Outcome {
  std::optional<Result<Record>> record;
  bool here = true;  // in the part that is wanted
  std::string dropped;
  std::vector<std::vector<TokenWord>> examples;
  int64_t targets = 0;
  bool truncated = false;
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

  Status Run(const DataFile& file, uint64_t* bytes) {
    Result<std::unique_ptr<RowReader>> opened = RowReader::Open(file.path, options_.read.sample_by);
    if (!opened.ok()) return opened.failure();
    RowReader& reader = *opened.value();
    FileCheck check(reader.name(), options_.read.max_bad_rows);
    for (bool more = true; more;) {
      Result<bool> read = ReadPiece(reader, bytes);
      if (!read.ok()) return read.failure();
      more = read.value();
      EncodePiece(reader, check.failed());
      if (Status taken = TakePiece(&check); !taken.ok()) return taken;
      if (options_.on_progress) options_.on_progress(*bytes);
    }
    return check.Finish();
  }

 private:
  Result<bool> ReadPiece(RowReader& reader, uint64_t* bytes) {
    size_t size = 0;
    rows_.clear();
    while (rows_.size() < kPieceRows && size < kPieceBytes) {
      RawRow row;
      Result<bool> more = reader.Next(&row);
      if (!more.ok() || !more.value()) return more;
      size += row.text.size() + 1;
      for (const std::string& field : row.fields) size += field.size() + 1;
      rows_.push_back(std::move(row));
    }
    *bytes += size;
    return true;
  }

  // Each row by whichever thread is free; its outcome has its own place.
  void EncodePiece(const RowReader& reader, bool only_parse) {
    outcomes_.clear();
    outcomes_.resize(rows_.size());
    std::atomic<size_t> next = 0;
    OnEachThread(options_.threads, [&](int) {
      for (size_t begin = next.fetch_add(kGrain); begin < rows_.size(); begin = next.fetch_add(kGrain)) {
        for (size_t i = begin; i < std::min(rows_.size(), begin + kGrain); ++i) {
          try {
            EncodeRow(reader, rows_[i], only_parse, &outcomes_[i]);
          } catch (const std::exception& error) {
            outcomes_[i].record = Failure{fmt::format("it cannot be read: {}", error.what())};
          }
          rows_[i] = {rows_[i].row, {}, {}, {}};
        }
      }
    });
  }

  void EncodeRow(const RowReader& reader, const RawRow& row, bool only_parse, Outcome* outcome) const {
    outcome->record = RecordOfRow(row, reader, options_.read);
    if (only_parse || !outcome->record->ok()) return;
    const Record& record = outcome->record->value();
    if (options_.part != Part::kAll) {
      outcome->here =
          IsHeldOut(ContentHash(record), options_.valid_fraction) == (options_.part == Part::kValid);
      if (!outcome->here) return;
    }
    Result<std::vector<Example>> encoded = encoder_.EncodeParts(record, &outcome->truncated);
    if (!encoded.ok()) {
      outcome->dropped = encoded.failure().message;
      return;
    }
    for (const Example& example : encoded.value()) {
      outcome->examples.push_back(WordsOf(example));
      outcome->targets += example.target_count();
    }
  }

  Status TakePiece(FileCheck* check) {
    for (size_t i = 0; i < outcomes_.size(); ++i) {
      Outcome& outcome = outcomes_[i];
      const int64_t row = rows_[i].row;
      if (!check->Take(std::move(*outcome.record), row, &counts_->bad_rows) || !outcome.here) continue;
      if (check->failed()) continue;
      EncodeReport& report = counts_->report;
      ++report.records;
      report.truncated += outcome.truncated;
      report.targets += outcome.targets;
      if (!outcome.dropped.empty()) report.Drop({row, std::move(outcome.dropped), check->name()});
      for (const std::vector<TokenWord>& words : outcome.examples) {
        report.rows += static_cast<int64_t>(words.size()) - 1;
        if (Status added = sink_(words); !added.ok()) return added;
      }
    }
    return Ok{};
  }

  const DatasetOptions& options_;
  const Encoder& encoder_;
  const Sink& sink_;
  Counts* counts_;
  std::vector<RawRow> rows_;
  std::vector<Outcome> outcomes_;
};

Result<Counts> EncodeFiles(const DatasetOptions& options, const Encoder& encoder, const Sink& sink) {
  Counts counts;
  int64_t examples = 0;
  const Sink counting = [&](std::span<const TokenWord> words) {
    ++examples;
    return sink(words);
  };
  uint64_t bytes = 0;
  for (const DataFile& file : options.files) {
    Status done = FileEncoder(options, encoder, counting, &counts).Run(file, &bytes);
    if (!done.ok()) return done.failure();
    counts.ends.push_back(examples);
  }
  if (examples > 0) return counts;
  if (counts.report.records == 0 && options.part != Part::kAll) {
    return Failure{
        fmt::format("{}: --valid-fraction {} leaves no record {}: choose another, or name the held-out "
                    "records with --eval-data",
                    Describe(options.files), options.valid_fraction,
                    options.part == Part::kValid ? "to evaluate on" : "to train on"),
        ExitCode::kUsage};
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
              {"records", r.records}, {"dropped_count", r.dropped_count}}
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
    for (const auto& [key, into] : {std::pair{"truncated", &r.truncated},
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

Result<std::string> KeyOf(const DatasetOptions& options, const EncodeOptions& encode) {
  io::Sha256 sum;
  const auto add = [&](const std::string& part) { sum.Add(fmt::format("{}:{}\n", part.size(), part)); };
  add("tokens 1");
  add(options.encoder_identity);
  add(options.read.Key());
  add(fmt::format("length={} completion={} history={} truncation={} part={} fraction={}", encode.max_length,
                  encode.completion_only, encode.mask_history, static_cast<int>(encode.truncation),
                  static_cast<int>(options.part), options.part == Part::kAll ? 0.0 : options.valid_fraction));
  for (const DataFile& file : options.files) {
    Result<std::string> content = io::Sha256OfFile(file.path);
    if (!content.ok()) return content.failure();
    add(fmt::format("kind={} {}", static_cast<int>(KindOf(file.path)), content.value()));
  }
  return sum.Hex();
}

Dataset Finish(const Examples& examples, Counts counts, const DatasetOptions& options) {
  Dataset made;
  made.examples =
      options.part == Part::kValid ? examples : ApplyWeights(examples, options.files, counts.ends);
  made.report = std::move(counts.report);
  made.bad_rows = std::move(counts.bad_rows);
  return made;
}

std::optional<Dataset> FromCache(const Path& path, const DatasetOptions& options, std::string* note) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  Result<TokenFile> file = OpenTokenFile(path);
  std::optional<Counts> counts = file.ok() ? FromNotes(file.value().notes) : std::nullopt;
  if (!counts || counts->ends.size() != options.files.size() || file.value().examples.empty() ||
      counts->ends.back() != file.value().examples.size()) {
    *note = fmt::format("{}: damaged; the data is encoded again", path.string());
    return std::nullopt;
  }
  Dataset made = Finish(file.value().examples, std::move(*counts), options);
  made.cached = true;
  made.cache_file = path;
  return made;
}

Result<Dataset> Build(const Path& path, const DatasetOptions& options, const Encoder& encoder) {
  // Two runs may make the same file at once: each under a name of its own, the last rename stays.
  Path own = path;
  own += fmt::format(".{}", ::getpid());
  Result<TokenFileWriter> created = TokenFileWriter::Create(own);
  if (!created.ok()) return created.failure();
  TokenFileWriter writer = std::move(created).value();
  Result<Counts> counts =
      EncodeFiles(options, encoder, [&](std::span<const TokenWord> words) { return writer.Add(words); });
  if (!counts.ok()) return counts.failure();
  if (Status wrote = writer.Commit(ToNotes(counts.value())); !wrote.ok()) return wrote.failure();
  std::error_code error;
  std::filesystem::rename(own, path, error);
  if (error)
    return Failure{fmt::format("cannot rename {}: {}", own.string(), error.message()), ExitCode::kFailed};
  Result<TokenFile> file = OpenTokenFile(path);
  if (!file.ok()) return file.failure();
  Dataset made = Finish(file.value().examples, std::move(counts).value(), options);
  made.cache_file = path;
  return made;
}

}  // namespace

bool IsHeldOut(uint64_t content_hash, double valid_fraction) {
  return static_cast<double>(content_hash >> 11) * 0x1p-53 < valid_fraction;
}

Result<Dataset> LoadDataset(const DatasetOptions& options, const Encoder& encoder) {
  RUNG_CHECK(!options.files.empty() && options.threads >= 1,
             "a data set has files, and threads that read them");
  if (options.cache.empty()) {
    ExampleBuilder builder;
    Result<Counts> counts = EncodeFiles(options, encoder, [&](std::span<const TokenWord> words) {
      builder.Add(words);
      return Status(Ok{});
    });
    if (!counts.ok()) return counts.failure();
    return Finish(std::move(builder).Finish(), std::move(counts).value(), options);
  }
  std::error_code error;
  std::filesystem::create_directories(options.cache, error);
  if (error) {
    return Failure{fmt::format("cannot create {}: {}", options.cache.string(), error.message()),
                   ExitCode::kFailed};
  }
  Result<std::string> key = KeyOf(options, encoder.options());
  if (!key.ok()) return key.failure();
  const Path path = options.cache / (key.value().substr(0, 32) + ".tokens");
  std::string note;
  if (std::optional<Dataset> cached = FromCache(path, options, &note)) return std::move(*cached);
  Result<Dataset> built = Build(path, options, encoder);
  if (!built.ok()) return built.failure();
  Dataset made = std::move(built).value();
  made.note = std::move(note);
  return made;
}

Path DefaultCache(std::span<const DataFile> files) {
  uint64_t bytes = 0;
  for (const DataFile& file : files) {
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(file.path, error);
    if (!error) bytes += size;
  }
  if (bytes < kCacheFromBytes) return {};
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return Path(value ? value : "");
  };
  if (const Path own = variable("RUNG_CACHE"); !own.empty()) return own / "tokens";
  if (const Path cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "rung" / "tokens";
  if (const Path home = variable("HOME"); !home.empty()) return home / ".cache" / "rung" / "tokens";
  return {};
}

}  // namespace rung::data
