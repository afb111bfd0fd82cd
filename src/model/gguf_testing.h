// For tests: a GGUF file that says something else than another one.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace rung::model {

struct GgufChanges {
  io::GgufFields fields = {};  // in the place of those of the same name, or new
  std::vector<std::pair<std::string, int64_t>> vectors = {};  // further tensors: names and lengths, f32 ones
};

// `from` as `to`, with the changes.
inline void WriteChanged(const Path& from, const Path& to, const GgufChanges& changes) {
  const io::Gguf gguf = io::Gguf::Open(from).OrThrow();
  io::GgufFields fields = changes.fields;
  for (const auto& [key, value] : gguf.raw_metadata()) {
    const auto same = [&, name = key](const auto& field) { return field.first == name; };
    if (std::none_of(fields.begin(), fields.end(), same)) fields.emplace_back(key, value);
  }
  std::vector<io::GgufLayout> layouts;
  for (const io::GgufTensor& tensor : gguf.tensors())
    layouts.push_back({tensor.name, tensor.type, tensor.dims});
  for (const auto& [name, length] : changes.vectors) layouts.push_back({name, 0, {length}});
  io::GgufWriter writer = io::GgufWriter::Create(to, fields, layouts).OrThrow();
  for (size_t i = 0; i < gguf.tensors().size(); ++i) writer.Write(i, 0, gguf.tensors()[i].data).OrThrow();
  for (size_t i = 0; i < changes.vectors.size(); ++i) {
    const std::vector<float> ones(static_cast<size_t>(changes.vectors[i].second), 1.0f);
    writer.Write(gguf.tensors().size() + i, 0, std::as_bytes(std::span(ones))).OrThrow();
  }
  writer.Commit().OrThrow();
}

}  // namespace rung::model
