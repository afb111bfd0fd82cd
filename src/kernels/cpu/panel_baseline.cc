#include "kernels/cpu/panel_table.h"

namespace rung::cpu {
namespace {

// Four floats as the compilers' own vector type: they keep an array of these in registers, of structs they do
// not.
struct Vec4 {
  typedef float Lanes __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  Lanes x;

  RUNG_INLINE static Vec4 Set(float a) { return {Lanes{a, a, a, a}}; }
  RUNG_INLINE static Vec4 Load(const float* p) {
    Vec4 v;
    __builtin_memcpy(&v.x, p, sizeof(v.x));
    return v;
  }
  RUNG_INLINE static Vec4 LoadPart(const float* p, int64_t n) {
    Vec4 v = Set(0.0f);
    for (int64_t i = 0; i < n; ++i) v.x[i] = p[i];
    return v;
  }
  RUNG_INLINE void Store(float* p) const { __builtin_memcpy(p, &x, sizeof(x)); }
  RUNG_INLINE void StorePart(float* p, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) p[i] = x[i];
  }
  RUNG_INLINE static Vec4 Add(Vec4 a, Vec4 b) { return {a.x + b.x}; }
  RUNG_INLINE float Sum() const { return (x[0] + x[1]) + (x[2] + x[3]); }
};

struct Core {
  using T = float;
  using V = Vec4;
  using Reg = Vec4;
  static constexpr int kDword = 1, kRows = 4, kVecs = 2, kRegisters = 16;

  RUNG_INLINE static Reg Zero() { return V::Set(0.0f); }
  RUNG_INLINE static Reg Load(const float* p) { return V::Load(p); }
  RUNG_INLINE static void Store(float* p, Reg a) { a.Store(p); }
  RUNG_INLINE static Reg Round(const float* p) { return V::Load(p); }
  RUNG_INLINE static Reg Broadcast(const float* p) { return V::Set(*p); }
  RUNG_INLINE static Reg Column(const float* src, int64_t) { return V::Load(src); }
  RUNG_INLINE static V Dot(V sum, Reg a, Reg b) { return {sum.x + a.x * b.x}; }
  RUNG_INLINE static void Transpose(Reg* r) {
    for (int i = 0; i < 4; ++i) {
      for (int j = i + 1; j < 4; ++j) {
        const float swapped = r[i].x[j];
        r[i].x[j] = r[j].x[i];
        r[j].x[i] = swapped;
      }
    }
  }
};

using R = ReferenceLoader<Core>;
using Formats = FormatTable<Core, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R, R>;

}  // namespace

constinit const PanelKernels<float> kPanelBaseline = MakePanelKernels<Core, Formats>();

}  // namespace rung::cpu
