// Matrices that end where their mapping does, as the last tensor of a file may, or begin where it does: no
// kernel reads a byte beyond. With or without sanitizers, which do not see gathers and masked loads.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <type_traits>

#include "base/error.h"
#include "kernels/cpu/panel_testing.h"

namespace rung::cpu {
namespace {

enum class Place : uint8_t { kStart, kEnd };

// A copy of an array in pages of its own between pages that nobody may touch.
class Guarded {
 public:
  Guarded(const void* from, int64_t bytes, Place place) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), size = static_cast<size_t>(bytes);
    const size_t inner = (size + page - 1) / page * page;
    bytes_ = inner + 2 * page;
    base_ = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RUNG_CHECK(base_ != MAP_FAILED, "no memory for guarded pages");
    std::byte* first = static_cast<std::byte*>(base_) + page;
    if (inner == 0) return;
    RUNG_CHECK(mprotect(first, inner, PROT_READ | PROT_WRITE) == 0, "pages cannot be opened");
    at_ = place == Place::kStart ? first : first + (inner - size);
    std::memcpy(at_, from, size);
  }
  ~Guarded() { munmap(base_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  template <class T>
  T* data() const {
    return reinterpret_cast<T*>(at_);
  }

 private:
  void* base_ = nullptr;
  size_t bytes_ = 0;
  std::byte* at_ = nullptr;
};

// The same matrix, each of its arrays guarded.
class GuardedMatrix {
 public:
  GuardedMatrix(const format::Matrix& m, Place place)
      : view_(m), data_(m.data, format::DataBytes(m.format, m.rows, m.cols), place) {
    view_.data = data_.data<std::byte>();
    const auto move = [&](auto** array, int64_t count) {
      if (!*array) return;
      using T = std::remove_cvref_t<decltype(**array)>;
      *array = arrays_.emplace_back(std::make_unique<Guarded>(*array, count * int64_t{sizeof(T)}, place))
                   ->template data<const T>();
    };
    const int64_t blocks = (m.rows * m.cols + 63) / 64;
    move(&view_.scales.absmax, m.scales.codes ? (blocks + 255) / 256 : blocks);
    move(&view_.scales.codes, blocks);
    move(&view_.scales.map, 256);
    move(&view_.tiles.scale, (m.rows + m.tiles.rows - 1) / m.tiles.rows * m.tiles.groups);
    move(&view_.tiles.zero, m.rows * m.tiles.groups);
    move(&view_.tiles.index, m.cols);
  }
  const format::Matrix& view() const { return view_; }

 private:
  format::Matrix view_;
  Guarded data_;
  std::vector<std::unique_ptr<Guarded>> arrays_;
};

template <class T>
void ExpectDecodes(const PanelKernels<T>& kernels, const format::Matrix& matrix,
                   const std::vector<float>& expected) {
  std::vector<T> rows(expected.size());
  kernels.decode_rows(matrix, 0, matrix.rows, rows.data(), matrix.cols);
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(BitsOf(rows[i]), BitsOf(To<T>(expected[i]))) << i;
  Panel<T> panel(matrix.cols);
  for (int64_t r = 0; r < matrix.rows; r += kPanelRows) {
    kernels.decode_panel(matrix, r, std::min(kPanelRows, matrix.rows - r), panel.data());
  }
}

// The inputs are guarded too.
template <class T>
void ExpectMultiplies(const PanelKernels<T>& kernels, const format::Matrix& matrix, Place place) {
  const int64_t K = matrix.cols;
  for (int64_t N = 1; N <= kFewRows; ++N) {
    const Guarded A(Numbers<T>(N * K, 8).data(), N * K * int64_t{sizeof(T)}, place);
    std::vector<float> C(static_cast<size_t>(N * matrix.rows), NAN);
    kernels.multiply_few(A.data<const T>(), K, N, matrix, 0, matrix.rows, C.data(), matrix.rows);
    for (const float value : C) ASSERT_TRUE(std::isfinite(value)) << N << " rows";
  }
}

TEST(PanelGuard, NoKernelReadsBeyondAMatrix) {
  for (const DecodeCase& c : kDecodeCases) {
    SCOPED_TRACE(Name(c));
    const Frozen frozen = Make(c, 15);
    const std::vector<float> expected = frozen.Decode();
    for (const Place place : {Place::kStart, Place::kEnd}) {
      const GuardedMatrix guarded(frozen.view(), place);
      OnEachCore([&](Isa isa, auto type) {
        using T = decltype(type);
        ExpectDecodes<T>(*PanelFor<T>(isa), guarded.view(), expected);
        ExpectMultiplies<T>(*PanelFor<T>(isa), guarded.view(), place);
      });
    }
  }
}

}  // namespace
}  // namespace rung::cpu
