// What is wrong with a data set, record by record: what training would refuse or leave out, and what it would
// learn by mistake.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/data_files.h"
#include "data/encode.h"
#include "data/reader.h"

namespace rung::data {

enum class Defect : uint8_t {
  kBad,          // the row is no record
  kNothing,      // nothing of it is learned
  kEmptyAnswer,  // white space alone is learned
  kLeftOut,      // training would leave it out
  kSpecialText,  // plain text spells a special token
  kUnwritten,    // the template does not write a part of it
  kDuplicate,    // of an earlier record
  kTwoAnswers,   // an earlier record has the same prompt
  kInTraining    // a held-out record whose prompt is trained on
};
const char* NameOf(Defect defect);  // "bad record", "nothing to learn", ...

struct Finding {
  Defect defect;
  std::string file;
  int64_t row = 0;  // 0: of the whole file
  std::string what;
};

struct CheckOptions {
  ReadOptions read;
  Truncation truncation = Truncation::kLeft;
  double valid_fraction = 0.0;
  bool train_on_prompt = false;
  int threads = 1;
};

class Checker {
 public:
  // `encoder` nullptr: only what needs no model is looked at. It outlives the checker. `on_finding` is called
  // in the order of files and rows.
  Checker(const CheckOptions& options, const Encoder* encoder,
          std::function<void(const Finding&)> on_finding);

  // Training files, each as often as its weight says; all of them may be left out by it.
  void Training(std::span<const DataFile> files);
  // Held-out records, behind those of training.
  void HeldOut(const Path& path) { File(path, true); }

  int64_t records() const { return records_; }
  bool clean() const { return clean_; }
  // Training records that others were compared with, and whether these are all.
  size_t compared() const { return contents_.size(); }
  bool compared_all() const { return !full_; }

 private:
  struct Place {
    int32_t file = 0;
    bool held_out = false;
    int64_t row = 0;
  };
  // What can be said of a row alone.
  struct Looked {
    std::optional<Result<Record>> record;
    std::vector<std::pair<Defect, std::string>> defects;
    uint64_t content = 0, prompt = 0;
    int64_t examples = 0;
  };

  void File(const Path& path, bool held_out);
  void Add(Defect defect, int64_t row, std::string what);  // of the last file
  // What is wrong with a file from some row on: "name:row: what" or "name: what".
  void AddUnreadable(std::string_view message);
  void Look(const RawRow& row, const RowReader& reader, Looked* looked) const;
  void LookAsTraining(const Record& record, Looked* looked) const;
  void Take(FileCheck* check, int64_t row, Looked looked, bool held_out_file);  // in the order of the rows
  std::string Name(const Place& place) const;

  CheckOptions options_;
  const Encoder* encoder_;
  std::function<void(const Finding&)> on_finding_;
  std::vector<std::string> files_;
  std::unordered_map<uint64_t, Place> contents_, prompts_;  // of the training files: where first
  bool full_ = false;                                       // there are more records than are remembered
  bool clean_ = true;
  int64_t records_ = 0;
  int64_t examples_ = 0;  // of the last file, for training
};

}  // namespace rung::data
