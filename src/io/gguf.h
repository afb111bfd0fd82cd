// GGUF version 2 and 3 files: metadata and tensors of llama.cpp's model files, read in place from a mapping.
// Format: docs/formats/gguf.md. Every count is checked against the file's size before anything is allocated.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/files.h"
#include "base/result.h"

namespace rung::io {

// Arrays are kept as one vector of the element's widest kind.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;

// A value as the file has it: the number of its kind, and behind it the bytes, for an array with the kind and
// number of its elements before them.
struct GgufRawValue {
  uint32_t type = 0;
  std::span<const std::byte> bytes;
};

struct GgufTensor {
  std::string name;
  int type = 0;                     // ggml type number
  std::vector<int64_t> dims;        // ggml order: dims[0] is the contiguous one; 1 to 4 of them, all > 0
  std::span<const std::byte> data;  // exactly the tensor's bytes, inside the mapping
};

// How a ggml type stores numbers: `block_bytes` for every `block` of them. The name is lower case, as in
// "q4_k".
struct GgmlType {
  std::string_view name;
  int64_t block, block_bytes;
};
// nullopt for numbers that ggml does not use, or no longer.
std::optional<GgmlType> GgmlTypeOf(int type);

// All files of the model that `path` is, or is a part of by its name; whether they exist is not looked at.
std::vector<Path> GgufFiles(const Path& path);

class Gguf {
 public:
  // Of a model in several files, as gguf-split cuts them, any part stands for all.
  static Result<Gguf> Open(const Path& path);
  // For tests and fuzzing: parses bytes that outlive the object. `name` stands in messages.
  static Result<Gguf> Parse(std::span<const std::byte> bytes, std::string name);
  // The parts of one model, in their order: the metadata of the first, the tensors of all.
  static Result<Gguf> Join(std::vector<Gguf> parts);

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  // Of every key of `metadata`, inside the mapping.
  const std::map<std::string, GgufRawValue, std::less<>>& raw_metadata() const { return raw_metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* Find(std::string_view name) const;  // nullptr when absent
  const std::string& name() const { return name_; }     // the path (of the first part), for messages

  // Typed look-ups. Any integer kind (and bool) serves GetInt, any number GetFloat; nullopt when the key is
  // absent or of another kind.
  std::optional<int64_t> GetInt(std::string_view key) const;
  std::optional<double> GetFloat(std::string_view key) const;
  std::optional<bool> GetBool(std::string_view key) const;
  const std::string* GetString(std::string_view key) const;
  const std::vector<std::string>* GetStrings(std::string_view key) const;
  const std::vector<int64_t>* GetInts(std::string_view key) const;
  const std::vector<double>* GetFloats(std::string_view key) const;

 private:
  static Result<Gguf> OpenOne(const Path& path);

  std::string name_;
  std::vector<MappedFile> files_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufRawValue, std::less<>> raw_metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace rung::io
