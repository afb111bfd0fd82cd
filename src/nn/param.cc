#include "nn/param.h"

namespace rung::nn {

ParamStore ParamStore::Planned(const Walk& walk) {
  ParamStore store;
  int64_t n = 0;
  walk([&](Param& param) {
    store.flat_.begins.push_back(n);
    n += param.value.size();
  });
  store.flat_.begins.push_back(n);
  return store;
}

ParamStore::ParamStore(const Walk& walk, bool with_gradients) : ParamStore(Planned(walk)) {
  const int64_t n = flat_.count();
  const size_t bytes = static_cast<size_t>(n) * sizeof(float);
  values_ = std::make_unique<Slab>(bytes);
  flat_.values = View(values_->as<float>(), 1, n);
  if (with_gradients) {
    gradients_ = std::make_unique<Slab>(bytes);
    flat_.gradients = View(gradients_->as<float>(), 1, n);
  }
  int64_t at = 0;
  walk([&](Param& param) {
    const int64_t rows = param.value.rows(), cols = param.value.cols();
    param.value = View(values_->as<float>() + at, rows, cols);
    param.grad = with_gradients ? View(gradients_->as<float>() + at, rows, cols) : Tensor{};
    at += rows * cols;
  });
}

}  // namespace rung::nn
