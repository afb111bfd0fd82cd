#include "convert/quantize_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "convert/folder_writer.h"
#include "convert/gguf_metadata.h"
#include "convert/gguf_vocabulary.h"
#include "convert/output_folder.h"
#include "convert/tensor_reader.h"
#include "format/encode.h"
#include "io/gguf_writer.h"
#include "model/config_difference.h"
#include "model/folder_weights.h"

namespace rung::convert {
namespace {

using format::Format;
using model::Quantize;

constexpr size_t kCopyBytes = size_t{4} << 20;

// A tensor of the file: converted from one of the source, copied from the GGUF source, or made here.
struct Item {
  io::GgufLayout layout;
  Format format = Format::kF32;
  const SourceTensor* source = nullptr;
  const io::GgufTensor* copied = nullptr;
  std::vector<float> made;

  uint64_t bytes() const {
    if (copied) return copied->data.size();
    int64_t rows = 1;
    for (size_t i = 1; i < layout.dims.size(); ++i) rows *= layout.dims[i];
    return static_cast<uint64_t>(format::DataBytes(format, rows, layout.dims[0]));
  }
};

Format GgufFormatOf(Quantize quantize) {
  const std::optional<Format> format = model::FormatOf(quantize);
  if (format && format::Of(*format).gguf_type >= 0) return *format;
  throw Error(ExitCode::kUsage,
              fmt::format("GGUF has no {}: choose q8_0, q4_0, q4_1, q5_0, q5_1, mxfp4, bf16, f16 or f32, or "
                          "name a folder with --out",
                          model::NameOf(quantize)));
}

class GgufPlan {
 public:
  GgufPlan(const TensorReader& source, const model::Recipe& recipe) : source_(source), recipe_(recipe) {
    std::map<std::string, const SourceTensor*> known;
    for (const SourceTensor& tensor : source.tensors()) {
      if (tensor.kept.empty()) known[NameOf(tensor)] = &tensor;
    }
    if (source.is_gguf()) {
      for (const io::GgufTensor& tensor : source.gguf()->tensors()) {
        const auto found = known.find(tensor.name);
        if (found == known.end()) {
          Copy(tensor);
        } else {
          Add(*found->second);
        }
      }
      return;
    }
    for (const auto& [name, values] : RopeTensors(source.config())) {
      Item item;
      item.layout = {name, format::Of(Format::kF32).gguf_type, {static_cast<int64_t>(values.size())}};
      item.made = values;
      items_.push_back(std::move(item));
    }
    for (const SourceTensor& tensor : source.tensors()) {
      if (tensor.kept.empty()) {
        Add(tensor);
      } else {
        left_out_.push_back(tensor.name);
      }
    }
  }

  const std::vector<Item>& items() const { return items_; }
  // What of the model is no weight that is known here, and has no place in the file.
  const std::vector<std::string>& left_out() const { return left_out_; }
  // Matrices whose rows are no whole blocks of the chosen format.
  const std::vector<std::string>& odd() const { return odd_; }
  // That most weights have.
  Format main_format() const {
    std::map<Format, int64_t> counts;
    for (const Item& item : items_) {
      if (item.source) counts[item.format] += item.source->rows() * item.source->cols();
    }
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == counts.end() ? Format::kF32 : most->first;
  }

 private:
  // A tied embedding may be kept under the head's name alone.
  std::string NameOf(const SourceTensor& tensor) const {
    const auto embedding = [](const SourceTensor& other) {
      return other.role == model::TensorRole::kEmbedding;
    };
    const auto& all = source_.tensors();
    if (tensor.role != model::TensorRole::kHead || std::any_of(all.begin(), all.end(), embedding))
      return tensor.gguf;
    return model::GgufNames(source_.config()).embedding + ".weight";
  }

  void Copy(const io::GgufTensor& tensor) {
    Item item;
    item.layout = {tensor.name, tensor.type, tensor.dims};
    item.copied = &tensor;
    format::FromGguf(tensor.type, &item.format);
    items_.push_back(std::move(item));
  }

  void Add(const SourceTensor& tensor) {
    // As other readers want it: a head beside a tied embedding would be taken for another matrix.
    if (tensor.role == model::TensorRole::kHead && source_.config().tied_head &&
        NameOf(tensor) == tensor.gguf) {
      return;
    }
    const bool recipe_decides = tensor.is_matrix() && tensor.role != model::TensorRole::kPosition;
    Quantize chosen = recipe_decides ? ChoiceFor(recipe_, tensor) : Quantize::kF32;
    if (!recipe_decides && source_.is_gguf()) chosen = Quantize::kNone;
    if (chosen == Quantize::kNone && source_.is_gguf()) return CopyNamed(tensor);
    Item item;
    item.format = chosen == Quantize::kNone ? AsItIs(tensor) : GgufFormatOf(chosen);
    if (tensor.gguf_cols() % format::Of(item.format).block != 0) {
      odd_.push_back(tensor.gguf);
      item.format = Format::kF16;
    }
    const int type = format::Of(item.format).gguf_type;
    // The same bytes rather than a second rounding.
    if (source_.is_gguf() && source_.gguf()->Find(tensor.gguf)->type == type) return CopyNamed(tensor);
    item.layout = {NameOf(tensor), type, {tensor.gguf_cols()}};
    if (tensor.is_matrix()) item.layout.dims.push_back(tensor.gguf_rows());
    item.source = &tensor;
    items_.push_back(std::move(item));
  }

  void CopyNamed(const SourceTensor& tensor) {
    Copy(*source_.gguf()->Find(tensor.gguf));
    items_.back().source = &tensor;
  }

  Format AsItIs(const SourceTensor& tensor) const {
    return tensor.stored == "f32"    ? Format::kF32
           : tensor.stored == "f16"  ? Format::kF16
           : tensor.stored == "bf16" ? Format::kBf16
           : source_.IsHalf()        ? Format::kF16
                                     : Format::kBf16;
  }

  const TensorReader& source_;
  const model::Recipe& recipe_;
  std::vector<Item> items_;
  std::vector<std::string> left_out_, odd_;
};

void WriteItem(TensorReader& source, const Item& item, size_t number, io::GgufWriter* writer) {
  if (item.copied) {
    const std::span<const std::byte> data = item.copied->data;
    for (size_t begin = 0; begin < data.size(); begin += kCopyBytes) {
      writer->Write(number, begin, data.subspan(begin, std::min(kCopyBytes, data.size() - begin))).OrThrow();
    }
    return;
  }
  if (!item.source) {
    writer->Write(number, 0, std::as_bytes(std::span(item.made))).OrThrow();
    return;
  }
  source.Select(*item.source);
  const int64_t rows = item.source->gguf_rows(), cols = item.source->gguf_cols();
  const auto row_bytes = static_cast<uint64_t>(format::DataBytes(item.format, 1, cols));
  const int64_t step = TileRows(cols);
  std::vector<float> tile;
  std::vector<std::byte> bytes;
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(rows, begin + step);
    tile.resize(static_cast<size_t>((end - begin) * cols));
    source.ReadGgufRows(begin, end, tile.data());
    const bool as_it_is = item.format == Format::kF16 && item.source->stored == "f16";
    if (!as_it_is) CheckRows(tile, cols, begin, item.format, item.source->name);
    bytes.resize(static_cast<size_t>(end - begin) * row_bytes);
    format::Encode(item.format, tile.data(), static_cast<int64_t>(tile.size()), bytes.data());
    writer->Write(number, static_cast<uint64_t>(begin) * row_bytes, bytes).OrThrow();
  }
}

// The header of the file that is being written, as a reader will take it, with the vectors that are a part of
// the config. The last byte makes the file as long as its header says.
void CheckReadBack(TensorReader& source, const std::vector<Item>& items, const Path& out,
                   io::GgufWriter* writer) {
  const std::byte zero{0};
  writer->Write(items.size() - 1, items.back().bytes() - 1, {&zero, 1}).OrThrow();
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].source) WriteItem(source, items[i], i, writer);
  }
  const model::Config got = model::AsFolder(model::ReadConfig(writer->temporary()).OrThrow());
  model::Config want = source.folder_config();
  const std::string difference = model::ConfigDifference(want, got);
  if (difference.empty()) return;
  throw Error(
      ExitCode::kUsage,
      fmt::format("--out {}: a GGUF file of {} cannot say this model's config: {}; name a folder with "
                  "--out",
                  out.string(), model::GgufArchitecture(want), difference));
}

io::GgufFields FieldsOf(const TensorReader& source, const QuantizeOptions& options, Format format,
                        const OnNote& on_note) {
  io::GgufFields fields;
  if (source.is_gguf()) {
    fields = CopiedFields(*source.gguf());
  } else {
    const model::Config& config = source.folder_config();
    const Path named = options.model.has_filename() ? options.model : options.model.parent_path();
    fields = GgufMetadata(config, config.name.empty() ? named.filename().string() : config.name);
    const io::GgufFields vocabulary = VocabularyFields(options.model, config.V, on_note);
    fields.insert(fields.end(), vocabulary.begin(), vocabulary.end());
  }
  fields.emplace_back("general.file_type", GgufFileType(format));
  return fields;
}

void TellNotes(const GgufPlan& plan, const model::Config& config, const OnNote& on_note) {
  if (!on_note) return;
  const std::string_view architecture = model::GgufArchitecture(config);
  if (config.window > 0 && config.window < config.context &&
      (architecture == "llama" || architecture == "phi3")) {
    on_note(fmt::format(
        "note: the model attends through a window of {} tokens, which the file says; llama.cpp does "
        "not apply it to the architecture {}: beyond {} tokens its output differs",
        config.window, architecture, config.window));
  }
  const auto first = [](const std::vector<std::string>& names) {
    return names.size() == 1 ? names[0] : fmt::format("{} and {} more", names[0], names.size() - 1);
  };
  if (!plan.odd().empty()) {
    on_note(
        fmt::format("note: rows of {} are no whole blocks of the format: f16 instead", first(plan.odd())));
  }
  if (!plan.left_out().empty()) {
    on_note(fmt::format("note: left out, no weight that a GGUF file of this model has: {}",
                        first(plan.left_out())));
  }
}

}  // namespace

QuantizeResult QuantizeGguf(const QuantizeOptions& options, const OnProgress& on_progress,
                            const OnNote& on_note) {
  TensorReader source(options.model);
  if (model::GgufArchitecture(source.config()).empty()) {
    throw Error(ExitCode::kUsage,
                fmt::format("--out {}: GGUF has no architecture for {}; it has one for: {}. Name a folder "
                            "with --out",
                            options.out.string(), source.config().family, model::GgufFamilyNames()));
  }
  CheckKeep(options.recipe, source);
  const GgufPlan plan(source, options.recipe);
  const NamedPath input{"--model", options.model};
  CheckNewFile(options.out, {&input, 1});
  const io::GgufFields fields = FieldsOf(source, options, plan.main_format(), on_note);
  QuantizeResult result;
  std::vector<io::GgufLayout> layouts;
  for (const Item& item : plan.items()) layouts.push_back(item.layout);
  CheckSpace(options.out, io::GgufWriter::PlannedBytes(options.out, fields, layouts).OrThrow());
  TellNotes(plan, source.config(), on_note);
  io::GgufWriter writer = io::GgufWriter::Create(options.out, fields, layouts).OrThrow();
  CheckReadBack(source, plan.items(), options.out, &writer);
  for (size_t i = 0; i < plan.items().size(); ++i) {
    const Item& item = plan.items()[i];
    WriteItem(source, item, i, &writer);
    if (item.source) {
      result.bytes_before += item.source->bytes;
      result.bytes_after += item.bytes();
      result.linears += item.source->is_matrix() && item.source->role != model::TensorRole::kPosition &&
                        format::Of(item.format).name != item.source->stored;
    }
    Report(on_progress, i + 1, plan.items().size());
  }
  writer.Commit().OrThrow();
  return result;
}

}  // namespace rung::convert
