#include "cli/quantize_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "format/nf4.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "model/config.h"
#include "model/folder_weights.h"

namespace rung::cli {
namespace {

constexpr size_t kCopyBytes = size_t{4} << 20;
constexpr const char* kNf4State = ".quant_state.bitsandbytes__nf4";
// A quant_state and its entry in the header, at most: names are some 80 bytes, the state 250.
constexpr uint64_t kStateBytes = 512;

template <class T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

void Require(const Status& status) {
  if (!status.ok()) throw Error(status.failure().code, status.failure().message);
}

// How Python names a dtype.
std::string TorchName(const std::string& dtype) {
  return dtype == "BF16" ? "bfloat16" : dtype == "F16" ? "float16" : "float32";
}

int64_t Width(const std::string& dtype) { return std::max(1, io::BitsOfDtype(dtype) / 8); }

struct Extents {
  int64_t rows, cols;
  int64_t blocks() const { return (rows * cols + format::kNf4Block - 1) / format::kNf4Block; }
  int64_t outer() const { return (blocks() + format::kNf4NestedBlock - 1) / format::kNf4NestedBlock; }
};

// Names of the matrices that become NF4.
std::set<std::string> Linears(const io::Safetensors& source, const model::Config& config, bool embeddings) {
  const model::Names& names = model::HfNames();
  std::set<std::string> linears;
  for (int64_t layer = 0; layer < config.L; ++layer) {
    for (const std::string* pattern :
         {&names.q, &names.k, &names.v, &names.o, &names.gate, &names.up, &names.down}) {
      linears.insert(names.Layer(*pattern, layer));
    }
  }
  for (const std::string& name : linears) {
    if (!source.Find(name)) throw Error(ExitCode::kBadInput, fmt::format("tensor {} is missing", name));
  }
  for (const std::string* name : {&names.embedding, &names.head}) {
    if (embeddings && source.Find(*name)) linears.insert(*name);
  }
  return linears;
}

void CheckLinear(const io::Safetensors& source, const io::TensorEntry& entry) {
  if (entry.shape.size() == 2 && model::FloatFormat(entry.dtype)) return;
  const bool packed = source.Find(entry.name + kNf4State) != nullptr;
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: tensor {} is {}: {}", source.path(entry).string(), entry.name, entry.dtype,
                          packed ? "the folder is quantised already"
                                 : "only F32, F16 and BF16 matrices can be quantised"));
}

// The tensors of the new file whose sizes are known before any weight is read; the states follow at the end.
class Layout {
 public:
  Layout(const io::Safetensors& source, const std::set<std::string>& linears, bool nested) {
    for (const auto& [name, entry] : source.tensors()) {
      if (!linears.contains(name)) {
        tensors_.push_back({name, entry.dtype, entry.shape});
        continue;
      }
      CheckLinear(source, entry);
      const Extents e{entry.shape[0], entry.shape[1]};
      tensors_.push_back({name, "U8", {(e.rows * e.cols + 1) / 2, 1}});
      tensors_.push_back({name + ".absmax", nested ? "U8" : "F32", {e.blocks()}});
      tensors_.push_back({name + ".quant_map", "F32", {16}});
      if (nested) {
        tensors_.push_back({name + ".nested_absmax", "F32", {e.outer()}});
        tensors_.push_back({name + ".nested_quant_map", "F32", {256}});
      }
    }
    // Readers want every tensor aligned to its own width.
    std::stable_sort(
        tensors_.begin(), tensors_.end(),
        [](const io::TensorLayout& a, const io::TensorLayout& b) { return Width(a.dtype) > Width(b.dtype); });
    for (size_t i = 0; i < tensors_.size(); ++i) place_[tensors_[i].name] = i;
  }
  const std::vector<io::TensorLayout>& tensors() const { return tensors_; }
  size_t place(const std::string& name) const { return place_.at(name); }

 private:
  std::vector<io::TensorLayout> tensors_;
  std::map<std::string, size_t> place_;
};

void WriteLinear(const io::Safetensors& source, const io::TensorEntry& entry, bool nested,
                 const Layout& layout, io::SafetensorsWriter* writer,
                 std::map<std::string, std::string>* states) {
  const format::Nf4Encoded encoded = model::EncodeTensor(source, entry, nested).OrThrow();
  const std::string& name = entry.name;
  const auto write = [&](const std::string& tensor, std::span<const std::byte> bytes) {
    Require(writer->Write(layout.place(tensor), 0, bytes));
  };
  write(name, BytesOf(encoded.codes));
  write(name + ".quant_map", std::as_bytes(std::span(format::kNf4Level)));
  if (nested) {
    write(name + ".absmax", BytesOf(encoded.nested_codes));
    write(name + ".nested_absmax", BytesOf(encoded.absmax));
    write(name + ".nested_quant_map", std::as_bytes(std::span(format::Nf4NestedMap())));
  } else {
    write(name + ".absmax", BytesOf(encoded.absmax));
  }
  (*states)[name] =
      QuantStateJson(TorchName(entry.dtype), entry.shape[0], entry.shape[1], nested, encoded.offset);
}

void CopyTensor(const io::Safetensors& source, const io::TensorEntry& entry, size_t place,
                io::SafetensorsWriter* writer) {
  std::vector<std::byte> buffer;
  for (uint64_t begin = 0; begin < entry.bytes; begin += kCopyBytes) {
    buffer.resize(static_cast<size_t>(std::min<uint64_t>(kCopyBytes, entry.bytes - begin)));
    Require(source.Read(entry, begin, buffer));
    Require(writer->Write(place, begin, buffer));
  }
}

// Configuration, tokenizer, template: every small text file beside the weights.
void CopyTexts(const Path& from, const Path& to, const QuantizeOptions& options) {
  for (const auto& item : std::filesystem::directory_iterator(from)) {
    const Path& file = item.path();
    const std::string name = file.filename().string(), extension = file.extension().string();
    const bool text =
        extension == ".json" || extension == ".jinja" || extension == ".txt" || extension == ".model";
    if (!item.is_regular_file() || !text || name == "config.json" || name.ends_with(".index.json")) continue;
    Require(WriteTextFile(to / name, ReadTextFile(file, io::kJsonFileLimit).OrThrow()));
  }
  nlohmann::json config = io::ReadJson(from / "config.json").OrThrow();
  config["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"bnb_4bit_quant_type", "nf4"},
                                   {"bnb_4bit_use_double_quant", options.nested},
                                   {"bnb_4bit_compute_dtype", "bfloat16"},
                                   {"bnb_4bit_quant_storage", "uint8"},
                                   {"llm_int8_skip_modules", nullptr}};
  Require(WriteTextFile(to / "config.json", config.dump(2) + "\n"));
}

void CheckOut(const QuantizeOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_directory(options.model, error)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--model {}: a Hugging Face folder with 16-bit safetensors is needed",
                            options.model.string()));
  }
  if (std::filesystem::exists(options.out, error) && !std::filesystem::is_empty(options.out, error)) {
    throw Error(ExitCode::kUsage, fmt::format("--out {}: is not empty; choose a folder that is not there yet",
                                              options.out.string()));
  }
}

void CheckSpace(const Path& folder, uint64_t needed) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || space.available >= needed) return;  // where the system does not say, writing will
  throw Error(ExitCode::kFailed, fmt::format("{}: {} needed, {} are free on that disk", folder.string(),
                                             FormatBytes(needed), FormatBytes(space.available)));
}

QuantizeResult WriteWeights(const io::Safetensors& source, const std::set<std::string>& linears,
                            const QuantizeOptions& options, const Path& folder,
                            const std::function<bool(size_t, size_t)>& on_progress) {
  const Layout layout(source, linears, options.nested);
  io::SafetensorsWriter writer =
      io::SafetensorsWriter::Create(folder / "model.safetensors", layout.tensors(), {{"format", "pt"}},
                                    linears.size() * kStateBytes)
          .OrThrow();
  CheckSpace(folder, writer.bytes() + linears.size() * kStateBytes);
  QuantizeResult result;
  std::map<std::string, std::string> states;
  for (const auto& [name, entry] : source.tensors()) {
    result.bytes_before += entry.bytes;
    if (!linears.contains(name)) {
      CopyTensor(source, entry, layout.place(name), &writer);
      continue;
    }
    WriteLinear(source, entry, options.nested, layout, &writer, &states);
    ++result.linears;
    if (on_progress && !on_progress(states.size(), linears.size())) {
      throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
    }
  }
  for (const auto& [name, state] : states) {
    Require(writer.Append({name + kNf4State, "U8", {static_cast<int64_t>(state.size())}},
                          std::as_bytes(std::span(state))));
  }
  result.bytes_after = writer.bytes();
  Require(writer.Commit());
  return result;
}

}  // namespace

std::string QuantStateJson(const std::string& dtype, int64_t rows, int64_t cols, bool nested,
                           float nested_offset) {
  std::string text =
      fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                  format::kNf4Block, dtype, rows, cols);
  if (nested) {
    std::string offset = fmt::format("{}", static_cast<double>(nested_offset));
    // Python writes a whole number with a point.
    if (offset.find_first_of(".en") == std::string::npos) offset += ".0";
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                        format::kNf4NestedBlock, offset);
  }
  return text + "}";
}

QuantizeResult QuantizeFolder(const QuantizeOptions& options,
                              const std::function<bool(size_t done, size_t total)>& on_progress) {
  CheckOut(options);
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const io::Safetensors source = io::Safetensors::OpenFolder(options.model).OrThrow();
  const std::set<std::string> linears = Linears(source, config, options.embeddings);

  const Path out = std::filesystem::absolute(options.out).lexically_normal();
  Path temporary = out.has_filename() ? out : out.parent_path();  // "name/" is "name"
  const Path final = temporary;
  temporary += ".tmp";
  std::error_code error;
  std::filesystem::remove_all(temporary, error);
  std::filesystem::create_directories(temporary, error);
  if (error) {
    throw Error(ExitCode::kFailed, fmt::format("cannot create {}: {}", temporary.string(), error.message()));
  }
  try {
    const QuantizeResult result = WriteWeights(source, linears, options, temporary, on_progress);
    CopyTexts(options.model, temporary, options);
    std::filesystem::remove(final, error);  // an empty folder that was there
    std::filesystem::rename(temporary, final);
    return result;
  } catch (const std::filesystem::filesystem_error& failed) {
    std::filesystem::remove_all(temporary, error);
    throw Error(ExitCode::kFailed, failed.what());
  } catch (const Error&) {
    std::filesystem::remove_all(temporary, error);
    throw;
  }
}

}  // namespace rung::cli
