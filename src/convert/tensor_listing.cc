#include "convert/tensor_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/text.h"
#include "model/config_difference.h"
#include "model/float_rows.h"
#include "model/folder_weights.h"
#include "model/four_bit.h"

namespace rung::convert {
namespace {

template <class T>
std::optional<Failure> FailureOf(const Result<T>& result) {
  return result.ok() ? std::nullopt : std::optional(result.failure());
}

class FolderLister {
 public:
  FolderLister(const io::Safetensors& file, const Path& folder, const model::Config& config)
      : file_(file),
        config_(config),
        headers_(model::HeaderOnly(io::Safetensors::OpenFolder(folder).OrThrow())) {}

  TensorListing List() {
    const auto has = [&](const std::string& module) { return headers_->Has(module); };
    const std::vector<model::ModelTensor> usual = model::ModelTensors(config_);
    std::vector<model::ModelTensor> tensors = model::ModelTensors(config_, &model::FindHfNames(config_, has));
    const bool any_table = std::any_of(tensors.begin(), tensors.end(), [&](const model::ModelTensor& tensor) {
      return model::IsTable(tensor.role) && IsThere(tensor);
    });
    for (size_t i = 0; i < tensors.size(); ++i) {
      listed_.insert(tensors[i].name);
      if (IsThere(tensors[i])) {
        Add(std::move(tensors[i]), usual[i].name);
      } else if (!model::IsTable(tensors[i].role) || !any_table || !config_.tied_head) {
        // One of the two serves for both where they are tied.
        found_.missing.push_back(tensors[i].name);
      }
    }
    AddKept();
    return std::move(found_);
  }

 private:
  bool IsThere(const model::ModelTensor& tensor) const {
    return file_.Find(tensor.name) || (tensor.is_matrix() && headers_->Has(tensor.module()));
  }

  void Add(model::ModelTensor tensor, const std::string& usual) {
    const io::TensorEntry* entry = file_.Find(tensor.name);
    SourceTensor listed;
    static_cast<model::ModelTensor&>(listed) = std::move(tensor);
    listed.usual = usual;
    if (IsPlain(entry, listed)) {
      listed.stored = Lowered(entry->dtype);
      listed.bytes = entry->bytes;
    } else {
      packed_.insert(listed.module() + ".");
      if (!ReadPacked(entry, &listed)) return;
    }
    found_.tensors.push_back(std::move(listed));
  }

  // What is packed tells its format, and what is wrong with it.
  bool ReadPacked(const io::TensorEntry* entry, SourceTensor* tensor) {
    if (!tensor->is_matrix()) {
      found_.wrong.push_back(
          {tensor->role, fmt::format("{}: tensor {} is {} of {}; {} in F32, F16 or BF16 is expected",
                                     file_.path(*entry).string(), tensor->name, entry->dtype,
                                     model::ShapeText(entry->shape), model::ShapeText(tensor->shape))});
      return false;
    }
    const Result<format::Matrix> matrix =
        headers_->ReadMatrix(tensor->module(), tensor->gguf_rows(), tensor->gguf_cols(),
                             model::Quantize::kNone, tensor->transposed);
    if (!matrix.ok()) {
      found_.wrong.push_back({tensor->role, matrix.failure().message});
      return false;
    }
    const format::Matrix& read = matrix.value();
    tensor->stored = format::Of(read.format).name;
    tensor->bytes = static_cast<uint64_t>(format::DataBytes(read.format, read.rows, read.cols));
    return true;
  }

  // What the model has beside what is run here.
  void AddKept() {
    for (const auto& item : file_.tensors()) {
      const std::string& name = item.first;
      const io::TensorEntry& entry = item.second;
      // Codes, scales and their like stand below the name of the layer.
      const bool is_part = std::any_of(packed_.begin(), packed_.end(),
                                       [&](const std::string& module) { return name.starts_with(module); });
      if (listed_.contains(name) || is_part) continue;
      if (const model::FourBit* kind = model::FourBitOf(file_, name)) {
        found_.wrong.push_back(
            {model::TensorRole::kLinear, fmt::format("{}: tensor {} is {} and no weight of this model",
                                                     file_.path(entry).string(), name, kind->name)});
        continue;
      }
      SourceTensor kept;
      kept.name = name;
      kept.shape = entry.shape;
      kept.kept = entry.dtype;
      kept.bytes = entry.bytes;
      found_.tensors.push_back(std::move(kept));
    }
  }

  const io::Safetensors& file_;
  const model::Config& config_;
  std::unique_ptr<model::WeightSource> headers_;
  std::set<std::string> listed_, packed_;  // names; modules, with a point
  TensorListing found_;
};

}  // namespace

bool IsPlain(const io::TensorEntry* entry, const model::ModelTensor& tensor) {
  return entry && entry->shape == tensor.shape && model::FloatFormat(entry->dtype);
}

TensorListing ListTensors(const std::shared_ptr<const io::Gguf>& gguf, const model::Config& config) {
  TensorListing found;
  const std::unique_ptr<model::WeightSource> source = model::GgufWeights(gguf);
  for (model::ModelTensor& tensor : model::ModelTensors(model::AsFolder(config))) {
    if (tensor.role == model::TensorRole::kHead && config.tied_head) continue;
    const io::GgufTensor* entry = gguf->Find(tensor.gguf);
    if (!entry) {
      found.missing.push_back(tensor.gguf);
      continue;
    }
    const std::optional<Failure> wrong =
        tensor.is_matrix() ? FailureOf(source->ReadMatrix(tensor.gguf_module(), tensor.gguf_rows(),
                                                          tensor.gguf_cols(), model::Quantize::kNone))
                           : FailureOf(source->ReadVector(tensor.gguf, tensor.cols()));
    if (wrong) found.wrong.push_back({tensor.role, wrong->message});
    const std::optional<io::GgmlType> type = io::GgmlTypeOf(entry->type);
    SourceTensor listed;
    static_cast<model::ModelTensor&>(listed) = std::move(tensor);
    listed.usual = listed.name;
    listed.stored = type ? std::string(type->name) : "unknown";
    listed.bytes = entry->data.size();
    found.tensors.push_back(std::move(listed));
  }
  return found;
}

TensorListing ListTensors(const io::Safetensors& tensors, const Path& folder, const model::Config& config) {
  return FolderLister(tensors, folder, config).List();
}

}  // namespace rung::convert
