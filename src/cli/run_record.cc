#include "cli/run_record.h"

#include <fmt/format.h>

#include <fstream>
#include <system_error>

#include "base/clock.h"
#include "cli/version.h"
#include "io/sha256.h"

namespace rung::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRecordVersion = 1;
constexpr uint64_t kRecordLimit = uint64_t{16} << 20;
// Larger data files are known by the identity of their tokens alone: hashing takes about a second per GiB.
constexpr uint64_t kHashedBytes = uint64_t{1} << 30;

// The first "key : value" of a file in /proc; empty where there is none.
std::string ProcField(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t begin = colon == line.npos ? line.npos : line.find_first_not_of(" \t", colon + 1);
    return begin == line.npos ? "" : line.substr(begin);
  }
  return "";
}

Json MachineJson() {
  const std::string cpu = ProcField("/proc/cpuinfo", "model name"),
                    total = ProcField("/proc/meminfo", "MemTotal");
  const uint64_t kilobytes = total.empty() ? 0 : std::strtoull(total.c_str(), nullptr, 10);
  return {{"cpu", cpu.empty() ? Json() : Json(cpu)},
          {"memory_bytes", kilobytes > 0 ? Json(kilobytes * 1024) : Json()}};
}

Json FilesJson(const std::vector<data::DataFile>& files) {
  Json list = Json::array();
  for (const data::DataFile& file : files) {
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(file.path, error);
    Json one = {
        {"path", file.path.string()}, {"weight", file.weight}, {"bytes", error ? Json() : Json(bytes)}};
    one["sha256"] = nullptr;
    if (!error && bytes <= kHashedBytes) {
      if (Result<std::string> hash = io::Sha256OfFile(file.path); hash.ok()) one["sha256"] = hash.value();
    }
    list.push_back(std::move(one));
  }
  return list;
}

Json ModelFilesJson(const train::ModelHash& model) {
  Json list = Json::array();
  for (const train::ModelFile& file : model.files) {
    list.push_back({{"name", file.name.empty() ? Json() : Json(file.name)},
                    {"bytes", file.bytes},
                    {"sha256", file.sha256}});
  }
  return list;
}

Json DataJson(const std::string& identity, const std::vector<data::DataFile>& files) {
  return {{"identity", identity}, {"files", FilesJson(files)}};
}

// The file of the run's earlier parts; null where there is none that can be read.
Json ReadRecord(const Path& path) {
  Result<std::string> text = ReadTextFile(path, kRecordLimit);
  if (!text.ok()) return nullptr;
  Json record = Json::parse(text.value(), nullptr, false);
  return record.is_object() ? record : Json();
}

// What earlier parts left, and this one.
Json ResumedJson(const Json& earlier, const train::ResumeReport& resume, const std::string& now) {
  Json list = Json::array();
  if (earlier.is_object() && earlier.contains("resumed") && earlier["resumed"].is_array()) {
    list = earlier["resumed"];
  }
  if (resume.step > 0) {
    list.push_back({{"time", now},
                    {"step", resume.step},
                    {"checkpoint", resume.checkpoint.filename().string()},
                    {"differences", resume.differences}});
  }
  return list;
}

}  // namespace

Status WriteRunRecord(const std::vector<ResolvedOption>& resolved, const train::TrainOptions& options,
                      const model::Config& config, const train::RunBegin& begin) {
  const Path path = options.out / "run.json";
  const std::string now = UtcNow();
  const Json earlier = begin.resume.step > 0 ? ReadRecord(path) : Json();
  const bool known = earlier.is_object() && earlier.contains("started") && earlier["started"].is_string();
  const bool split = options.data_options.valid_fraction > 0.0;
  Json record = {{"format_version", kRecordVersion},
                 {"started", known ? earlier["started"] : Json(now)},
                 {"rung", VersionJson()},
                 {"machine", MachineJson()},
                 {"compute",
                  {{"isa", cpu::NameOf(options.compute.context.isa)},
                   {"threads", options.compute.context.threads},
                   {"arithmetic", NameOfArithmetic(options.compute)}}},
                 {"model",
                  {{"path", options.model.string()},
                   {"family", config.family},
                   {"layers", config.L},
                   {"hidden_size", config.C},
                   {"vocabulary", config.V},
                   {"sha256", begin.model.sha256},
                   {"files", ModelFilesJson(begin.model)}}},
                 {"data", DataJson(begin.data, options.data)},
                 {"eval_data", nullptr},
                 {"schedule",
                  {{"steps", begin.steps},
                   {"warmup_steps", begin.warmup_steps},
                   {"learning_rate", begin.learning_rate}}},
                 {"options", OptionsJson(resolved)},
                 {"resumed", ResumedJson(earlier, begin.resume, now)}};
  if (!begin.eval_data.empty()) {
    record["eval_data"] = DataJson(begin.eval_data, split ? options.data : options.eval_data);
  }
  return WriteTextFile(path, record.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace rung::cli
