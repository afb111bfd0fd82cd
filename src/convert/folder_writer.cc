#include "convert/folder_writer.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "convert/tensor_reader.h"
#include "format/encode.h"
#include "model/float_rows.h"
#include "model/folder_weights.h"

namespace rung::convert {
namespace {

class FolderWriter {
 public:
  FolderWriter(TensorReader& source, bool nested, const AddToRows& add)
      : source_(source), nested_(nested), add_(add) {}

  void Write(const SourceTensor& tensor, const OutputTensor& output, Nf4File* file) {
    source_.Select(tensor);
    if (!tensor.kept.empty()) return file->Write(output.name, 0, source_.ReadBytes());
    format::Nf4Encoded scales;
    const int64_t rows = tensor.rows(), cols = tensor.cols();
    // Whole blocks of NF4, which do not end with rows.
    const int64_t unit = format::kNf4Block / std::gcd(cols, format::kNf4Block);
    const int64_t step = TileRows(cols, unit);
    for (int64_t begin = 0; begin < rows && cols > 0; begin += step) {
      const int64_t end = std::min(rows, begin + step);
      tile_.resize(static_cast<size_t>((end - begin) * cols));
      source_.ReadRows(begin, end, tile_.data());
      const bool added = add_ && add_(tensor, begin, end, tile_.data());
      WriteTile(tensor, output, begin, added, file, &scales);
    }
    if (!output.nf4) return;
    if (nested_) format::NestScales(&scales);
    file->WriteScales(output, scales);
  }

 private:
  void WriteTile(const SourceTensor& tensor, const OutputTensor& output, int64_t begin, bool added,
                 Nf4File* file, format::Nf4Encoded* scales) {
    const auto count = static_cast<int64_t>(tile_.size());
    const auto first = static_cast<uint64_t>(begin * tensor.cols());
    const format::Format to = output.nf4 ? format::Format::kNf4 : model::FloatFormat(output.dtype).value();
    const bool as_it_is = !added && tensor.stored == format::Of(to).name;
    if (!as_it_is) CheckRows(tile_, tensor.cols(), begin, to, tensor.name);
    if (output.nf4) {
      const format::Nf4Encoded part = format::EncodeNf4(tile_.data(), count, false);
      file->Write(output.name, first / 2, std::as_bytes(std::span(part.codes)));
      scales->absmax.insert(scales->absmax.end(), part.absmax.begin(), part.absmax.end());
      return;
    }
    const auto width = static_cast<uint64_t>(format::Of(to).block_bytes);
    bytes_.resize(tile_.size() * width);
    format::Encode(to, tile_.data(), count, bytes_.data());
    file->Write(output.name, first * width, bytes_);
  }

  TensorReader& source_;
  bool nested_;
  const AddToRows& add_;
  std::vector<float> tile_;
  std::vector<std::byte> bytes_;
};

}  // namespace

uint64_t WriteWeights(const ShardOptions& options, TensorReader& source,
                      const std::vector<OutputTensor>& outputs, const AddToRows& add) {
  const std::vector<SourceTensor>& tensors = source.tensors();
  RUNG_CHECK(outputs.size() == tensors.size(), "folder: one output of each tensor");
  FolderWriter writer(source, options.nested, add);
  return WriteShards(options, outputs, [&](size_t number, Nf4File* file) {
    writer.Write(tensors[number], outputs[number], file);
  });
}

void CheckRows(std::span<const float> rows, int64_t cols, int64_t begin, format::Format format,
               const std::string& name) {
  const int64_t row = model::UnencodableRow(format, rows, cols);
  if (row < 0) return;
  const Failure failure = model::NotEncodable("tensor " + name, begin + row, format);
  throw Error(failure.code, failure.message);
}

}  // namespace rung::convert
