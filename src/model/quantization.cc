#include "model/quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "io/json_file.h"

namespace rung::model {
namespace {

using nlohmann::json;

constexpr int64_t kLargestExtent = int64_t{1} << 24;  // of a group or a tile; no model has wider rows
constexpr const char* kReadMethods =
    "read are bitsandbytes (nf4 and fp4), gptq and awq with 4 bits, and fp8 (also as compressed-tensors and "
    "fbgemm_fp8 have it); or take the 16-bit model, which --quantize makes smaller while it is read";

// One configuration object with its place in messages. Every look-up that finds another type than it wants is
// a failure, kept until the end.
class Reader {
 public:
  Reader(const json& fields, std::string where) : fields_(fields), where_(std::move(where)) {}

  // nullptr for what is absent or null.
  const json* Find(const char* key) const {
    const auto found = fields_.find(key);
    return found == fields_.end() || found->is_null() ? nullptr : &*found;
  }

  std::string Text(const char* key, const std::string& otherwise) {
    const json* field = Find(key);
    if (!field) return otherwise;
    if (field->is_string()) return Lowered(field->get<std::string>());
    Fail(fmt::format("{} must be a text", key));
    return otherwise;
  }
  bool Flag(const char* key, bool otherwise) {
    const json* field = Find(key);
    if (!field) return otherwise;
    if (field->is_boolean()) return field->get<bool>();
    Fail(fmt::format("{} must be true or false", key));
    return otherwise;
  }
  int64_t Integer(const char* key, int64_t otherwise) {
    const json* field = Find(key);
    if (!field) return otherwise;
    if (field->is_number_integer()) return Bounded(*field);
    Fail(fmt::format("{} must be a whole number", key));
    return otherwise;
  }
  // [rows, cols] of tiles.
  void Tile(const char* key, Quantization* q) {
    const json* field = Find(key);
    if (!field) return;
    if (!field->is_array() || field->size() != 2 || !(*field)[0].is_number_integer() ||
        !(*field)[1].is_number_integer()) {
      return Fail(fmt::format("{} must be two whole numbers", key));
    }
    q->tile_rows = Bounded((*field)[0]);
    q->tile_cols = Bounded((*field)[1]);
    if (q->tile_rows < 1 || q->tile_cols < 1) Fail(fmt::format("{} must be positive", key));
  }

  // The first one counts.
  void Fail(const std::string& why) {
    if (failure_.empty()) failure_ = fmt::format("{}: {}", where_, why);
  }
  Result<Quantization> Finish(const Quantization& q) const {
    if (!failure_.empty()) return Failure{failure_};
    return q;
  }

 private:
  static int64_t Bounded(const json& number) {
    if (number.is_number_unsigned() && number.get<uint64_t>() > uint64_t{kLargestExtent}) {
      return kLargestExtent;
    }
    return std::clamp<int64_t>(number.get<int64_t>(), -kLargestExtent, kLargestExtent);
  }

  const json& fields_;
  std::string where_, failure_;
};

void ReadGroup(Reader* r, const char* key, Quantization* q) {
  q->group = r->Integer(key, 128);
  if (q->group == -1) {
    q->group = 0;
  } else if (q->group < 1) {
    r->Fail(fmt::format("{} is {}; a positive number is expected, or -1", key, q->group));
  }
}

void ReadGptq(Reader* r, Quantization* q) {
  q->method = Quantization::Method::kGptq;
  if (const int64_t bits = r->Integer("bits", 4); bits != 4) {
    r->Fail(fmt::format("gptq with {} bits is not read, only 4 bits are", bits));
  }
  ReadGroup(r, "group_size", q);
  r->Flag("desc_act", false);
  r->Flag("sym", true);
  const std::string layout = r->Text("checkpoint_format", "gptq");
  if (layout != "gptq" && layout != "gptq_v2") {
    r->Fail(fmt::format("checkpoint_format {} is not read; gptq and gptq_v2 are", Printable(layout)));
  }
  q->zeros_less_one = layout == "gptq";
}

void ReadAwq(Reader* r, Quantization* q) {
  q->method = Quantization::Method::kAwq;
  const char* width = r->Find("w_bit") ? "w_bit" : "bits";
  if (const int64_t bits = r->Integer(width, 4); bits != 4) {
    r->Fail(fmt::format("awq with {} bits is not read, only 4 bits are", bits));
  }
  ReadGroup(r, r->Find("q_group_size") ? "q_group_size" : "group_size", q);
  r->Flag("zero_point", true);
  if (const std::string version = r->Text("version", "gemm"); version != "gemm") {
    r->Fail(fmt::format("awq version {} is not read, only gemm is", Printable(version)));
  }
}

void ReadBitsAndBytes(Reader* r, Quantization* q) {
  q->method = Quantization::Method::kBitsAndBytes;
  if (r->Flag("load_in_8bit", r->Flag("_load_in_8bit", false))) {
    r->Fail("bitsandbytes with 8 bits (int8) is not read; its nf4 and fp4 are");
  }
}

// compressed-tensors: of its many schemes, float8 weights with a scale a tensor, row or tile.
void ReadCompressed(Reader* r, const std::string& where, Quantization* q) {
  q->method = Quantization::Method::kFloat8;
  const std::string layout = r->Text("format", "");
  const json* groups = r->Find("config_groups");
  if (!groups || !groups->is_object() || groups->empty()) return r->Fail("config_groups is missing");
  for (const auto& [key, group] : groups->items()) {
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    if (!group.is_object() || weights == group.end() || !weights->is_object()) {
      return r->Fail(fmt::format("config_groups.{} has no weights", Printable(key)));
    }
    Reader w(*weights, where);
    const std::string type = w.Text("type", "int"), strategy = w.Text("strategy", "tensor");
    const int64_t bits = w.Integer("num_bits", 8);
    if (type != "float" || bits != 8 ||
        (strategy != "tensor" && strategy != "channel" && strategy != "block")) {
      return r->Fail(
          fmt::format("compressed-tensors of {} with {} bits a {} ({}) are not read; float with 8 "
                      "bits a tensor, channel or block are",
                      Printable(type), bits, Printable(strategy), Printable(layout)));
    }
    w.Tile("block_structure", q);
    if (Result<Quantization> read = w.Finish(*q); !read.ok()) return r->Fail(read.failure().message);
  }
}

Result<Quantization> ReadObject(const json& fields, const std::string& where, const char* otherwise) {
  Quantization q;
  Reader r(fields, where);
  const std::string method = r.Text("quant_method", otherwise);
  if (method == "gptq" || method == "gptqmodel") {
    ReadGptq(&r, &q);
  } else if (method == "awq") {
    ReadAwq(&r, &q);
  } else if (method == "bitsandbytes") {
    ReadBitsAndBytes(&r, &q);
  } else if (method == "fp8" || method == "fbgemm_fp8") {
    q.method = Quantization::Method::kFloat8;
    r.Tile("weight_block_size", &q);
    if (const std::string layout = r.Text("fmt", "e4m3"); layout != "e4m3") {
      r.Fail(fmt::format("fp8 weights of fmt {} are not read, only e4m3 is", Printable(layout)));
    }
  } else if (method == "compressed-tensors") {
    ReadCompressed(&r, where, &q);
  } else {
    r.Fail(fmt::format("quantization method {} is not read; {}",
                       method.empty() ? "without a name" : Printable(method), kReadMethods));
  }
  return r.Finish(q);
}

Result<Quantization> Parse(std::string_view text, const std::string& name, bool is_config) {
  Result<json> parsed = io::ParseJson(text, name);
  if (!parsed.ok()) return parsed.failure();
  const json& fields = parsed.value();
  if (!fields.is_object()) return Failure{fmt::format("{}: not a JSON object", name)};
  if (is_config) {
    // Of a model of several parts, the text's.
    for (const char* part : {"", "text_config"}) {
      const json* holder = &fields;
      if (*part) {
        const auto found = fields.find(part);
        if (found == fields.end() || !found->is_object()) continue;
        holder = &*found;
      }
      for (const char* key : {"quantization_config", "compression_config"}) {
        const auto found = holder->find(key);
        if (found == holder->end() || found->is_null()) continue;
        const std::string where = fmt::format("{}: {}", name, key);
        if (!found->is_object()) return Failure{where + " must be an object"};
        const bool int4 = found->contains("load_in_4bit") || found->contains("_load_in_4bit") ||
                          found->contains("load_in_8bit");
        const char* otherwise = int4 ? "bitsandbytes" : *key == 'c' ? "compressed-tensors" : "";
        return ReadObject(*found, where, otherwise);
      }
    }
    return Quantization{};
  }
  return ReadObject(fields, name, fields.contains("w_bit") ? "awq" : "gptq");
}

}  // namespace

Result<Quantization> ParseQuantization(std::string_view text, const std::string& name) {
  const std::string file = Path(name).filename().string();
  return Parse(text, name, file != "quantize_config.json" && file != "quant_config.json");
}

Result<Quantization> ReadQuantization(const Path& folder) {
  Quantization found;
  for (const char* file : {"config.json", "quantize_config.json", "quant_config.json"}) {
    std::error_code error;
    const Path path = folder / file;
    if (!std::filesystem::exists(path, error)) continue;
    Result<std::string> text = ReadTextFile(path, io::kJsonFileLimit);
    if (!text.ok()) return text.failure();
    Result<Quantization> read = ParseQuantization(text.value(), path.string());
    if (!read.ok() || read.value().method != Quantization::Method::kNone) return read;
  }
  return found;
}

}  // namespace rung::model
