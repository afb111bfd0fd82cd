#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/clock.h"
#include "infer/stop_watch.h"

namespace rung::infer {
namespace {

bool Ends(const text::Tokenizer& tokenizer, int32_t id) {
  const std::vector<int32_t>& ends = tokenizer.end_ids();
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

// Special tokens are not text, wherever the model puts one.
std::string PushText(text::StreamDecoder& decoder, const text::Tokenizer& tokenizer, int32_t id) {
  return tokenizer.IsSpecial(id) ? "" : decoder.Push(id);
}

bool IsSet(const std::atomic<bool>* flag) { return flag && flag->load(); }

double Rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// One generation in progress.
struct Active {
  size_t prompt = 0;  // which
  int64_t slot = 0;
  size_t fed = 0;    // ids of the prompt that are in the cache
  int32_t next = 0;  // the id to be fed once the prompt is
  StopWatch watch;
  text::StreamDecoder decoder;
};

// Many generations that share the calls of one session.
class Crowd {
 public:
  Crowd(Session& session, const text::Tokenizer& tokenizer, const std::vector<std::vector<int32_t>>& prompts,
        const GenerateOptions& options)
      : session_(session),
        tokenizer_(tokenizer),
        prompts_(prompts),
        options_(options),
        sampler_(options.sample),
        results_(prompts.size()) {
    for (int64_t slot = session.slots() - 1; slot >= 0; --slot) free_.push_back(slot);
  }

  bool busy() const { return waiting_ < prompts_.size() || !active_.empty(); }
  size_t done() const { return waiting_ - active_.size(); }

  // One call of the session.
  void Step() {
    FillSlots();
    // A token of each that is generating first; prompts share the rows that are left.
    std::vector<Advance> advances;
    std::vector<size_t> whose;
    int64_t rows = 0;
    for (size_t i = 0; i < active_.size(); ++i) {
      if (!Fed(*active_[i])) continue;
      advances.push_back({active_[i]->slot, {&active_[i]->next, 1}});
      whose.push_back(i);
      ++rows;
    }
    for (size_t i = 0; i < active_.size() && rows < kPrefillChunk; ++i) {
      Active& a = *active_[i];
      if (Fed(a)) continue;
      const std::span<const int32_t> rest = std::span(prompts_[a.prompt]).subspan(a.fed);
      const auto count =
          static_cast<int64_t>(std::min(rest.size(), static_cast<size_t>(kPrefillChunk - rows)));
      advances.push_back({a.slot, rest.first(static_cast<size_t>(count))});
      whose.push_back(i);
      a.fed += static_cast<size_t>(count);
      rows += count;
    }
    const Tensor logits = session_.Step(advances);
    for (size_t row = 0; row < whose.size(); ++row) {
      Active& a = *active_[whose[row]];
      if (Fed(a)) Take(a, In(logits.Rows(static_cast<int64_t>(row), 1)).as<float>(), logits.cols());
    }
    std::erase_if(active_, [&](const std::unique_ptr<Active>& a) {
      if (results_[a->prompt].finish_reason.empty()) return false;
      free_.push_back(a->slot);
      return true;
    });
  }

  std::vector<Generation> Results() {
    for (Generation& g : results_) {
      if (g.finish_reason.empty()) g.finish_reason = "interrupted";
    }
    return std::move(results_);
  }

 private:
  bool Fed(const Active& a) const { return a.fed == prompts_[a.prompt].size(); }

  void FillSlots() {
    for (; waiting_ < prompts_.size() && !free_.empty(); ++waiting_) {
      RUNG_CHECK(!prompts_[waiting_].empty(), "generate: a prompt needs at least one id");
      const int64_t slot = free_.back();
      free_.pop_back();
      session_.Clear(slot);
      results_[waiting_].prompt_tokens = static_cast<int64_t>(prompts_[waiting_].size());
      active_.push_back(
          std::make_unique<Active>(Active{waiting_, slot, 0, 0, StopWatch(options_.stop),
                                          text::StreamDecoder(tokenizer_, options_.continues)}));
    }
  }

  // The next token of a generation from its logits.
  void Take(Active& a, const float* logits, int64_t V) {
    Generation& g = results_[a.prompt];
    const auto made = static_cast<int64_t>(g.ids.size());
    bool stopped = false;
    if (made < options_.max_tokens) {
      a.next = sampler_.Pick(logits, V, g.ids.size());
      stopped = Ends(tokenizer_, a.next);
      if (!stopped) {
        g.ids.push_back(a.next);
        g.text += a.watch.Push(PushText(a.decoder, tokenizer_, a.next), &stopped);
        if (stopped) {
          g.finish_reason = "stop";
          return;
        }
      }
    }
    const bool full = static_cast<int64_t>(g.ids.size()) >= options_.max_tokens ||
                      session_.length(a.slot) == session_.capacity();
    if (!stopped && !full) return;
    bool stop_text = false;
    g.text += a.watch.Push(a.decoder.Finish(), &stop_text);
    if (!stop_text) g.text += a.watch.Rest();
    g.finish_reason = stopped || stop_text ? "stop" : "length";
  }

  Session& session_;
  const text::Tokenizer& tokenizer_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerateOptions& options_;
  Sampler sampler_;
  std::vector<Generation> results_;
  std::vector<std::unique_ptr<Active>> active_;
  std::vector<int64_t> free_;
  size_t waiting_ = 0;  // prompts before it have been started
};

}  // namespace

double Generation::tokens_per_second() const {
  return Rate(static_cast<int64_t>(ids.size()), decode_seconds);
}
double Generation::prefill_tokens_per_second() const { return Rate(prompt_tokens, prefill_seconds); }

Generation Generate(Session& session, const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(const std::string&)>& on_text,
                    const std::atomic<bool>* interrupt) {
  RUNG_CHECK(!prompt.empty(), "generate: a prompt needs at least one id");
  Generation result;
  result.prompt_tokens = static_cast<int64_t>(prompt.size());
  session.Clear(0);
  Sampler sampler(options.sample);
  text::StreamDecoder decoder(tokenizer, options.continues);
  StopWatch watch(options.stop);
  const auto emit = [&](const std::string& text) {
    result.text += text;
    if (on_text && !text.empty()) on_text(text);
  };

  const auto begin = std::chrono::steady_clock::now();
  Tensor logits;
  for (size_t fed = 0; fed < prompt.size() && !IsSet(interrupt);) {
    const size_t count = std::min(static_cast<size_t>(kPrefillChunk), prompt.size() - fed);
    const Advance part{0, prompt.subspan(fed, count)};
    logits = session.Step({&part, 1});
    fed += count;
  }
  result.prefill_seconds = SecondsSince(begin);
  const auto decoding = std::chrono::steady_clock::now();
  bool stop_text = false;
  result.finish_reason = "length";
  while (static_cast<int64_t>(result.ids.size()) < options.max_tokens) {
    if (IsSet(interrupt)) {
      result.finish_reason = "interrupted";
      break;
    }
    const int32_t id = sampler.Pick(In(logits).as<float>(), logits.cols(), result.ids.size());
    if (Ends(tokenizer, id)) {
      result.finish_reason = "stop";
      break;
    }
    result.ids.push_back(id);
    emit(watch.Push(PushText(decoder, tokenizer, id), &stop_text));
    if (stop_text || session.length(0) == session.capacity()) break;
    if (static_cast<int64_t>(result.ids.size()) == options.max_tokens) break;
    const Advance one{0, {&id, 1}};
    logits = session.Step({&one, 1});
  }
  result.decode_seconds = SecondsSince(decoding);
  if (!stop_text) emit(watch.Push(decoder.Finish(), &stop_text));
  if (stop_text) {
    result.finish_reason = "stop";
  } else {
    emit(watch.Rest());
  }
  return result;
}

std::vector<Generation> GenerateMany(Session& session, const text::Tokenizer& tokenizer,
                                     const std::vector<std::vector<int32_t>>& prompts,
                                     const GenerateOptions& options,
                                     const std::function<void(size_t done)>& on_progress,
                                     const std::atomic<bool>* interrupt) {
  Crowd crowd(session, tokenizer, prompts, options);
  while (crowd.busy() && !IsSet(interrupt)) {
    crowd.Step();
    if (on_progress) on_progress(crowd.done());
  }
  return crowd.Results();
}

}  // namespace rung::infer
