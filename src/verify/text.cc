// The tokenizer against its own round trip, the chat template, and a run of the model on plain English.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/memory.h"
#include "eval/batch_runner.h"
#include "eval/score.h"
#include "text/chat_template.h"
#include "verify/parts.h"

namespace rung::verify {
namespace {

// Plain words, so that models of little stories can read it too; written for this program, so that no model
// has it by heart.
constexpr std::string_view kParagraph =
    "Once there was a small village between a river and a forest. In the village lived a girl named "
    "Anna and her old dog. Every morning they walked along the river to see the boats. One day the "
    "water was very high, because it had rained for a week. Anna saw a little boat that was stuck "
    "between two trees. There was a boy in the boat, and he was afraid. \"Help me!\" he said. \"I "
    "cannot swim.\" Anna did not know what to do. The water was too fast for her, but she was not "
    "alone. She ran back to the village and called her father. He took a long rope from the barn, and "
    "they went to the river together. Her father threw one end of the rope to the boy and tied the "
    "other end to a tree. The boy held the rope with both hands, and they pulled the boat to the land. "
    "The boy was wet and cold, but he was safe. They gave him a warm coat and some bread. \"Thank "
    "you,\" he said. \"You are very kind.\" The dog barked and wagged his tail. From that day on Anna "
    "and the boy were friends, and when the water was low again, they often played by the river. They "
    "never forgot how important it is to help each other.";

constexpr std::string_view kTexts[] = {
    kParagraph,
    "Hello, world! It's 9:45 on 2021-03-04; pi is about 3.14159.",
    "  two spaces,\ta tab,\n\na blank line and a trailing space ",
    "for (int i = 0; i < n; ++i) { sum += x[i] * y[i]; }  // {\"key\": [1, 2, null]}",
    "Größe, naïve café, Ελληνικά, Русский, 日本語, العربية, 한국어",
    "\U0001F600 \U0001F469\u200D\U0001F52C \u2014 \u00BD \u2211"};

// What is wrong with it; "" when it comes back as it was.
std::string RoundTrip(const text::Tokenizer& tokenizer, std::string_view text, int64_t V) {
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  for (const int32_t id : ids) {
    if (id < 0 || id >= V) return fmt::format("gives id {}, the model has {}", id, V);
  }
  const std::string back = tokenizer.Decode(ids, false);
  if (back == text) return "";
  const size_t same = static_cast<size_t>(
      std::mismatch(text.begin(),
                    text.begin() + static_cast<std::ptrdiff_t>(std::min(text.size(), back.size())),
                    back.begin())
          .first -
      text.begin());
  return fmt::format("comes back otherwise from byte {} on", same);
}

void VerifyTemplate(const text::Tokenizer& tokenizer, const Path& model, Verification* found) {
  const auto add = [&](Finding finding, const std::string& message) {
    found->Add("chat template", finding, message);
  };
  if (tokenizer.chat_template().empty()) return add(Finding::kSkipped, "the model has none");
  const Result<text::ChatTemplate> parsed =
      text::ChatTemplate::Parse(tokenizer.chat_template(), model.string());
  if (!parsed.ok()) return add(Finding::kProblem, parsed.failure().message);
  const auto piece = [&](int32_t id) { return id < 0 ? std::string() : tokenizer.Piece(id); };
  const std::vector<text::Message> messages = {{"user", "Where is my card?"}, {"assistant", "On its way."}};
  const Result<text::Rendered> rendered =
      parsed.value().Render(messages, false, piece(tokenizer.bos()), piece(tokenizer.eos()));
  if (!rendered.ok()) return add(Finding::kProblem, rendered.failure().message);
  const std::string& text = rendered.value().text;
  for (const text::Message& message : messages) {
    if (text.find(message.content) == std::string::npos) {
      return add(Finding::kProblem, fmt::format("leaves out what the {} says", message.role));
    }
  }
  add(Finding::kOk,
      fmt::format("a turn of two messages becomes {} tokens", tokenizer.EncodeWithSpecials(text).size()));
}

// The paragraph as one sequence, cut to what the model can take.
data::Batch ParagraphBatch(const text::Tokenizer& tokenizer, int64_t positions, size_t* bytes) {
  data::Example example;
  std::vector<int32_t> ids = tokenizer.Encode(kParagraph);
  if (static_cast<int64_t>(ids.size()) > positions - 1) ids.resize(static_cast<size_t>(positions - 1));
  *bytes = tokenizer.Decode(ids, false).size();
  const int32_t start = tokenizer.bos() >= 0 ? tokenizer.bos() : tokenizer.eos();
  if (start >= 0) example.ids.push_back(start);
  example.ids.insert(example.ids.end(), ids.begin(), ids.end());
  example.learn.assign(example.ids.size(), 1);
  example.learn[0] = 0;
  return data::MakeBatch({&example});
}

std::string CountText(int64_t n) {
  const auto x = static_cast<double>(n);
  return x >= 1e9 ? fmt::format("{:.1f} B", x / 1e9) : fmt::format("{:.1f} M", x / 1e6);
}

void Judge(double loss, size_t bytes, int64_t targets, const model::Config& config, Verification* found) {
  const double perplexity = std::exp(loss);
  found->perplexity = perplexity;
  found->bits_per_byte =
      loss / std::log(2.0) * static_cast<double>(targets) / static_cast<double>(std::max<size_t>(1, bytes));
  const PerplexityRange range = ExpectedPerplexity(config.parameter_count());
  const std::string text = fmt::format(
      "{:.2f} on a paragraph of English ({} tokens, {:.2f} bits a byte); models of {} parameters have "
      "about {:.0f} to {:.0f}",
      perplexity, targets, *found->bits_per_byte, CountText(config.parameter_count()), range.low, range.high);
  const double guessing = static_cast<double>(config.V) / 10.0;
  if (!std::isfinite(loss)) {
    found->Add("perplexity", Finding::kProblem, "the loss is no number");
  } else if (perplexity >= std::max(guessing, 2.0 * range.high)) {
    found->Add("perplexity", Finding::kProblem,
               text + ": near to guessing; untrained, damaged, or with another model's tokenizer");
  } else if (perplexity > range.high) {
    found->Add("perplexity", Finding::kWarning, text + ": not made for English, or damaged");
  } else {
    found->Add("perplexity", Finding::kOk, text);
  }
}

}  // namespace

PerplexityRange ExpectedPerplexity(int64_t parameters) {
  struct Row {
    double parameters;  // up to so many
    PerplexityRange range;
  };
  constexpr Row kRows[] = {{1e7, {3.0, 60.0}},   {6e7, {5.0, 40.0}}, {3e8, {4.0, 25.0}},
                           {1.2e9, {3.0, 18.0}}, {5e9, {2.5, 14.0}}, {2e10, {2.0, 11.0}}};
  for (const Row& row : kRows) {
    if (static_cast<double>(parameters) <= row.parameters) return row.range;
  }
  return {2.0, 9.0};
}

std::optional<text::Tokenizer> VerifyTokenizer(const Path& model, int64_t V, Verification* found) {
  const auto add = [&](Finding finding, const std::string& message) {
    found->Add("tokenizer", finding, message);
  };
  std::error_code error;
  const bool gguf = model::IsGgufFile(model);
  const auto has = [&](const char* file) { return std::filesystem::exists(model / file, error); };
  if (!gguf && !has("tokenizer.json") && !has("merges.txt")) {
    add(Finding::kSkipped, "no tokenizer: the folder has neither tokenizer.json nor merges.txt");
    return std::nullopt;
  }
  std::optional<io::Gguf> file;
  if (gguf) {
    Result<io::Gguf> opened = io::Gguf::Open(model);
    if (!opened.ok()) {
      add(Finding::kProblem, opened.failure().message);
      return std::nullopt;
    }
    file = std::move(opened).value();
    // "no_vocab" is what converters write for a model of weights alone, rung quantize too.
    const std::string* kind = file->GetString("tokenizer.ggml.model");
    if (!file->metadata().contains("tokenizer.ggml.model") || (kind && *kind == "no_vocab")) {
      add(Finding::kSkipped, "no tokenizer: the file has weights only");
      return std::nullopt;
    }
  }
  Result<text::Tokenizer> loaded =
      gguf ? text::Tokenizer::FromGguf(*file) : text::Tokenizer::FromFolder(model);
  if (!loaded.ok()) {
    add(Finding::kProblem, loaded.failure().message);
    return std::nullopt;
  }
  const text::Tokenizer tokenizer = loaded.value();
  if (tokenizer.vocab_size() > V) {
    add(Finding::kProblem, fmt::format("has ids up to {}, the model's vocabulary is {}: another model's",
                                       tokenizer.vocab_size() - 1, V));
    return std::nullopt;
  }
  // A small vocabulary has no tokens for some characters; plain English it must have.
  if (const std::string wrong = RoundTrip(tokenizer, kParagraph, V); !wrong.empty()) {
    add(Finding::kProblem, fmt::format("plain English {}", wrong));
    VerifyTemplate(tokenizer, model, found);
    return std::nullopt;
  }
  std::vector<std::string> lossy;
  for (size_t i = 1; i < std::size(kTexts); ++i) {
    const std::string wrong = RoundTrip(tokenizer, kTexts[i], V);
    if (!wrong.empty()) lossy.push_back(fmt::format("text {} {}", i + 1, wrong));
  }
  if (!lossy.empty()) {
    add(Finding::kWarning, fmt::format("{} of {} texts do not come back as they were; {}", lossy.size(),
                                       std::size(kTexts), lossy[0]));
  }
  if (tokenizer.eos() < 0) add(Finding::kWarning, "no end-of-text token: generations would not end");
  add(Finding::kOk,
      fmt::format("{}, {} ids for a table of {}, {} of {} texts come back as they were", tokenizer.kind(),
                  tokenizer.vocab_size(), V, std::size(kTexts) - lossy.size(), std::size(kTexts)));
  VerifyTemplate(tokenizer, model, found);
  return tokenizer;
}

void VerifyPerplexity(const VerifyOptions& options, const text::Tokenizer& tokenizer, Verification* found) {
  const auto skip = [&](const std::string& why) { found->Add("perplexity", Finding::kSkipped, why); };
  try {
    model::BackboneOptions load;
    load.recipe = {model::Quantize::kNone, model::Quantize::kNone, {}};
    load.compute = options.compute.compute;
    const model::Config config = model::ReadConfig(options.model).OrThrow();
    size_t bytes = 0;
    const data::Batch batch = ParagraphBatch(tokenizer, std::min<int64_t>(config.context, 1024), &bytes);
    load.positions = std::max<int64_t>(2, batch.rows());
    const uint64_t weights =
        model::Backbone::PlannedFrom(options.model, load).OrThrow().weight_totals().total;
    const uint64_t available = AvailableMemory();
    if (!model::IsGgufFile(options.model) && available > 0 && weights > available) {
      return skip(fmt::format("the weights take {} MiB, {} MiB are free", weights >> 20, available >> 20));
    }
    const model::Backbone backbone = model::Backbone::Load(options.model, load).OrThrow();
    const model::ModelText text{tokenizer, std::nullopt};
    const eval::Subject subject{backbone, nullptr, text, options.compute};
    const std::vector<float> losses = eval::BatchRunner(subject).Losses(batch);
    double sum = 0.0;
    for (const float loss : losses) sum += static_cast<double>(loss);
    const auto targets = static_cast<int64_t>(losses.size());
    Judge(sum / static_cast<double>(targets), bytes, targets, config, found);
  } catch (const Error& error) {
    if (error.code() == ExitCode::kInterrupted) throw;
    const bool theirs = error.code() == ExitCode::kBadInput;
    found->Add("perplexity", theirs ? Finding::kProblem : Finding::kSkipped, error.what());
  }
}

}  // namespace rung::verify
