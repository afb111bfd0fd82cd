// Evaluations, the best adapter, early ends and samples in whole runs.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file_faults.h"
#include "infer/generate.h"
#include "model/adapter_file.h"
#include "train/evaluation.h"
#include "train/samples.h"
#include "train/tiny_run.h"

namespace rung::train {
namespace {

const char* const kAdapter = "adapter_model.safetensors";

class HeldOutTest : public TinyRunTest {
 protected:
  // Evaluates after every second of 20 steps, which are so large that the loss goes up and down.
  TrainOptions Evaluated(const std::string& out) const {
    TrainOptions options = Options(out);
    options.eval_data = {{"examples/stories/valid.jsonl"}};
    options.eval.limit = 12;
    options.eval.samples = 0;
    options.eval_steps = 2;
    options.max_steps = 20;
    options.save_limit = 100;
    options.schedule = Schedule::kConstant;
    options.learning_rate = 0.2;
    return options;
  }

  // Runs; interrupts after that many evaluations (0: never), and while evaluation `within` is made.
  RunResult RunEvaluated(const TrainOptions& options, int64_t interrupt_after = 0, int64_t at_step = 0) {
    evals_.clear();
    samples_.clear();
    std::atomic<bool> interrupt{false};
    RunEvents events;
    events.on_step = [&](const StepReport& step) {
      steps_ = step.step;
      if (step.step == at_step) interrupt = true;
    };
    events.on_eval = [&](const EvalReport& eval) {
      evals_.push_back(eval);
      if (static_cast<int64_t>(evals_.size()) == interrupt_after) interrupt = true;
    };
    events.on_plan = [&](const MemoryPlan& plan, const model::AdapterSpec&, const model::Config&) {
      plan_ = plan;
    };
    events.on_samples = [&](const std::vector<Sample>& samples) { samples_ = samples; };
    events.on_note = [&](const std::string& line) { notes_ += line + "\n"; };
    events.on_resume = [&](const ResumeReport& report) { resumed_ = report; };
    return RunTraining(options, events, interrupt);
  }

  const PlanItem* Planned(const std::string& name) const {
    for (const PlanItem& item : plan_.items) {
      if (item.name == name) return &item;
    }
    return nullptr;
  }

  // Each answer alone, by generation of one prompt.
  std::vector<std::string> AnswersAlone(const TrainOptions& options, const model::Adapter* adapter,
                                        std::span<const infer::Question> questions,
                                        int64_t max_tokens) const {
    model::BackboneOptions backbone = options.backbone;
    backbone.positions = options.max_length;
    const model::Backbone model = model::Backbone::Load(options.model, backbone).OrThrow();
    const model::ModelText text = model::LoadText(options.model, options.raw, "", model.config().V).OrThrow();
    std::vector<std::string> answers;
    for (const infer::Question& question : questions) {
      infer::Session session(options.compute.context, options.compute.compute, model, adapter, 1,
                             options.max_length);
      infer::GenerateOptions generate;
      generate.max_tokens = max_tokens;
      answers.push_back(infer::Trimmed(
          infer::Generate(session, text.tokenizer, question.prompt, generate, nullptr, nullptr).text));
    }
    return answers;
  }

  static int64_t BestStep(const TrainOptions& options) {
    const auto state = nlohmann::json::parse(Bytes(options.out / "trainer_state.json"));
    return state.at("best_global_step").get<int64_t>();
  }

  std::vector<EvalReport> evals_;
  std::vector<Sample> samples_;
  MemoryPlan plan_;
  int64_t steps_ = 0;
};

TEST_F(HeldOutTest, TheBestAdapterIsTheResult) {
  const TrainOptions options = Evaluated("run");
  RunEvaluated(options);
  ASSERT_EQ(evals_.size(), 10u);
  size_t best = 0;
  for (size_t i = 0; i < evals_.size(); ++i) {
    if (evals_[i].loss < evals_[best].loss) best = i;
    EXPECT_EQ(evals_[i].best, best == i);
    EXPECT_EQ(evals_[i].records, 12);
    EXPECT_GT(evals_[i].epoch, 0.0);
  }
  ASSERT_LT(best + 1, evals_.size()) << "the last one is the best: nothing is tested";
  const Path checkpoint = options.out / fmt::format("checkpoint-{}", evals_[best].step);
  EXPECT_TRUE(Bytes(options.out / kAdapter) == Bytes(checkpoint / kAdapter));
  EXPECT_TRUE(Bytes(options.out / "best" / kAdapter) == Bytes(checkpoint / kAdapter));
  EXPECT_NE(notes_.find(fmt::format("that of step {} of 20, the best", evals_[best].step)), std::string::npos)
      << notes_;

  // The run's last adapter where that is asked for; the best one stays beside it.
  TrainOptions last = Evaluated("last");
  last.eval.load_best = false;
  RunEvaluated(last);
  EXPECT_FALSE(Bytes(last.out / kAdapter) == Bytes(options.out / kAdapter));
  EXPECT_TRUE(Bytes(last.out / "best" / kAdapter) == Bytes(options.out / kAdapter));
}

TEST_F(HeldOutTest, EndsEarlyAndAResumedRunDecidesTheSame) {
  TrainOptions whole = Evaluated("whole");
  whole.save_steps = 0;
  whole.eval.patience = 2;
  whole.eval.threshold = 0.01;
  RunEvaluated(whole);
  const std::vector<EvalReport> evals = evals_;
  const int64_t end = steps_;
  ASSERT_LT(end, 20) << "it did not end early: nothing is tested";
  EXPECT_EQ(end % 2, 0);
  EXPECT_NE(notes_.find(fmt::format("stopped at step {} of 20", end)), std::string::npos) << notes_;
  for (const int64_t at : {int64_t{1}, int64_t{2}, int64_t{5}, end}) {
    SCOPED_TRACE(at);
    // At even steps the interrupt comes before their evaluation, which the resumed run does first.
    TrainOptions broken = whole;
    broken.out = folder_ / fmt::format("broken-{}", at);
    EXPECT_TRUE(RunEvaluated(broken, 0, at).interrupted);
    broken.resume = true;
    EXPECT_FALSE(RunEvaluated(broken).interrupted);
    EXPECT_EQ(evals_.back().step, end);
    EXPECT_EQ(evals_.back().loss, evals.back().loss);
    for (const char* file : {kAdapter, "adapter_config.json", "best/adapter_model.safetensors"}) {
      EXPECT_TRUE(Bytes(whole.out / file) == Bytes(broken.out / file)) << file;
    }
  }
  // Interrupted after an evaluation: it is not made again.
  TrainOptions broken = whole;
  broken.out = folder_ / "after";
  EXPECT_TRUE(RunEvaluated(broken, 1).interrupted);
  broken.resume = true;
  RunEvaluated(broken);
  EXPECT_EQ(evals_.front().step, 4);
  EXPECT_TRUE(Bytes(whole.out / kAdapter) == Bytes(broken.out / kAdapter));
  // Another patience is another run.
  broken.out = folder_ / "other";
  broken.resume = false;
  RunEvaluated(broken, 1);
  broken.resume = true;
  broken.eval.patience = 3;
  EXPECT_EQ(CodeOf(broken), ExitCode::kUsage);
  EXPECT_NE(message_.find("early_stopping_patience: then 2, now 3"), std::string::npos) << message_;
}

TEST_F(HeldOutTest, ARunThatEndedEarlyGoesOnWithOtherPatience) {
  const TrainOptions whole = Evaluated("whole");
  RunEvaluated(whole);
  TrainOptions options = Evaluated("run");
  options.eval.patience = 2;
  options.eval.threshold = 0.01;
  const int64_t end = RunEvaluated(options).steps;
  ASSERT_LT(end, 20) << "it did not end early: nothing is tested";
  options.resume = true;
  EXPECT_EQ(RunEvaluated(options).finished_before->steps, end);
  TrainOptions other = options;
  other.max_steps = 24;
  other.resume_force = true;
  EXPECT_EQ(RunEvaluated(other).steps, end) << "more steps alone";
  options.eval = whole.eval;
  EXPECT_EQ(CodeOf(options), ExitCode::kUsage);
  EXPECT_NE(message_.find("early_stopping_patience: then 2, now none"), std::string::npos) << message_;
  options.resume_force = true;
  EXPECT_EQ(PreviewTraining(options, {}).begin.resume.step, end);
  EXPECT_EQ(RunEvaluated(options).steps, 20);
  EXPECT_EQ(resumed_.step, end);
  for (const char* file : {kAdapter, "best/adapter_model.safetensors"})
    EXPECT_TRUE(Bytes(whole.out / file) == Bytes(options.out / file)) << file;
  // All its steps are done: other patience does not make it longer, and is said.
  options.eval.patience = 5;
  notes_.clear();
  EXPECT_EQ(RunEvaluated(options).finished_before->steps, 20);
  EXPECT_NE(notes_.find("early_stopping_patience: then none, now 5"), std::string::npos) << notes_;
}

TEST_F(HeldOutTest, AnInterruptedLastEvaluationIsMadeUp) {
  const TrainOptions whole = Evaluated("whole");
  RunEvaluated(whole);
  TrainOptions broken = Evaluated("broken");
  EXPECT_TRUE(RunEvaluated(broken, 0, 20).interrupted);
  EXPECT_FALSE(std::filesystem::exists(broken.out / "adapter_config.json"));
  broken.resume = true;
  EXPECT_FALSE(RunEvaluated(broken).interrupted);
  EXPECT_EQ(evals_.size(), 1u);
  EXPECT_TRUE(Bytes(whole.out / kAdapter) == Bytes(broken.out / kAdapter));
}

// Also where the result is the last step's adapter, with evaluations on the way and without.
TEST_F(HeldOutTest, AnInterruptedLastEvaluationOfTheLastAdapterIsMadeUp) {
  for (const int64_t eval_steps : {0, 2}) {
    SCOPED_TRACE(eval_steps);
    const auto last = [&](const char* out) {
      TrainOptions options = Evaluated(fmt::format("{}-{}", out, eval_steps));
      options.eval_steps = eval_steps;
      options.eval.load_best = false;
      options.max_steps = 4;
      return options;
    };
    const TrainOptions whole = last("whole");
    RunEvaluated(whole);
    const EvalReport expected = evals_.back();
    EXPECT_EQ(expected.step, 4);
    TrainOptions broken = last("broken");
    EXPECT_TRUE(RunEvaluated(broken, 0, 4).interrupted);
    EXPECT_FALSE(std::filesystem::exists(broken.out / "adapter_config.json"));
    broken.resume = true;
    EXPECT_FALSE(RunEvaluated(broken).interrupted);
    ASSERT_EQ(evals_.size(), 1u);
    EXPECT_EQ(evals_.back().loss, expected.loss);
    EXPECT_TRUE(Bytes(whole.out / kAdapter) == Bytes(broken.out / kAdapter));
  }
}

// The folder of the best adapter is newer than the checkpoint that a killed run left.
TEST_F(HeldOutTest, ABestAdapterOfLaterStepsCountsWhenSettingsAreForced) {
  TrainOptions options = Evaluated("run");
  RunEvaluated(options, 0, 19);
  int64_t best = 0;
  double loss = 0.0;
  for (const EvalReport& eval : evals_) {
    if (eval.best) best = eval.step, loss = eval.loss;
  }
  ASSERT_GE(best, 4) << "there is no earlier one: nothing is tested";
  const std::string adapter = Bytes(options.out / "best" / kAdapter);
  for (int64_t step = best; step < 20; ++step)
    std::filesystem::remove_all(options.out / fmt::format("checkpoint-{}", step));
  options.resume = options.resume_force = true;
  options.learning_rate = 1e-9;
  RunEvaluated(options);
  EXPECT_EQ(resumed_.step, best - 1);
  for (const EvalReport& eval : evals_) ASSERT_GT(eval.loss, loss) << "a better one: nothing is tested";
  EXPECT_EQ(notes_.find("is lost"), std::string::npos) << notes_;
  EXPECT_TRUE(Bytes(options.out / kAdapter) == adapter);
  EXPECT_EQ(BestStep(options), best);
}

// What best/ should hold could not be kept: what it holds is used as long as it is known to be better than
// the last step's adapter, and measured alike.
TEST_F(HeldOutTest, ABestAdapterOfAnotherStepCountsByItsOwnValue) {
  struct Case {
    const char* name;
    double value;
    const char* data;  // empty: as it is
    const char* note;
    bool taken;
  };
  for (const Case& c : {Case{"better", 0.001, "", "the best that is left", true},
                        Case{"worse", 1e6, "", "that of the last step, which is better", false},
                        Case{"other", 0.001, "0123456789abcdef", "was measured otherwise", false}}) {
    SCOPED_TRACE(c.name);
    TrainOptions options = Evaluated(c.name);
    RunEvaluated(options, 0, 19);
    const Path best = options.out / kBestFolder;
    SavedBest saved = ReadBest(best).OrThrow();
    saved.step = 1;
    saved.value = c.value;
    if (*c.data != '\0') saved.of.data = c.data;
    const auto copy = [&](const Path& folder) -> Status {
      std::filesystem::copy(options.out / "checkpoint-1", folder);
      return Ok{};
    };
    ASSERT_TRUE(SaveBest(best, saved, copy).ok());
    options.resume = true;
    notes_.clear();
    RunEvaluated(options);
    ASSERT_FALSE(evals_.back().best) << "nothing is tested";
    EXPECT_NE(notes_.find("is lost: "), std::string::npos) << notes_;
    EXPECT_NE(notes_.find(c.note), std::string::npos) << notes_;
    const Path expected = options.out / (c.taken ? "checkpoint-1" : "checkpoint-20");
    EXPECT_TRUE(Bytes(options.out / kAdapter) == Bytes(expected / kAdapter));
  }
}

// Without patience and the best adapter other evaluations do not change the result: they may differ.
TEST_F(HeldOutTest, AnotherMetricOrOtherRecordsBeginTheBestAnew) {
  for (const bool metric : {true, false}) {
    SCOPED_TRACE(metric);
    TrainOptions options = Evaluated(metric ? "metric" : "records");
    options.eval.load_best = false;
    options.max_steps = 6;
    RunEvaluated(options, 0, 3);
    ASSERT_TRUE(evals_.back().best);
    options.resume = true;
    const double before = evals_.back().loss;
    if (metric) options.eval.metric = EvalMetric::kTokenAccuracy;
    if (!metric) options.eval.limit = 11;
    notes_.clear();
    RunEvaluated(options);
    EXPECT_TRUE(evals_.front().best) << evals_.front().loss << " after " << before;
    EXPECT_NE(notes_.find("measured otherwise"), std::string::npos) << notes_;
  }
}

TEST_F(HeldOutTest, ALostBestAdapterIsSaidAndTheLastOneStays) {
  const TrainOptions whole = Evaluated("whole");
  RunEvaluated(whole);
  const Path last = whole.out / "checkpoint-20" / kAdapter;
  TrainOptions broken = Evaluated("broken");
  RunEvaluated(broken, 0, 19);
  ASSERT_TRUE(WriteTextFile(broken.out / "best" / kAdapter, "damaged").ok());
  broken.resume = true;
  RunEvaluated(broken);
  EXPECT_NE(notes_.find("is lost"), std::string::npos) << notes_;
  EXPECT_TRUE(Bytes(broken.out / kAdapter) == Bytes(last));
}

TEST_F(HeldOutTest, ExactAnswersAreCounted) {
  TrainOptions options = Evaluated("run");
  options.max_steps = 60;
  options.save_steps = 0;
  options.learning_rate = 0.0;  // the default
  options.tokens = options.max_length = 96;
  options.eval_steps = 20;
  options.eval.metric = EvalMetric::kExactMatch;
  options.eval.slots = 3;
  RunEvaluated(options);
  ASSERT_EQ(evals_.size(), 3u);
  EXPECT_EQ(evals_.back().answers, 12);
  double best = 0.0;
  for (const EvalReport& eval : evals_) best = std::max(best, eval.exact_match.value());
  EXPECT_GT(best, 0.0);
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::ModelText text = model::LoadText(options.model, false, "", config.V).OrThrow();
  const std::vector<infer::Question> questions = LoadQuestions(options, text, 12);
  ASSERT_EQ(questions.size(), 12u);
  const model::Adapter adapter = model::LoadAdapter(options.out, config, false, options.max_length).OrThrow();
  const std::vector<std::string> answers =
      AnswersAlone(options, &adapter, questions, infer::EnoughTokens(questions));
  int64_t right = 0;
  for (size_t i = 0; i < answers.size(); ++i) right += answers[i] == questions[i].expected;
  EXPECT_DOUBLE_EQ(best, static_cast<double>(right) / 12.0);
}

TEST_F(HeldOutTest, MemoryOfAnswersStandsInThePlan) {
  TrainOptions options = Evaluated("run");
  options.eval.metric = EvalMetric::kExactMatch;
  options.eval.limit = 0;
  options.eval.slots = 40;
  options.max_steps = 2;
  RunEvaluated(options);
  ASSERT_NE(Planned("generation"), nullptr);
  const uint64_t total = plan_.total(), generation = Planned("generation")->bytes;
  EXPECT_GT(generation, uint64_t{1} << 20);
  options.eval.slots = 1;
  options.out = folder_ / "few";
  RunEvaluated(options);
  EXPECT_LT(plan_.total() + generation / 2, total);
  options.eval.slots = 40;
  options.out = folder_ / "refused";
  options.memory_limit = total - 1;
  EXPECT_EQ(CodeOf(options), ExitCode::kNoMemory);

  // Samples are never the reason.
  options.eval.metric = EvalMetric::kLoss;
  options.eval.samples = 40;
  options.out = folder_ / "samples";
  options.memory_limit = 0;
  RunEvaluated(options);
  const PlanItem* samples = Planned("generation");
  options.out = folder_ / "none";
  options.memory_limit = plan_.total() - (samples ? samples->bytes : 0);
  RunEvaluated(options);
  EXPECT_LE(plan_.total(), options.memory_limit);
}

TEST_F(HeldOutTest, SamplesShowTheModelBeforeAndAfter) {
  TrainOptions options = Evaluated("run");
  options.eval.samples = 3;
  options.tokens = options.max_length = 128;
  options.max_steps = 8;
  RunEvaluated(options);
  const std::vector<SampleLine> lines = ReadSamples(options.out / kSamplesFile).OrThrow();
  ASSERT_EQ(lines.size(), 6u);
  ASSERT_EQ(samples_.size(), 3u);
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::ModelText text = model::LoadText(options.model, false, "", config.V).OrThrow();
  const std::vector<infer::Question> questions = LoadQuestions(options, text, 3);
  const model::Adapter adapter = model::LoadAdapter(options.out, config, false, options.max_length).OrThrow();
  const std::vector<std::string> before = AnswersAlone(options, nullptr, questions, kSampleTokens),
                                 after = AnswersAlone(options, &adapter, questions, kSampleTokens);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(lines[i].stage, "before");
    EXPECT_EQ(lines[i].step, 0);
    EXPECT_EQ(lines[i + 3].stage, "after");
    EXPECT_GT(lines[i + 3].step, 0);
    EXPECT_EQ(lines[i].prompt, questions[i].asked);
    EXPECT_EQ(lines[i].expected, questions[i].expected);
    EXPECT_EQ(lines[i].answer, before[i]);
    EXPECT_EQ(lines[i + 3].answer, after[i]);
    EXPECT_EQ(samples_[i].before, before[i]);
    EXPECT_EQ(samples_[i].after, after[i]);
  }
  // A resumed run has both.
  TrainOptions broken = options;
  broken.out = folder_ / "broken";
  RunEvaluated(broken, 0, 3);
  EXPECT_EQ(ReadSamples(broken.out / kSamplesFile).OrThrow().size(), 3u);
  broken.resume = true;
  RunEvaluated(broken);
  EXPECT_TRUE(Bytes(broken.out / kSamplesFile) == Bytes(options.out / kSamplesFile));
}

TEST_F(HeldOutTest, HeldOutRecordsOfASplitAreTheQuestions) {
  TrainOptions options = Options("run");
  options.data = {{"examples/stories/train.jsonl"}};
  options.data_options.valid_fraction = 0.2;
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::ModelText text = model::LoadText(options.model, false, "", config.V).OrThrow();
  const EncodedData held = LoadData(options.data, data::Part::kValid, text, options);
  const std::vector<infer::Question> questions = LoadQuestions(options, text, 0);
  ASSERT_EQ(static_cast<int64_t>(questions.size()), held.examples.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    const data::Example example = held.examples.Get(static_cast<int64_t>(i));
    ASSERT_LT(questions[i].prompt.size(), example.ids.size());
    EXPECT_TRUE(std::equal(questions[i].prompt.begin(), questions[i].prompt.end(), example.ids.begin())) << i;
  }
  EXPECT_EQ(LoadQuestions(options, text, 3).size(), 3u);
}

// Every call of the disk fails from the first best adapter on, until the end.
TEST_F(HeldOutTest, ABestAdapterThatCannotBeKeptDoesNotEndTheRun) {
  TrainOptions options = Evaluated("run");
  options.save_steps = 0;
  options.save_minutes = 0;
  std::optional<FileFaults> faults;
  RunEvents events;
  std::string notes;
  events.on_note = [&](const std::string& line) { notes += line + "\n"; };
  events.on_step = [&](const StepReport& step) {
    if (step.step == 1) {
      FaultPlan plan;
      plan.fault = Fault::kFail;
      plan.count = int64_t{1} << 40;
      plan.error = ENOSPC;
      plan.only = "open";
      faults.emplace(plan);
    }
    if (step.step == 19) faults.reset();
  };
  const std::atomic<bool> never{false};
  EXPECT_EQ(RunTraining(options, events, never).steps, 20);
  EXPECT_NE(notes.find("is not kept"), std::string::npos) << notes;
  EXPECT_TRUE(std::filesystem::exists(options.out / "adapter_config.json"));
}

// The disk is full when the best evaluation is made, for a step, or until the run has ended and waits.
TEST_F(HeldOutTest, ABestAdapterThatADiskRefusedIsKeptLater) {
  const auto run = [&](const char* out) {
    TrainOptions options = Evaluated(out);
    options.save_steps = 0;
    options.save_minutes = 0;
    return options;
  };
  const TrainOptions whole = run("whole");
  RunEvaluated(whole);
  int64_t best = 0;
  for (const EvalReport& eval : evals_) best = eval.best ? eval.step : best;
  ASSERT_GT(best, 2) << "there is none before it: nothing is tested";
  ASSERT_LT(best, 19) << "it is the last: nothing is tested";
  for (const bool to_the_end : {false, true}) {
    SCOPED_TRACE(to_the_end);
    const TrainOptions options = run(to_the_end ? "end" : "step");
    std::optional<FileFaults> faults;
    std::string notes;
    RunEvents events;
    events.on_note = [&](const std::string& line) { notes += line + "\n"; };
    events.on_step = [&](const StepReport& step) {
      FaultPlan full{.fault = Fault::kFail, .count = int64_t{1} << 40, .error = ENOSPC, .only = "open"};
      full.seconds = 100;
      if (step.step == best) faults.emplace(full);
      // What is recorded is what the folder holds.
      if (step.step == best + 1) {
        const SavedBest kept = ReadBest(options.out / kBestFolder).OrThrow();
        EXPECT_LT(kept.step, best);
        EXPECT_EQ(BestStep(options), kept.step);
        if (!to_the_end) faults.reset();
      }
    };
    const std::atomic<bool> never{false};
    EXPECT_EQ(RunTraining(options, events, never).steps, 20);
    EXPECT_NE(notes.find(fmt::format("of step {}, is not kept: ", best)), std::string::npos) << notes;
    EXPECT_NE(notes.find(fmt::format("of step {}, is kept now", best)), std::string::npos) << notes;
    EXPECT_EQ(ReadBest(options.out / kBestFolder).OrThrow().step, best);
    for (const char* file : {"best/adapter_model.safetensors", kAdapter}) {
      EXPECT_TRUE(Bytes(options.out / file) == Bytes(whole.out / file)) << file;
    }
    EXPECT_EQ(BestStep(options), best);
  }
}

TEST_F(HeldOutTest, QuestionsWithoutRoomAreCountedAndSaid) {
  TrainOptions options = Evaluated("run");
  options.eval.metric = EvalMetric::kExactMatch;
  options.max_steps = 2;
  options.tokens = options.max_length = 24;
  RunEvaluated(options);
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::ModelText text = model::LoadText(options.model, false, "", config.V).OrThrow();
  const std::vector<infer::Question> questions = LoadQuestions(options, text, 12);
  const int64_t answer = std::min<int64_t>(infer::EnoughTokens(questions), options.max_length / 2);
  const auto count = [&](const auto& which) {
    return std::count_if(questions.begin(), questions.end(), which);
  };
  const int64_t cut = count([&](const infer::Question& q) {
    return static_cast<int64_t>(q.prompt.size()) > options.max_length - answer;
  });
  ASSERT_GT(cut, 0) << "nothing is tested";
  EXPECT_NE(notes_.find(fmt::format("{} of 12 prompts are cut", cut)), std::string::npos) << notes_;
  const int64_t longer = count([&](const infer::Question& q) { return q.expected_tokens > answer; });
  const bool said = notes_.find(fmt::format("{} of 12 expected answers", longer)) != std::string::npos;
  EXPECT_EQ(said, longer > 0) << notes_;
}

}  // namespace
}  // namespace rung::train
