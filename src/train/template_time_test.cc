// A template that shows the time: a run has one, from its first step to its adapter.
#include "model/adapter_file.h"
#include "train/tiny_run.h"

namespace rung::train {
namespace {

constexpr int64_t kDay = 86400;

class TemplateTimeTest : public TinyRunTest {
 protected:
  TrainOptions OptionsAt(const std::string& out, int64_t time) const {
    TrainOptions options = Options(out);
    options.data = {{"examples/banking/train.jsonl"}};
    options.chat_template =
        "{{ strftime_now('%d') }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}";
    options.template_time = time;
    options.max_steps = 3;
    return options;
  }
  std::optional<int64_t> TimeOf(const Path& folder) const {
    return model::ReadAdapterInfo(folder).OrThrow().template_time;
  }
};

TEST_F(TemplateTimeTest, AResumedRunGoesOnWithTheTimeOfItsBeginning) {
  const TrainOptions whole = OptionsAt("whole", kDay);
  Run(whole);
  EXPECT_EQ(TimeOf(whole.out), std::optional<int64_t>(kDay));

  std::atomic<bool> interrupt{false};
  on_step_ = [&](const StepReport& step) { interrupt = step.step == 2; };
  TrainOptions halved = OptionsAt("halved", kDay);
  EXPECT_TRUE(Run(halved, interrupt).interrupted);
  EXPECT_EQ(TimeOf(halved.out / "checkpoint-2"), std::optional<int64_t>(kDay));

  on_step_ = nullptr;
  halved.template_time = 5 * kDay;  // the next morning
  halved.resume = true;
  EXPECT_EQ(CodeOf(halved), ExitCode::kDone) << message_;
  EXPECT_EQ(TimeOf(halved.out), std::optional<int64_t>(kDay));
  EXPECT_EQ(Bytes(halved.out / "adapter_model.safetensors"), Bytes(whole.out / "adapter_model.safetensors"));
}

TEST_F(TemplateTimeTest, CachedTokensOfAnotherDayAreNotTaken) {
  TrainOptions options = OptionsAt("cached", kDay);
  options.data_options.cache = folder_ / "cache";
  const auto digest = [&](int64_t time) {
    const model::Config config = model::ReadConfig(options.model).OrThrow();
    const model::ModelText text =
        model::LoadText(options.model, false, options.chat_template, config.V, time).OrThrow();
    return LoadData(options.data, data::Part::kAll, text, options).examples.digest();
  };
  const std::string first = digest(kDay);
  EXPECT_NE(digest(2 * kDay), first);
  EXPECT_EQ(digest(kDay), first);
}

TEST_F(TemplateTimeTest, ATemplateWithoutTimeHasNone) {
  TrainOptions options = OptionsAt("none", kDay);
  options.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
  Run(options);
  EXPECT_EQ(TimeOf(options.out), std::nullopt);
}

}  // namespace
}  // namespace rung::train
