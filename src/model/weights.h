// Where a backbone's weights come from: a GGUF file used in place, a Hugging Face folder quantised while it
// is read, or headers alone (a plan needs shapes and bytes only).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "format/format.h"
#include "format/nf4.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/config.h"

namespace rung::model {

// What becomes of a floating-point matrix of a folder.
enum class Quantize : uint8_t {
  kNone,
  kNf4,
  kNf4Single,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kBf16,
  kF16,
  kF32,
  kMxfp4
};
// "none", "nf4", "nf4-single", "q8_0", ... `flag` stands in messages.
Result<Quantize> ParseQuantize(const std::string& name, const std::string& flag);
std::string_view NameOf(Quantize quantize);
std::string QuantizeNames();  // "none, nf4, ...": for messages

// Formats by tensor. Tensors that are packed already are used as they are, whatever this says (CheckRecipe).
struct Recipe {
  Quantize matrices = Quantize::kNf4;
  Quantize embeddings = Quantize::kNone;  // the embedding and the head
  // Patterns (* and ? as in a shell) of tensor names, the checkpoint's own, with or without ".weight": the
  // first that matches decides.
  std::vector<std::pair<std::string, Quantize>> patterns;

  Quantize For(std::string_view name, bool is_embedding) const;
  // One line without spaces that no other recipe has: what tells runs apart.
  std::string Key() const;
  bool operator==(const Recipe&) const = default;
};
// "PATTERN=FORMAT". `flag` stands in messages.
Result<std::pair<std::string, Quantize>> ParsePattern(const std::string& text, const std::string& flag);
// A choice of formats as the options of a verb name it; empty: not given, the default.
struct RecipeFlags {
  std::string matrices, embeddings, patterns;  // "--quantize", "--quantize-embeddings", "--keep"
};
// Refuses (kUsage) by the headers what was given and would change nothing of this model: patterns that no
// tensor has, formats of tensors that are packed already and are used as they are.
Status CheckRecipe(const Recipe& recipe, const Path& model, const RecipeFlags& given);

// By name, as a folder has them (StoredTensors), the matrices that the recipe decides about and what it makes
// of each. A folder whose config cannot be read has none.
std::map<std::string, Quantize> ChoicesOf(const Recipe& recipe, const Path& folder);

struct WeightTotals {
  // Bytes by format name, scales included; what stays resident after loading.
  std::map<std::string, uint64_t> bytes;
  uint64_t total = 0;
  void Add(const std::string& format, uint64_t n) {
    bytes[format] += n;
    total += n;
  }
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Of a tensor with its full name, or of a matrix by its module's.
  virtual bool Has(const std::string& name) const = 0;
  // A (rows, cols) matrix; its memory lives as long as the source. `name` is the module's, without ".weight":
  // the source adds what its format has (".weight", ".qweight", ".scales", ...). transposed: the file has it
  // as (cols, rows), which only floating-point tensors may be.
  virtual Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                            Quantize quantize, bool transposed = false) = 0;
  // `size` numbers of the tensor with this full name ("....weight", "....bias"); none from a source of
  // shapes.
  virtual Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) = 0;
  // Matrices have null data and vectors are empty: for plans.
  virtual bool shapes_only() const { return false; }

  const WeightTotals& totals() const { return totals_; }

 protected:
  WeightTotals totals_;
};

std::unique_ptr<WeightSource> GgufWeights(std::shared_ptr<const io::Gguf> gguf);
std::unique_ptr<WeightSource> FolderWeights(io::Safetensors tensors);
// Shapes, formats and totals that FolderWeights would give, from the headers.
std::unique_ptr<WeightSource> HeaderOnly(io::Safetensors tensors);
// Shapes alone, as a 16-bit folder would be read.
std::unique_ptr<WeightSource> NoWeights();

// Names of a checkpoint's tensors, weights of layers without their ".weight". `{}` stands for the layer's
// index; empty: the family has none.
struct Names {
  std::string embedding, position, project_in, project_out, final_norm, head;
  std::string attention_norm, attention_output_norm, mlp_norm, mlp_output_norm;
  std::string q, k, v, o, qkv, q_norm, k_norm;
  std::string gate, up, down, gate_up;

  static std::string Layer(const std::string& pattern, int64_t layer);
};
// Of a family as Hugging Face folders have it, and as GGUF files do. The config decides (a folder may keep a
// language model below a prefix of its own).
const Names& HfNames(const Config& config);
const Names& GgufNames(const Config& config);
// Of this folder: checkpoints of a family were saved with other prefixes too. has: of a matrix, by its
// module.
const Names& FindHfNames(const Config& config, const std::function<bool(const std::string&)>& has);

}  // namespace rung::model
