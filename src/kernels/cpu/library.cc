#include "kernels/cpu/library.h"

#include <dnnl.h>

namespace rung::cpu {

std::string OneDnnVersion() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

}  // namespace rung::cpu
