#include "ops/products.h"

#include <vector>

#include "kernels/cpu/dense.h"
#include "kernels/cpu/head_loss.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/rows.h"
#include "ops/common.h"

namespace rung::ops {
namespace {

// Products of bf16 read x[n,K] too where K is odd. That it is zero is a value: no plan can check it.
bool HasWholePairs(const Tensor& x) {
  return x.dtype != DType::kBf16 || x.cols() % 2 == 0 || x.stride > x.cols();
}

void ProjectInto(Exec& ex, In x, In weight, const Tensor& y, bool add) {
  const int64_t N = x.t.rows(), K = x.t.cols(), O = weight.t.rows();
  RUNG_CHECK(weight.t.cols() == K, "project: weight must be (O,K)");
  RUNG_CHECK(y.rows() == N && y.cols() == O, "project: y must be (N,O)");
  const double flops = 2.0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(O);
  ex.Launch("project", {flops, 0}, {y}, [&] {
    cpu::Dense(ex.cpu(), x.as<float>(), x.t.stride, weight.as<float>(), weight.t.stride, N, K, O, add,
               Out{y}.as<float>(), y.stride);
  });
}

void ProjectGradInputInto(Exec& ex, In dy, In weight, const Tensor& dx, bool add) {
  const int64_t N = dy.t.rows(), O = dy.t.cols(), K = weight.t.cols();
  RUNG_CHECK(weight.t.rows() == O, "project_grad_input: weight must be (O,K)");
  RUNG_CHECK(dx.rows() == N && dx.cols() == K, "project_grad_input: dx must be (N,K)");
  const double flops = 2.0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(O);
  ex.Launch("project_grad_input", {flops, 0}, {dx}, [&] {
    cpu::DenseGradInput(ex.cpu(), dy.as<float>(), dy.t.stride, weight.as<float>(), weight.t.stride, N, K, O,
                        add, Out{dx}.as<float>(), dx.stride);
  });
}

cpu::Product::Store StoreOf(const FrozenProduct& product, DType compute) {
  using Store = cpu::Product::Store;
  const DType out = product.out.dtype;
  if (product.add) return out == DType::kF32 ? Store::kAddF32 : Store::kAddCompute;
  return out == compute ? Store::kCompute : Store::kF32;
}

void ProjectFrozenGradInputInto(Exec& ex, In dy, const format::Matrix& weight, const Tensor& dx, bool add) {
  const int64_t N = dy.t.rows(), O = weight.rows, K = weight.cols;
  RUNG_CHECK(dy.t.dtype == ex.compute(), "project_frozen_grad_input: dy must have the compute type");
  RUNG_CHECK(dy.t.cols() == O, "project_frozen_grad_input: weight must be (O,K)");
  RUNG_CHECK(dx.rows() == N && dx.cols() == K, "project_frozen_grad_input: dx must be (N,K)");
  const Cost cost{2.0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(O),
                  static_cast<double>(format::TotalBytes(weight))};
  Frame frame(ex.arena());
  std::byte* scratch =
      KernelScratch(ex, cpu::ProjectGradInputScratch(ex.cpu(), SizeOf(ex.compute()), N, weight),
                    Use::kBackbone, "panels of frozen gradients");
  ex.Launch("project_frozen_grad_input", cost, {dx}, [&] {
    OnElementsOf(dy, [&](const auto* from) {
      cpu::ProjectGradInput(ex.cpu(), from, dy.t.stride, N, weight, add, Out{dx}.as<float>(), dx.stride,
                            scratch);
    });
  });
}

}  // namespace

format::Matrix AsMatrix(const Tensor& weight) {
  RUNG_CHECK(weight.dtype == DType::kF32 && weight.contiguous(), "a matrix must be f32 and contiguous");
  return {format::Format::kF32, weight.rows(), weight.cols(), weight.data, {}, {}};
}

void ProjectFrozen(Exec& ex, In x, std::span<const FrozenProduct> products) {
  const int64_t N = x.t.rows(), K = x.t.cols();
  RUNG_CHECK(x.t.dtype == ex.compute(), "project_frozen: x must have the compute type");
  RUNG_CHECK(HasWholePairs(x.t), "project_frozen: bf16 x of odd K must have a column more in memory");
  Cost cost;
  std::vector<cpu::Product> jobs;
  std::vector<Tensor> written;
  for (const FrozenProduct& product : products) {
    const format::Matrix& w = *product.weight;
    RUNG_CHECK(w.cols == K, "project_frozen: weight must be (O,K)");
    RUNG_CHECK(product.out.rows() == N && product.out.cols() == w.rows, "project_frozen: out must be (N,O)");
    RUNG_CHECK(product.out.dtype == DType::kF32 || product.out.dtype == ex.compute(),
               "project_frozen: out must have the compute type or be f32");
    cost.flops += 2.0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(w.rows);
    cost.bytes += static_cast<double>(format::TotalBytes(w));
    if (ex.watched()) written.push_back(product.out);
    jobs.push_back(
        {product.weight, product.bias, StoreOf(product, ex.compute()), product.out.data, product.out.stride});
  }
  Frame frame(ex.arena());
  std::byte* scratch = KernelScratch(ex, cpu::ProjectScratch(ex.cpu(), SizeOf(ex.compute()), N, K),
                                     Use::kBackbone, "panels of frozen products");
  ex.Launch("project_frozen", cost, std::span<const Tensor>(written), [&] {
    OnElementsOf(x, [&](const auto* from) {
      cpu::Project(ex.cpu(), from, x.t.stride, N, std::span<const cpu::Product>(jobs), scratch);
    });
  });
}

void ProjectFrozenGradInput(Exec& ex, In dy, const format::Matrix& weight, Out dx) {
  ProjectFrozenGradInputInto(ex, dy, weight, dx.t, false);
}
void ProjectFrozenGradInput(Exec& ex, In dy, const format::Matrix& weight, Acc dx) {
  ProjectFrozenGradInputInto(ex, dy, weight, dx.t, true);
}

void Project(Exec& ex, In x, In weight, Out y) { ProjectInto(ex, x, weight, y.t, false); }
void Project(Exec& ex, In x, In weight, Acc y) { ProjectInto(ex, x, weight, y.t, true); }
void ProjectGradInput(Exec& ex, In dy, In weight, Out dx) {
  ProjectGradInputInto(ex, dy, weight, dx.t, false);
}
void ProjectGradInput(Exec& ex, In dy, In weight, Acc dx) {
  ProjectGradInputInto(ex, dy, weight, dx.t, true);
}

void ProjectGradWeight(Exec& ex, In dy, In x, Acc dweight) {
  const int64_t N = dy.t.rows(), O = dy.t.cols(), K = x.t.cols();
  RUNG_CHECK(x.t.rows() == N, "project_grad_weight: x must be (N,K)");
  RUNG_CHECK(dweight.t.rows() == O && dweight.t.cols() == K, "project_grad_weight: dW must be (O,K)");
  const double flops = 2.0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(O);
  ex.Launch("project_grad_weight", {flops, 0}, {dweight.t}, [&] {
    cpu::DenseGradWeight(ex.cpu(), dy.as<float>(), dy.t.stride, x.as<float>(), x.t.stride, N, K, O, true,
                         dweight.as<float>(), dweight.t.stride);
  });
}

void Decode(Exec& ex, const format::Matrix& matrix, Out out) {
  RUNG_CHECK(out.t.rows() == matrix.rows && out.t.cols() == matrix.cols, "decode: out must be (O,K)");
  ex.Launch("decode", {}, {out.t},
            [&] { cpu::DecodeMatrix(ex.cpu(), matrix, out.as<float>(), out.t.stride); });
}

void Embed(Exec& ex, In ids, const format::Matrix& embedding, float scale, Out x) {
  const int64_t N = ids.t.cols();
  RUNG_CHECK(x.t.rows() == N && x.t.cols() == embedding.cols, "embed: x must be (N,C)");
  ex.Launch("embed", {}, {x.t}, [&] {
    cpu::EmbedRows(ex.cpu(), embedding, ids.as<int32_t>(), N, x.as<float>(), x.t.stride);
    if (scale != 1.0f) {
      cpu::Axpby(ex.cpu(), 0.0f, x.as<float>(), x.t.stride, scale, x.as<float>(), x.t.stride, N, x.t.cols());
    }
  });
}

void HeadLoss(Exec& ex, In x, const format::Matrix& head, float cap, In target, Out loss, const Out* dx,
              const Out* best) {
  const int64_t M = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(head.cols == C, "head_loss: head must be (V,C)");
  RUNG_CHECK(HasWholePairs(x.t), "head_loss: bf16 x of odd C must have a column more in memory");
  RUNG_CHECK(target.t.cols() == M && loss.t.cols() == M, "head_loss: target and loss must be (1,M)");
  RUNG_CHECK(!dx || (dx->t.rows() == M && dx->t.cols() == C), "head_loss: dx must be (M,C)");
  RUNG_CHECK(!best || IsVector(best->t, M), "head_loss: best must be (1,M)");
  RUNG_CHECK(cap >= 0.0f, "head_loss: the cap must be positive, or 0 for none");
  const double product =
      2.0 * static_cast<double>(M) * static_cast<double>(C) * static_cast<double>(head.rows);
  Frame frame(ex.arena());
  std::byte* scratch = KernelScratch(
      ex, cpu::HeadLossScratch(ex.cpu(), SizeOf(x.t.dtype), M, C, dx != nullptr), Use::kHead, "head loss");
  ex.Launch("head_loss", {dx ? 2.0 * product : product, static_cast<double>(format::TotalBytes(head))},
            {loss.t, dx ? dx->t : Tensor{}}, [&] {
              float* gradient = dx ? dx->as<float>() : nullptr;
              const int64_t lddx = dx ? dx->t.stride : 0;
              int32_t* top = best ? best->as<int32_t>() : nullptr;
              OnElementsOf(x, [&](const auto* from) {
                cpu::HeadLoss(ex.cpu(), from, x.t.stride, M, head, cap, target.as<int32_t>(),
                              loss.as<float>(), gradient, lddx, top, scratch);
              });
            });
}

}  // namespace rung::ops
