#include "convert/output_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/folders.h"
#include "base/text.h"
#include "io/json_file.h"

namespace rung::convert {
namespace {

constexpr const char* kModelTexts[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "vocab.txt",
                                       "merges.txt",
                                       "tokenizer.model",
                                       "spiece.model",
                                       "generation_config.json",
                                       "chat_template.jinja",
                                       "chat_template.json"};

// Absolute, links resolved as far as the path exists, without a slash at the end.
Path Resolved(const Path& path) {
  std::error_code error;
  Path resolved = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  if (error || resolved.empty()) {
    throw Error(ExitCode::kUsage,
                fmt::format("--out {}: cannot be made: {}", path.string(), error.message()));
  }
  return resolved.has_filename() ? resolved : resolved.parent_path();
}

bool IsInside(const Path& path, const Path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

void CheckNamed(const Path& out) {
  if (out.empty()) throw Error(ExitCode::kUsage, "--out: is empty; give a name");
}

void CheckLink(const Path& folder, const Path& file) {
  std::error_code error;
  const Path home = std::filesystem::canonical(folder, error);
  const Path target = std::filesystem::canonical(file, error);
  // A snapshot in the cache, .../models--x/snapshots/<revision>, links to .../models--x/blobs/<hash>.
  const Path blobs = home.parent_path().parent_path() / "blobs";
  const bool cached = home.parent_path().filename() == "snapshots" && IsInside(target, blobs);
  if (!error && (IsInside(target, home) || cached) && std::filesystem::is_regular_file(target, error)) return;
  throw Error(
      ExitCode::kBadInput,
      fmt::format("{}: is no regular file of the model's folder and is not copied; put a copy of what "
                  "is meant in its place, or remove it",
                  file.string()));
}

}  // namespace

void Report(const OnProgress& on_progress, size_t done, size_t total) {
  if (!on_progress || on_progress(done, total)) return;
  throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
}

NewFolder::NewFolder(const Path& out, std::span<const NamedPath> inputs) {
  CheckNamed(out);
  std::error_code error;
  for (const NamedPath& input : inputs) {
    if (!std::filesystem::equivalent(out, input.path, error)) continue;
    throw Error(ExitCode::kUsage,
                fmt::format("--out {}: is what {} names; choose a folder that is not there yet", out.string(),
                            input.option));
  }
  final_ = Resolved(out);
  const bool exists = std::filesystem::exists(std::filesystem::symlink_status(final_, error));
  if (exists && !(std::filesystem::is_directory(final_, error) && std::filesystem::is_empty(final_, error))) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--out {}: is not an empty folder; choose one that is not there yet", out.string()));
  }
  std::filesystem::create_directories(final_.parent_path(), error);
  // create_directory makes the folder or says that there was one: what is not made here is not touched.
  bool made = false;
  for (int attempt = 0; attempt < 1000 && !made && !error; ++attempt) {
    temporary_ = final_;
    temporary_ += fmt::format(".tmp-{}-{}", ::getpid(), attempt);
    made = std::filesystem::create_directory(temporary_, error);
    if (error == std::errc::file_exists) error.clear();
  }
  if (!made) {
    throw Error(ExitCode::kFailed, fmt::format("cannot create {}: {}", temporary_.string(), error.message()));
  }
}

NewFolder::~NewFolder() {
  std::error_code error;
  if (!committed_) std::filesystem::remove_all(temporary_, error);
}

void NewFolder::Commit() {
  std::error_code error;
  // Replaces an empty folder, and nothing else.
  std::filesystem::rename(temporary_, final_, error);
  if (error) {
    throw Error(ExitCode::kFailed, fmt::format("cannot rename {} to {}: {}", temporary_.string(),
                                               final_.string(), error.message()));
  }
  committed_ = true;
  SyncFolder(final_.parent_path()).OrThrow();
}

void CheckNewFile(const Path& out, std::span<const NamedPath> inputs) {
  CheckNamed(out);
  const Path resolved = Resolved(out);
  std::error_code error;
  for (const NamedPath& input : inputs) {
    const Path home = std::filesystem::canonical(input.path, error);
    if (error || !IsInside(resolved, home)) continue;
    throw Error(ExitCode::kUsage,
                fmt::format("--out {}: {} what {} names; choose another place", out.string(),
                            resolved == home ? "is" : "is inside", input.option));
  }
  const Path temporary = AtomicFile::TemporaryOf(out);
  const auto there = [&](const Path& file) {
    return std::filesystem::exists(std::filesystem::symlink_status(file, error));
  };
  if (there(out)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--out {}: is there already and is not replaced; choose another "
                            "name, or remove it",
                            out.string()));
  }
  if (!there(temporary)) return;
  throw Error(
      ExitCode::kUsage,
      fmt::format("--out {}: {} is there: another run writes it, or one was killed while it did; remove "
                  "it if none runs, or choose another name",
                  out.string(), temporary.string()));
}

void CheckSpace(const Path& out, uint64_t needed) {
  const std::optional<uint64_t> free = FreeBytes(out);
  if (!free || *free >= needed) return;  // where the system does not say, writing will
  throw Error(ExitCode::kFailed,
              fmt::format("--out {}: {} needed, {} are free on that disk; make room or choose another",
                          out.string(), FormatBytes(needed), FormatBytes(*free)));
}

std::vector<Shard> ShardsOf(std::span<const uint64_t> bytes, uint64_t limit) {
  std::vector<Shard> shards(1);
  uint64_t filled = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (filled > 0 && filled + bytes[i] > limit) {
      shards.push_back({"", i, i});
      filled = 0;
    }
    filled += bytes[i];
    shards.back().end = i + 1;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

void WriteShardIndex(const Path& folder, const std::map<std::string, std::string>& file_of, uint64_t bytes) {
  using nlohmann::ordered_json;
  const ordered_json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", file_of}};
  WriteTextFile(folder / "model.safetensors.index.json",
                index.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n")
      .OrThrow();
}

ModelTexts ReadModelTexts(const Path& folder) {
  ModelTexts texts;
  for (const char* name : kModelTexts) {
    const Path file = folder / name;
    std::error_code error;
    if (!std::filesystem::exists(std::filesystem::symlink_status(file, error))) continue;
    CheckLink(folder, file);
    texts[name] = ReadTextFile(file, io::kJsonFileLimit).OrThrow();
  }
  return texts;
}

void WriteModelTexts(const Path& folder, const ModelTexts& texts) {
  for (const auto& [name, text] : texts) WriteTextFile(folder / name, text).OrThrow();
}

}  // namespace rung::convert
