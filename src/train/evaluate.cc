// Held-out records in a run: evaluations on the way and at the end, the best adapter, and samples of answers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"
#include "infer/generate.h"
#include "model/adapter_file.h"
#include "train/evaluation.h"
#include "train/samples.h"
#include "train/trainer.h"

namespace rung::train {
namespace {

std::string Text(EvalMetric metric, double value) {
  return fmt::format("{} {:.4f}", metric == EvalMetric::kLoss ? "evaluation loss" : NameOf(metric), value);
}

std::span<const infer::Question> FirstOf(const std::vector<infer::Question>& questions, int64_t count) {
  return std::span(questions).first(static_cast<size_t>(count));
}

uint64_t AnswerBytes(const ComputeOptions& compute, const model::Backbone& shape,
                     const model::Adapter& adapter, const infer::AnswerShape& answers) {
  const infer::Session session(compute.context, compute.compute, shape, &adapter, answers.slots,
                               answers.capacity);
  return session.MostBytes(infer::kPrefillChunk);
}

std::span<float> Numbers(model::Adapter* adapter) {
  const Tensor& values = adapter->params().values;
  return {Out{values}.as<float>(), static_cast<size_t>(values.size())};
}

// For the user: what has no room in --max-length.
std::vector<std::string> CutQuestions(const std::vector<infer::Question>& questions,
                                      const infer::AnswerShape& shape, int64_t max_length) {
  const int64_t room = shape.capacity - shape.max_tokens;
  int64_t cut = 0, unanswerable = 0;
  for (const infer::Question& question : questions) {
    cut += static_cast<int64_t>(question.prompt.size()) > room;
    unanswerable += question.expected_tokens > shape.max_tokens;
  }
  const std::string limit = fmt::format("--max-length {} holds a prompt and an answer of up to {} tokens",
                                        max_length, shape.max_tokens);
  std::vector<std::string> lines;
  if (cut > 0) {
    lines.push_back(
        fmt::format("exact_match: {} of {} prompts are cut on their left: {}", cut, questions.size(), limit));
  }
  if (unanswerable > 0) {
    lines.push_back(fmt::format(
        "exact_match: {} of {} expected answers are longer than any that can be given, and count as "
        "wrong: {}",
        unanswerable, questions.size(), limit));
  }
  return lines;
}

}  // namespace

void Trainer::LoadHeldOut() {
  if (eval_data_.examples.empty()) return;
  const int64_t limit = options_.eval.limit;
  if (limit > 0 && limit < eval_data_.examples.size()) {
    std::vector<int64_t> places(static_cast<size_t>(limit));
    std::iota(places.begin(), places.end(), 0);
    eval_data_.examples = eval_data_.examples.Pick(std::move(places));
    eval_data_.rows = data::RowsOf(eval_data_.examples);
  }
  const bool answers = options_.eval.metric == EvalMetric::kExactMatch;
  if (!answers && options_.eval.samples == 0) return;
  questions_ = LoadQuestions(options_, *text_, answers ? limit : options_.eval.samples);
  if (answers && questions_.empty()) {
    throw Error(ExitCode::kUsage, "--eval-metric exact_match: no held-out record expects an answer");
  }
  samples_ = std::min(static_cast<int64_t>(questions_.size()), options_.eval.samples);
}

// The arena of the training step is given back while answers are made: what counts is how much more they
// take.
void Trainer::PlanAnswers(const model::Backbone& shape, const model::Adapter& planned, uint64_t limit) {
  const int64_t positions = options_.max_length;
  uint64_t exact = 0, samples = 0;
  if (options_.eval.metric == EvalMetric::kExactMatch && !questions_.empty()) {
    exact_shape_ =
        infer::ShapeOf(questions_, options_.eval.slots, infer::EnoughTokens(questions_), positions);
    exact = AnswerBytes(options_.compute, shape, planned, exact_shape_);
    for (const std::string& line : CutQuestions(questions_, exact_shape_, options_.max_length)) Note(line);
  }
  if (samples_ > 0) {
    const auto need = [&](int64_t slots) {
      sample_shape_ = infer::ShapeOf(FirstOf(questions_, samples_), slots, kSampleTokens, positions);
      return AnswerBytes(options_.compute, shape, planned, sample_shape_);
    };
    samples = need(samples_);
    if (samples > std::max<uint64_t>(slab_bytes_, exact)) samples = need(1);
    const uint64_t arena = std::max<uint64_t>(slab_bytes_, exact);
    if (samples > arena && limit > 0 && plan_.total() + samples - slab_bytes_ > limit) {
      Note(fmt::format("samples: left out: {} more than the memory that there is",
                       FormatBytes(plan_.total() + samples - slab_bytes_ - limit)));
      samples = 0;
      samples_ = 0;
    }
  }
  const uint64_t most = std::max(exact, samples);
  if (most <= slab_bytes_) return;
  plan_.items.push_back(
      {"generation", most - slab_bytes_,
       fmt::format("key/value caches and arena of {} answers at once, beyond the training step's",
                   exact >= samples ? exact_shape_.slots : sample_shape_.slots),
       exact >= samples ? "--eval-slots, --eval-metric loss" : "--samples 0"});
}

std::optional<std::vector<std::string>> Trainer::Answer(std::span<const infer::Question> questions,
                                                        const infer::AnswerShape& shape,
                                                        const model::Adapter* adapter) {
  const size_t bytes = slab_->bytes();
  exec_.reset();
  slab_.reset();
  std::optional<std::vector<std::string>> answers;
  std::exception_ptr failure;
  try {
    infer::Session session(options_.compute.context, options_.compute.compute, *backbone_, adapter,
                           shape.slots, shape.capacity);
    answers = infer::AnswerAll(session, text_->tokenizer, questions, shape,
                               [&](size_t) { return !interrupt_.load(); });
  } catch (...) {
    failure = std::current_exception();
  }
  Reserve(bytes);
  if (failure) std::rethrow_exception(failure);
  return answers;
}

bool Trainer::EvaluationDue() const {
  return options_.eval_steps > 0 && position_.step > 0 && position_.step < total_steps_ &&
         position_.step % options_.eval_steps == 0 && evaluated_step_ != position_.step;
}

bool Trainer::AnswerExactly(EvalReport* report) {
  report->answers = static_cast<int64_t>(questions_.size());
  report->exact_match = 0.0;
  if (!std::isfinite(report->loss)) return true;  // it says nothing
  try {
    const std::optional<std::vector<std::string>> answers = Answer(questions_, exact_shape_, &*adapter_);
    if (!answers) return false;
    int64_t right = 0;
    for (size_t i = 0; i < questions_.size(); ++i) right += (*answers)[i] == questions_[i].expected;
    report->exact_match = static_cast<double>(right) / static_cast<double>(questions_.size());
  } catch (const Error& error) {
    if (error.code() != ExitCode::kNonFinite) throw;
    Note(fmt::format("evaluation at step {}: no answers: {}", position_.step, error.what()));
  }
  return true;
}

bool Trainer::Evaluate() {
  if (eval_data_.examples.empty() || evaluated_step_ == position_.step) return true;
  const auto begin = std::chrono::steady_clock::now();
  EvalReport report = EvaluateLoss(*exec_, *backbone_, &*adapter_, eval_data_, options_.tokens, &interrupt_);
  if (interrupt_.load()) return false;
  if (options_.eval.metric == EvalMetric::kExactMatch && !AnswerExactly(&report)) return false;
  report.step = position_.step;
  report.epoch = epoch_done_;
  report.seconds = SecondsSince(begin);
  evaluated_step_ = position_.step;
  const double value = ValueOf(report, options_.eval.metric);
  report.best = TakeEvaluation(options_.eval, value, position_.step, &best_);
  if (best_) best_->of = MeasuredNow();
  last_value_ = value;
  log_->Eval(report);
  if (events_.on_eval) events_.on_eval(report);
  if (report.best) {
    KeepBest(value);
  } else {
    RetryBest(false);
  }
  return true;
}

void Trainer::KeepBest(double value) {
  if (options_.eval_steps == 0) return;  // the only evaluation is that of the result
  const SavedBest best{value, position_.step, MeasuredNow()};
  const std::span<const float> values = Numbers(&*adapter_);
  bool room = false;
  const auto may = [&] {
    const uint64_t free = AvailableMemory();  // 0: unknown
    room = (free == 0 || values.size_bytes() <= free) &&
           (options_.memory_limit == 0 || plan_.total() + values.size_bytes() <= options_.memory_limit);
    return room;
  };
  const Status saved =
      best_folder_.Keep(best, values, may, [&](const Path& folder) { return SaveAdapterTo(folder); });
  if (saved.ok()) return log_->Best(best.value, best.step, kBestFolder);
  Note(fmt::format("the best adapter so far, of step {}, is not kept: {}; {}", best.step,
                   saved.failure().message,
                   room ? "it stays in memory, to be tried again after the next evaluation or checkpoint"
                        : "there is no memory to try it again from"));
}

void Trainer::RetryBest(bool last) {
  if (!best_folder_.waits()) return;
  const SavedBest best = best_folder_.best();
  const Status saved =
      best_folder_.Retry(Numbers(&*adapter_), [&](const Path& folder) { return SaveAdapterTo(folder); });
  if (saved.ok()) {
    log_->Best(best.value, best.step, kBestFolder);
    Note(fmt::format("the best adapter so far, of step {}, is kept now", best.step));
  } else if (last) {
    Note(fmt::format("{} does not hold the best adapter so far, of step {}: {}",
                     best_folder_.folder().string(), best.step, saved.failure().message));
  }
}

void Trainer::LoadBest() {
  adapter_step_ = position_.step;
  if (!LoadsBest(options_, !eval_data_.examples.empty()) || !best_) return;
  const std::string what = Text(options_.eval.metric, best_->metric);
  const auto last_is_best = [&] {
    Note(fmt::format("the adapter is that of the last step, {}, which is the best: {}", best_->step, what));
  };
  if (best_->step == position_.step && last_value_ == best_->metric) return last_is_best();
  if (best_folder_.waits()) {
    std::copy(best_folder_.values().begin(), best_folder_.values().end(), Numbers(&*adapter_).begin());
    adapter_step_ = best_folder_.best().step;
    return Note(fmt::format("the adapter is that of step {} of {}, the best: {}", adapter_step_,
                            position_.step, what));
  }
  const Path folder = options_.out / kBestFolder;
  const Result<SavedBest> saved = ReadBest(folder);
  const bool same = saved.ok() && saved.value().step == best_->step && saved.value().value == best_->metric;
  const bool whole = same || (saved.ok() && saved.value().of == MeasuredNow());
  if (!same && best_->step == position_.step) return last_is_best();
  const std::string lost = fmt::format("the best adapter, of step {} ({}), is lost: ", best_->step, what);
  if (!whole) {
    return Note(fmt::format(
        "{}{}; the adapter is that of the last step", lost,
        saved.ok() ? fmt::format("{} was measured otherwise", folder.string()) : saved.failure().message));
  }
  const SavedBest& found = saved.value();
  if (!same) {
    const bool last_better = last_value_ && std::isfinite(*last_value_) &&
                             !IsBetter(options_.eval.metric, found.value, *last_value_);
    Note(fmt::format("{}{} holds that of step {} ({}){}", lost, folder.string(), found.step,
                     Text(options_.eval.metric, found.value),
                     last_better ? "; the adapter is that of the last step, which is better" : ""));
    if (last_better) return;
  }
  model::LoadAdapterValues(folder, &*adapter_).OrThrow();
  adapter_step_ = found.step;
  Note(fmt::format("the adapter is that of step {} of {}, the best{}: {}", found.step, position_.step,
                   same ? "" : " that is left", Text(options_.eval.metric, found.value)));
}

Measured Trainer::MeasuredNow() const { return {NameOf(options_.eval.metric), identity_.eval_data}; }

void Trainer::ResumeBest() {
  best_ = checkpoint_.state.best;
  const Measured now = MeasuredNow();
  const auto eval = [](const std::string& difference) { return difference.starts_with("eval_"); };
  const bool otherwise = best_ && (best_->of.metric.empty() ? std::any_of(resumed_.differences.begin(),
                                                                          resumed_.differences.end(), eval)
                                                            : best_->of != now);
  if (otherwise) {
    Note(
        "--resume: what was best so far was measured otherwise, by another metric or of other records, and "
        "counts no more");
    best_.reset();
  }
  // With the same settings the steps since are done again, to the bit, and decide the same.
  if (resumed_.differences.empty()) return;
  const Result<SavedBest> saved = ReadBest(options_.out / kBestFolder);
  if (!saved.ok() || saved.value().of != now || saved.value().step <= checkpoint_.state.position.step) return;
  const SavedBest& found = saved.value();
  if (best_ && !IsBetter(options_.eval.metric, found.value, best_->metric)) return;
  best_ = BestEvaluation{found.value, found.step, 0, now};
  Note(fmt::format("--resume-force: {} is of step {}, after the checkpoint, and the best so far: {}",
                   (options_.out / kBestFolder).string(), found.step,
                   Text(options_.eval.metric, found.value)));
}

void Trainer::AnswerSamples(const char* stage) {
  if (samples_ == 0) return;
  const bool before = first_step_ == 0 && position_.step == 0;
  const Path file = options_.out / kSamplesFile;
  try {
    const std::optional<std::vector<std::string>> answers =
        Answer(FirstOf(questions_, samples_), sample_shape_, before ? nullptr : &*adapter_);
    if (!answers) return;
    WriteSamples(file, stage, before ? 0 : adapter_step_, FirstOf(questions_, samples_), *answers).OrThrow();
    if (before || !events_.on_samples) return;
    std::vector<std::string> earlier;
    for (SampleLine& line : ReadSamples(file).OrThrow()) {
      if (line.stage != stage) earlier.push_back(std::move(line.answer));
    }
    earlier.resize(answers->size());  // of a run that was begun without samples there are none
    std::vector<Sample> samples;
    for (size_t i = 0; i < answers->size(); ++i) {
      samples.push_back({questions_[i].asked, questions_[i].expected, earlier[i], (*answers)[i]});
    }
    events_.on_samples(samples);
  } catch (const std::exception& error) {
    Note(fmt::format("samples: {}", error.what()));
  }
  Reserve(slab_bytes_);  // unless it is there
}

}  // namespace rung::train
