#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/adapter_file.h"

namespace rung::train {
namespace {

using nlohmann::json;
constexpr std::string_view kPrefix = "checkpoint-";
constexpr const char* kState = "trainer_state.json";
constexpr const char* kMoments = "optimizer.safetensors";

// Step numbers of the whole checkpoints under `out`, ascending.
std::vector<int64_t> StepsUnder(const Path& out) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(out, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (parsed.ec == std::errc() && parsed.ptr == end) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

size_t SizeOfState(std::string_view dtype) { return dtype == "F32" ? sizeof(float) : 1; }

Path FolderOf(const Path& out, int64_t step) { return out / fmt::format("{}{}", kPrefix, step); }

Failure CannotWrite(const Path& path, const std::error_code& error) {
  return Failure{fmt::format("cannot write {}: {}", path.string(), error.message()), ExitCode::kFailed};
}

// Puts `whole` in the place of `folder`, which may exist (a signal right after a save saves the same step
// again): at any moment one of the two is complete under a name that is found or that can be renamed by hand.
Status Replace(const Path& whole, const Path& folder) {
  std::error_code error;
  Path aside = folder;
  aside += ".old";
  std::filesystem::remove_all(aside, error);
  if (std::filesystem::exists(folder, error)) std::filesystem::rename(folder, aside, error);
  if (error) return CannotWrite(folder, error);
  std::filesystem::rename(whole, folder, error);
  if (error) return CannotWrite(folder, error);
  if (Status synced = SyncFolder(folder.parent_path()); !synced.ok()) return synced;
  std::filesystem::remove_all(aside, error);
  return Ok{};
}

}  // namespace

void RemoveUnfinishedCheckpoints(const Path& out) {
  std::error_code error;
  std::vector<Path> unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(out, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && (name.ends_with(".tmp") || name.ends_with(".old")))
      unfinished.push_back(entry.path());
  }
  for (const Path& path : unfinished) std::filesystem::remove_all(path, error);
}

Status SaveCheckpoint(const Path& out, const RunPosition& position, const model::Adapter& adapter,
                      Optimizer& optimizer, const CheckpointContext& context) {
  const Path folder = FolderOf(out, position.step);
  Path temporary = folder;
  temporary += ".tmp";
  std::error_code error;
  std::filesystem::remove_all(temporary, error);
  Status saved =
      model::SaveAdapter(temporary, adapter, *context.config, context.base_model, context.chat_template);
  if (!saved.ok()) return saved;
  std::vector<io::TensorToWrite> moments;
  optimizer.ForEachState([&](const std::string& name, const char* dtype, std::span<std::byte> bytes) {
    moments.push_back({name, dtype, {static_cast<int64_t>(bytes.size() / SizeOfState(dtype))}, bytes});
  });
  if (Status written = io::WriteSafetensors(temporary / kMoments, moments, {}); !written.ok()) return written;
  const json state = {{"global_step", position.step},
                      {"epoch", position.epoch},
                      {"batch", position.batch},
                      {"optimizer_steps", optimizer.steps()},
                      {"fingerprint", context.fingerprint}};
  if (Status written =
          WriteTextFile(temporary / kState, state.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
      !written.ok())
    return written;
  return Replace(temporary, folder);
}

Result<Checkpoint> NewestCheckpoint(const Path& out) {
  const std::vector<int64_t> steps = StepsUnder(out);
  if (steps.empty()) return Checkpoint{};
  Checkpoint checkpoint;
  checkpoint.folder = FolderOf(out, steps.back());
  const Path file = checkpoint.folder / kState;
  Result<json> state = io::ReadJson(file);
  if (!state.ok()) return state.failure();
  try {
    checkpoint.position = {state.value().at("global_step").get<int64_t>(),
                           state.value().at("epoch").get<int64_t>(),
                           state.value().at("batch").get<int64_t>()};
    checkpoint.fingerprint = state.value().at("fingerprint").get<std::string>();
    checkpoint.optimizer_steps = state.value().at("optimizer_steps").get<int64_t>();
  } catch (const json::exception& e) {
    return Failure{fmt::format("{}: {}; delete the folder to go on from an earlier checkpoint", file.string(),
                               e.what())};
  }
  if (checkpoint.position.step < 0 || checkpoint.position.epoch < 0 || checkpoint.position.batch < 0 ||
      checkpoint.optimizer_steps < 0) {
    return Failure{fmt::format("{}: negative position", file.string())};
  }
  return checkpoint;
}

Status LoadCheckpoint(const Checkpoint& checkpoint, model::Adapter* adapter, Optimizer* optimizer) {
  Result<model::AdapterInfo> info = model::ReadAdapterInfo(checkpoint.folder);
  if (!info.ok()) return info.failure();
  if (adapter->ladder() && info.value().spec.ladder) {
    adapter->ladder()->set_output_scale(info.value().spec.ladder->output_scale);
  }
  if (Status loaded = model::LoadAdapterValues(checkpoint.folder, adapter); !loaded.ok()) return loaded;
  Result<io::Safetensors> opened = io::Safetensors::Open(checkpoint.folder / kMoments);
  if (!opened.ok()) return opened.failure();
  Status status = Ok{};
  optimizer->ForEachState([&](const std::string& name, const char* dtype, std::span<std::byte> bytes) {
    if (!status.ok()) return;
    const io::TensorEntry* entry = opened.value().Find(name);
    if (!entry || entry->dtype != dtype || entry->bytes != bytes.size()) {
      status =
          Failure{fmt::format("{}: tensor {} must be {} {} numbers", (checkpoint.folder / kMoments).string(),
                              name, bytes.size() / SizeOfState(dtype), dtype)};
    } else {
      status = opened.value().Read(*entry, 0, bytes);
    }
  });
  // Skipped steps do not advance the optimizer, hence its own count.
  optimizer->set_steps(checkpoint.optimizer_steps);
  return status;
}

void PruneCheckpoints(const Path& out, int64_t keep) {
  const std::vector<int64_t> steps = StepsUnder(out);
  std::error_code error;  // a checkpoint that cannot be removed is in nobody's way
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    std::filesystem::remove_all(FolderOf(out, steps[i]), error);
  }
}

}  // namespace rung::train
