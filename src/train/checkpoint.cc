#include "train/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/folders.h"
#include "io/json_fields.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "train/checksums.h"
#include "train/trainer_state.h"

// RUNG_VERSION comes from CMakeLists.txt.

namespace rung::train {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
constexpr std::string_view kPrefix = "checkpoint-";
constexpr const char* kResume = "resume.json";
constexpr const char* kMoments = "optimizer.safetensors";
constexpr int kFormatVersion = 1;
constexpr uint64_t kResumeLimit = uint64_t{1} << 20;

size_t SizeOfState(std::string_view dtype) { return dtype == "F32" ? sizeof(float) : 1; }

Path FolderOf(const Path& out, int64_t step) { return out / fmt::format("{}{}", kPrefix, step); }

// Nothing: not the name of a checkpoint, to the letter.
std::optional<int64_t> StepOf(const Path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  (void)std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || FolderOf("", step) != name) return std::nullopt;
  return step;
}

ordered_json ToJson(const RunState& state, int64_t optimizer_steps, const Settings& settings) {
  ordered_json best = nullptr;
  if (state.best) {
    best = {{"metric", state.best->metric},
            {"step", state.best->step},
            {"evaluations_since", state.best->evaluations_since},
            {"metric_name", state.best->of.metric},
            {"eval_data", state.best->of.data}};
  }
  return {{"format_version", kFormatVersion},
          {"rung_version", RUNG_VERSION},
          {"global_step", state.position.step},
          {"epoch", state.position.epoch},
          {"batch", state.position.batch},
          {"optimizer_steps", optimizer_steps},
          {"skipped_steps", state.skipped_steps},
          {"skipped_in_row", state.skipped_in_row},
          {"tokens", state.tokens},
          {"seconds", state.seconds},
          {"evaluated_step", state.evaluated_step},
          {"best", best},
          {"settings", settings}};
}

Status FromJson(const json& object, const std::string& where, Checkpoint* checkpoint) {
  io::JsonFields fields(object, where);
  const int64_t version = fields.Count("format_version");
  if (fields.ok() && version != kFormatVersion) {
    return Failure{fmt::format("{}: format_version {} is not known to this version of rung", where, version)};
  }
  RunState& state = checkpoint->state;
  state.position = {fields.Count("global_step"), fields.Count("epoch"), fields.Count("batch")};
  state.skipped_steps = fields.Count("skipped_steps");
  state.skipped_in_row = fields.Count("skipped_in_row");
  state.tokens = fields.Count("tokens");
  state.seconds = fields.Get<double>("seconds");
  state.evaluated_step = fields.Count("evaluated_step");
  checkpoint->rung_version = fields.GetOr<std::string>("rung_version", "");
  checkpoint->optimizer_steps = fields.Count("optimizer_steps");
  checkpoint->settings = fields.Get<Settings>("settings");
  const auto best = fields.Get<json>("best");
  if (!fields.ok()) return fields.failure();
  if (best.is_null()) return Ok{};
  io::JsonFields of_best(best, where + ": best");
  state.best = {of_best.Get<double>("metric"),
                of_best.Count("step"),
                of_best.Count("evaluations_since"),
                {of_best.GetOr<std::string>("metric_name", ""), of_best.GetOr<std::string>("eval_data", "")}};
  return of_best.ok() ? Status(Ok{}) : of_best.failure();
}

Status WriteAll(const Path& folder, const RunState& state, const model::Adapter& adapter,
                Optimizer& optimizer, const CheckpointContext& context) {
  Status saved = model::SaveAdapter(folder, adapter, *context.config, context.origin);
  if (!saved.ok()) return saved;
  std::vector<io::TensorToWrite> moments;
  optimizer.ForEachState([&](const std::string& name, const char* dtype, std::span<std::byte> bytes) {
    moments.push_back({name, dtype, {static_cast<int64_t>(bytes.size() / SizeOfState(dtype))}, bytes});
  });
  if (Status written = io::WriteSafetensors(folder / kMoments, moments, {}); !written.ok()) return written;
  if (!context.trainer_state.empty()) {
    if (Status written = WriteTextFile(folder / kTrainerState, context.trainer_state); !written.ok())
      return written;
  }
  const std::string resume = ToJson(state, optimizer.steps(), context.settings)
                                 .dump(2, ' ', false, ordered_json::error_handler_t::replace);
  return WriteTextFile(folder / kResume, resume + "\n");
}

}  // namespace

Status CleanCheckpoints(const Path& out) {
  std::error_code error;
  std::set<Path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(out, error)) {
    const std::optional<Path> folder = FolderOfPrivateName(entry.path());
    if (folder && StepOf(*folder)) folders.insert(*folder);
  }
  for (const Path& folder : folders) {
    if (Status cleaned = CleanFolder(folder); !cleaned.ok()) return cleaned;
  }
  return Ok{};
}

Status SaveCheckpoint(const Path& out, const RunState& state, const model::Adapter& adapter,
                      Optimizer& optimizer, const CheckpointContext& context) {
  return WriteFolder(FolderOf(out, state.position.step), [&](const Path& folder) {
    return WriteAll(folder, state, adapter, optimizer, context);
  });
}

std::vector<int64_t> CheckpointSteps(const Path& out) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(out, error)) {
    if (const std::optional<int64_t> step = StepOf(entry.path())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

bool HasCheckpoint(const Path& out) { return !CheckpointSteps(out).empty(); }

std::string RungVersion() { return RUNG_VERSION; }

Result<Checkpoint> ReadCheckpoint(const Path& folder) {
  const Status verified =
      VerifyChecksums(folder, {"adapter_model.safetensors", model::kAdapterConfig, kMoments, kResume});
  if (!verified.ok()) return verified.failure();
  const Path file = folder / kResume;
  Result<json> object = io::ReadJson(file, kResumeLimit);
  if (!object.ok()) return object.failure();
  Checkpoint checkpoint;
  checkpoint.folder = folder;
  if (Status read = FromJson(object.value(), file.string(), &checkpoint); !read.ok()) return read.failure();
  if (folder.filename() != FolderOf("", checkpoint.state.position.step)) {
    return Failure{
        fmt::format("{}: is of step {}, not of its folder's", file.string(), checkpoint.state.position.step)};
  }
  return checkpoint;
}

Result<Checkpoint> NewestCheckpoint(const Path& out, std::vector<std::string>* damaged) {
  const std::vector<int64_t> steps = CheckpointSteps(out);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    Result<Checkpoint> read = ReadCheckpoint(FolderOf(out, *step));
    if (read.ok()) return read;
    damaged->push_back(read.failure().message);
  }
  if (steps.empty()) return Checkpoint{};
  return Failure{
      fmt::format("every checkpoint in {} is damaged:\n  {}\nbring back the files, or choose "
                  "another --out to train again",
                  out.string(), fmt::join(*damaged, "\n  "))};
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
  if (!status.ok()) return status;
  // Skipped steps do not advance the optimizer, hence its own count.
  optimizer->set_steps(checkpoint.optimizer_steps);
  return status;
}

void PruneCheckpoints(const Path& out, int64_t step, int64_t keep) {
  std::vector<int64_t> steps = CheckpointSteps(out);
  steps.erase(std::upper_bound(steps.begin(), steps.end(), step), steps.end());
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    // A checkpoint that cannot be removed is in nobody's way.
    (void)RemoveFolder(FolderOf(out, steps[i])).ok();
  }
}

}  // namespace rung::train
