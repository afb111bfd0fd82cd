#include "kernels/cpu/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/threads.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {
namespace {

constexpr double kSeconds = 0.2;
// Beyond any level-3 cache that few cores share.
constexpr int64_t kStreamWords = int64_t{256} * 1024 * 1024 / 8;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The best rate of `work`, which returns how much it did, over about kSeconds.
template <class Work>
double BestRate(const Work& work) {
  work();
  double best = 0.0;
  const double end = Now() + kSeconds;
  for (double begin = Now(); begin < end;) {
    const double done = work();
    const double now = Now();
    best = std::max(best, done / (now - begin));
    begin = now;
  }
  return best;
}

// Independent sums, so that loads and not additions set the pace.
uint64_t SumOf(const uint64_t* words, int64_t count) {
  uint64_t sum[16] = {};
  for (int64_t i = 0; i + 16 <= count; i += 16) {
    for (int64_t j = 0; j < 16; ++j) sum[j] += words[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t s : sum) total += s;
  return total;
}

}  // namespace

template <class T>
double MeasurePeakFlops(const Context& context) {
  const PanelKernels<T>* kernels = PanelFor<T>(context.isa);
  if (!kernels) return 0.0;
  constexpr int64_t kRounds = 100000;  // a millisecond or so
  std::vector<double> flops(static_cast<size_t>(context.threads));
  return BestRate([&] {
    OnEachThread(context.threads,
                 [&](int thread) { flops[static_cast<size_t>(thread)] = kernels->spin(kRounds); });
    double sum = 0.0;
    for (const double f : flops) sum += f;
    return sum;
  });
}

template double MeasurePeakFlops<float>(const Context&);
template double MeasurePeakFlops<Bf16>(const Context&);

double MeasureStreamBandwidth(const Context& context) {
  const auto words = std::make_unique_for_overwrite<uint64_t[]>(static_cast<size_t>(kStreamWords));
  // Written, each part by its reader: memory never written may all be one page of zeros.
  OnEachThread(context.threads, [&](int thread) {
    const Share share = ShareOf(kStreamWords, thread, context.threads, 16);
    for (int64_t i = share.begin; i < share.end; ++i)
      words[static_cast<size_t>(i)] = static_cast<uint64_t>(i);
  });
  return BestRate([&] {
    OnEachThread(context.threads, [&](int thread) {
      const Share share = ShareOf(kStreamWords, thread, context.threads, 16);
      volatile uint64_t sink = SumOf(words.get() + share.begin, share.end - share.begin);
      static_cast<void>(sink);
    });
    return static_cast<double>(kStreamWords) * 8.0;
  });
}

}  // namespace rung::cpu
