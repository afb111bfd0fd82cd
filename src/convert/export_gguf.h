// Low-rank pairs as llama.cpp reads them (llama-cli --lora FILE; docs/formats/adapter.md).
#pragma once

#include "base/files.h"

namespace rung::convert {

struct ExportOptions {
  Path model, adapter, out;  // the model's header alone is read
};
struct ExportResult {
  int64_t pairs = 0;
  uint64_t bytes = 0;
};

// Throws Error; refused (kUsage) are a ladder, and an `out` that is there or inside the adapter. The file is
// complete or not there.
ExportResult ExportGguf(const ExportOptions& options);

}  // namespace rung::convert
