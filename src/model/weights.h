// Where a backbone's weights come from: a GGUF file used in place, a Hugging Face folder quantised while it
// is read, or headers alone (a plan needs shapes and bytes only).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "format/format.h"
#include "format/nf4.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/config.h"

namespace rung::model {

// What becomes of 16- and 32-bit matrices of a folder. Quantised files are always used as they are.
enum class Quantize : uint8_t { kNone, kNf4, kNf4Single };
Result<Quantize> ParseQuantize(const std::string& name);  // "none", "nf4", "nf4-single"

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
  virtual bool Has(const std::string& name) const = 0;
  // A (rows, cols) matrix; its memory lives as long as the source.
  virtual Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                            Quantize quantize) = 0;
  // `size` numbers; none from a source of shapes.
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

// Names of a checkpoint's tensors. `{}` stands for the layer's index.
struct Names {
  std::string embedding, final_norm, head;
  std::string attention_norm, q, k, v, o, q_norm, k_norm, mlp_norm, gate, up, down;
  std::string Layer(const std::string& pattern, int64_t layer) const;
};
const Names& HfNames();
const Names& GgufNames();

}  // namespace rung::model
