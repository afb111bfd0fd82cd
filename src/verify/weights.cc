// Headers against the config, and every number of every tensor.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "convert/tensor_reader.h"
#include "verify/parts.h"

namespace rung::verify {
namespace {

constexpr size_t kNamed = 3;  // of a list of names that a message gives
// Larger ones have been seen in no trained model but in norms: of weights typical magnitudes are 0.01 to 1.
constexpr double kAbsurd = 1e4;
// Times the median of its kind in the other layers, up or down.
constexpr double kOutlier = 100.0;

// "a, b, c and 5 more".
std::string Some(const std::vector<std::string>& names, const char* between = ", ") {
  const std::vector<std::string> first(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kNamed, names.size())));
  const std::string more =
      names.size() > kNamed ? fmt::format(" and {} more", names.size() - kNamed) : std::string();
  return fmt::format("{}{}", fmt::join(first, between), more);
}

// Which the config asks for.
bool IsOfRope(std::string_view name) { return name.find("rotary_emb.inv_freq") != std::string_view::npos; }

// What a walk over a tensor's numbers found.
struct Numbers {
  int64_t nans = 0, infinities = 0, count = 0, zero_rows = 0;
  int64_t bad_row = -1, bad_col = -1;  // the first that is no number
  double squares = 0.0, largest = 0.0;
  double rms() const { return count > 0 ? std::sqrt(squares / static_cast<double>(count)) : 0.0; }

  void AddRow(const float* x, int64_t cols, int64_t row) {
    bool zero = true;
    for (int64_t c = 0; c < cols; ++c) {
      const auto value = static_cast<double>(x[c]);
      if (!std::isfinite(value)) {
        ++(std::isnan(value) ? nans : infinities);
        if (bad_row < 0) {
          bad_row = row;
          bad_col = c;
        }
        continue;
      }
      zero = zero && x[c] == 0.0f;
      squares += value * value;
      largest = std::max(largest, std::abs(value));
    }
    zero_rows += zero;
    count += cols;
  }
};

Numbers Walk(convert::TensorReader& source, const convert::SourceTensor& tensor) {
  source.Select(tensor);
  Numbers numbers;
  const int64_t rows = tensor.rows(), cols = tensor.cols(), step = convert::TileRows(cols);
  std::vector<float> tile;
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(rows, begin + step);
    tile.resize(static_cast<size_t>((end - begin) * cols));
    source.ReadRows(begin, end, tile.data());
    for (int64_t row = begin; row < end; ++row) numbers.AddRow(tile.data() + (row - begin) * cols, cols, row);
  }
  return numbers;
}

// "model.layers.*.mlp.up_proj.weight": what the same tensors of all layers share.
std::string KindOf(const std::string& name) {
  std::string kind;
  for (const char c : name) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
      kind += c;
    } else if (!kind.ends_with('*')) {
      kind += '*';
    }
  }
  return kind;
}

class WeightFindings {
 public:
  explicit WeightFindings(Verification* found) : found_(found) {}

  void Take(const convert::SourceTensor& tensor, const Numbers& n) {
    const std::string& name = tensor.name;
    if (n.nans + n.infinities > 0) {
      broken_.push_back(fmt::format("{}: {} NaN and {} infinite of {}, the first in row {}, column {}", name,
                                    n.nans, n.infinities, n.count, n.bad_row, n.bad_col));
      return;
    }
    const bool gain = tensor.role == model::TensorRole::kNorm && tensor.offset == 0.0f;
    const bool weights = tensor.is_matrix() || gain;
    if (weights && n.largest == 0.0) return zero_.push_back(name);
    if (tensor.role == model::TensorRole::kLinear && n.zero_rows > 0) zero_rows_.push_back(name);
    if (tensor.is_matrix() && n.largest > kAbsurd) {
      Warn(fmt::format("{}: a weight of {:.3g}: models have none so large", name, n.largest));
    }
    if (tensor.is_matrix()) kinds_[KindOf(name)].emplace_back(name, n.rms());
    largest_ = std::max(largest_, n.largest);
    numbers_ += n.count;
  }

  void Finish(size_t tensors) {
    for (auto& [kind, layers] : kinds_) {
      if (layers.size() < 3) continue;
      std::vector<double> sizes;
      for (const auto& [name, rms] : layers) sizes.push_back(rms);
      std::nth_element(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2),
                       sizes.end());
      const double median = sizes[sizes.size() / 2];
      for (const auto& [name, rms] : layers) {
        if (rms <= kOutlier * median && rms * kOutlier >= median) continue;
        Warn(fmt::format("{}: typical weight {:.3g}, in the other layers {:.3g}", name, rms, median));
      }
    }
    Problem(broken_, "NaN or infinity");
    if (!zero_.empty()) found_->Add("weights", Finding::kProblem, Some(zero_) + ": all zero");
    if (!zero_rows_.empty()) {
      Warn(fmt::format("rows that are all zero in {}", Some(zero_rows_)));
    }
    if (warnings_ == 0 && !bad()) {
      found_->Add("weights", Finding::kOk,
                  fmt::format("{} numbers in {} tensors, all finite, none beyond {:.3g}", numbers_, tensors,
                              largest_));
    }
  }
  bool bad() const { return !broken_.empty() || !zero_.empty(); }

 private:
  // A damaged file breaks many tensors: one problem.
  void Problem(const std::vector<std::string>& tensors, const char* what) {
    if (tensors.empty()) return;
    found_->Add("weights", Finding::kProblem,
                tensors.size() == 1
                    ? tensors[0]
                    : fmt::format("{} in {} tensors: {}", what, tensors.size(), Some(tensors, "; ")));
  }
  // One line each would fill a screen.
  void Warn(std::string message) {
    constexpr size_t kTold = 10;
    if (++warnings_ <= kTold) found_->Add("weights", Finding::kWarning, std::move(message));
    if (warnings_ == kTold + 1) found_->Add("weights", Finding::kWarning, "more of this kind, not listed");
  }

  Verification* found_;
  size_t warnings_ = 0;
  double largest_ = 0.0;
  int64_t numbers_ = 0;
  std::map<std::string, std::vector<std::pair<std::string, double>>> kinds_;
  std::vector<std::string> broken_, zero_, zero_rows_;
};

// Of a file or folder that is read as its config says, and how many tensors it has. A failure: its headers
// cannot be read.
Result<convert::TensorListing> ListModel(const Path& model, const model::Config& config, size_t* in_file) {
  if (model::IsGgufFile(model)) {
    Result<io::Gguf> gguf = io::Gguf::Open(model);
    if (!gguf.ok()) return gguf.failure();
    *in_file = gguf.value().tensors().size();
    return convert::ListTensors(std::make_shared<const io::Gguf>(std::move(gguf).value()), config);
  }
  const Result<io::Safetensors> file = io::Safetensors::OpenFolder(model);
  if (!file.ok()) return file.failure();
  *in_file = file.value().tensors().size();
  return convert::ListTensors(file.value(), model, config);
}

// What of the headers is not as the config asks for. False: the model cannot be read so.
bool AddListing(const convert::TensorListing& listing, size_t in_file, Verification* found) {
  const auto problem = [&](const std::string& message) { found->Add("tensors", Finding::kProblem, message); };
  if (!listing.missing.empty()) {
    problem(fmt::format("{} missing: {}", listing.missing.size(), Some(listing.missing)));
  }
  std::vector<std::string> wrong, unexpected;
  for (const convert::WrongTensor& tensor : listing.wrong) {
    wrong.push_back(tensor.message);
    if (model::IsTable(tensor.role)) found->vocabulary = false;
  }
  if (wrong.size() == 1) problem(wrong[0]);
  if (wrong.size() > 1) {
    problem(fmt::format("{} are not what the config asks for: {}", wrong.size(), Some(wrong, "; ")));
  }
  // What a GGUF file has beyond its config, model::ConfigWarnings names.
  for (const convert::SourceTensor& tensor : listing.tensors) {
    if (!tensor.kept.empty() && !IsOfRope(tensor.name)) unexpected.push_back(tensor.name);
  }
  if (!unexpected.empty()) {
    found->Add("tensors", Finding::kWarning,
               fmt::format("{} that this model does not use: {}", unexpected.size(), Some(unexpected)));
  }
  if (!listing.missing.empty() || !wrong.empty()) return false;
  const auto right = std::count_if(listing.tensors.begin(), listing.tensors.end(),
                                   [](const convert::SourceTensor& tensor) { return tensor.kept.empty(); });
  found->Add("tensors", Finding::kOk,
             fmt::format("all {} weights and biases are there, in the right shapes ({} tensors in the file)",
                         right, in_file));
  return true;
}

}  // namespace

bool VerifyTensors(const Path& model, Verification* found) {
  std::vector<std::string> warnings;
  // A GGUF file's config stands in front of its tensors: where those are wrong it is not the config's fault.
  if (model::IsGgufFile(model)) {
    const Result<io::Gguf> gguf = io::Gguf::Open(model);
    if (!gguf.ok()) {
      found->Add("config", Finding::kSkipped, "the file cannot be read");
      found->AddUnread("tensors", gguf.failure().message);
      return false;
    }
    warnings = model::ConfigWarnings(gguf.value());
  }
  const Result<model::Config> read = model::ReadConfig(model);
  if (!read.ok()) {
    found->AddUnread("config", read.failure().message);
    found->Add("tensors", Finding::kSkipped, "the config cannot be used");
    return false;
  }
  const model::Config& config = read.value();
  found->Add("config", Finding::kOk,
             fmt::format("{}: {} layers, hidden size {}, vocabulary {}, context {}", config.family, config.L,
                         config.C, config.V, config.context));
  for (const std::string& warning : warnings) found->Add("config", Finding::kWarning, warning);
  size_t in_file = 0;
  const Result<convert::TensorListing> listing = ListModel(model, config, &in_file);
  if (!listing.ok()) {
    found->AddUnread("tensors", listing.failure().message);
    return false;
  }
  return AddListing(listing.value(), in_file, found);
}

bool VerifyWeights(const Path& model, const VerifyProgress& on_progress, Verification* found) {
  WeightFindings findings(found);
  try {
    convert::TensorReader source(model);
    size_t done = 0;
    for (const convert::SourceTensor& tensor : source.tensors()) {
      if (tensor.kept.empty()) findings.Take(tensor, Walk(source, tensor));
      if (on_progress && !on_progress("weights", ++done, source.tensors().size())) {
        throw Error(ExitCode::kInterrupted, "interrupted");
      }
    }
    findings.Finish(source.tensors().size());
  } catch (const Error& error) {
    if (error.code() == ExitCode::kInterrupted) throw;
    found->Add("weights", Finding::kProblem, error.what());
    return false;
  }
  return !findings.bad();
}

}  // namespace rung::verify
