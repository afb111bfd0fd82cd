#include "model/stored_tensors.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "model/float_rows.h"
#include "model/four_bit.h"
#include "model/packed_int4.h"

namespace rung::model {
namespace {

using Method = Quantization::Method;

constexpr std::string_view kInt4Parts[] = {".qzeros", ".scales", ".g_idx"};
constexpr std::string_view kFloat8Parts[] = {"_scale_inv", "_scale"};
constexpr std::string_view kCodes = ".qweight";

class Folder {
 public:
  Folder(const io::Safetensors& tensors, const Quantization& quantization)
      : tensors_(tensors), quantization_(quantization) {}

  // Kept beside the codes of another tensor.
  bool IsPart(const std::string& name) const {
    const auto stem = [&name](std::string_view part) { return name.substr(0, name.size() - part.size()); };
    for (const std::string_view part : kInt4Parts) {
      if (name.ends_with(part) && tensors_.Find(stem(part) + std::string(kCodes))) return true;
    }
    for (const std::string_view part : kFourBitParts) {
      if (name.ends_with(part) && FourBitOf(tensors_, stem(part))) return true;
    }
    for (const std::string_view part : kFloat8Parts) {
      if (name.ends_with(part) && IsFloat8(stem(part))) return true;
    }
    return false;
  }

  StoredTensor Describe(const io::TensorEntry& entry) const {
    StoredTensor stored{entry.name, Lowered(entry.dtype), entry.shape, entry.bytes,
                        FloatOrFloat8(entry.dtype).has_value()};
    if (entry.name.ends_with(kCodes)) {
      DescribeInt4(entry, &stored);
    } else if (const FourBit* kind = FourBitOf(tensors_, entry.name)) {
      AddParts(entry.name, kFourBitParts, &stored);
      const bool nested = tensors_.Find(entry.name + ".nested_absmax") != nullptr;
      stored.format = std::string(kind->name) + (nested ? "" : "-single");
      stored.shape = {2 * static_cast<int64_t>(entry.bytes)};
      stored.supported = true;
    } else if (IsFloat8(entry.name)) {
      AddParts(entry.name, kFloat8Parts, &stored);
    }
    return stored;
  }

 private:
  bool IsFloat8(const std::string& name) const {
    const io::TensorEntry* entry = tensors_.Find(name);
    return entry && entry->dtype == "F8_E4M3";
  }

  template <class Parts>
  void AddParts(const std::string& stem, const Parts& parts, StoredTensor* stored) const {
    for (const std::string_view part : parts) {
      if (const io::TensorEntry* beside = tensors_.Find(stem + std::string(part)))
        stored->bytes += beside->bytes;
    }
  }

  void DescribeInt4(const io::TensorEntry& entry, StoredTensor* stored) const {
    AddParts(entry.name.substr(0, entry.name.size() - kCodes.size()), kInt4Parts, stored);
    const bool gptq = quantization_.method == Method::kGptq, awq = quantization_.method == Method::kAwq;
    if (entry.shape.size() != 2 || BitsOf(entry) != 32 || (!gptq && !awq)) return;
    // Eight columns to a word, or eight rows. A header bounds a dimension by 2^63 / its bits.
    stored->shape = gptq ? std::vector<int64_t>{entry.shape[1], entry.shape[0] * kInt4Word}
                         : std::vector<int64_t>{entry.shape[1] * kInt4Word, entry.shape[0]};
    stored->format = "int4";
    stored->supported = true;
  }
  static int BitsOf(const io::TensorEntry& entry) { return io::BitsOfDtype(entry.dtype); }

  const io::Safetensors& tensors_;
  const Quantization& quantization_;
};

}  // namespace

std::vector<StoredTensor> StoredTensors(const io::Safetensors& tensors, const Quantization& quantization) {
  const Folder folder(tensors, quantization);
  std::vector<StoredTensor> stored;
  for (const auto& [name, entry] : tensors.tensors()) {
    if (!folder.IsPart(name)) stored.push_back(folder.Describe(entry));
  }
  return stored;
}

}  // namespace rung::model
