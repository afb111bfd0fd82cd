#include "train/samples.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "io/json_file.h"

namespace rung::train {
namespace {

constexpr uint64_t kFileLimit = uint64_t{64} << 20;
constexpr const char* kBefore = "before";

bool Parse(const std::string& text, SampleLine* line) {
  const Result<nlohmann::json> parsed = io::ParseJson(text, kSamplesFile);
  if (!parsed.ok() || !parsed.value().is_object()) return false;
  try {
    const nlohmann::json& json = parsed.value();
    *line = {json.at("stage").get<std::string>(), json.at("step").get<int64_t>(),
             json.at("prompt").get<std::string>(), json.at("expected").get<std::string>(),
             json.at("answer").get<std::string>()};
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return true;
}

std::string Text(const SampleLine& line) {
  const nlohmann::ordered_json json = {{"stage", line.stage},
                                       {"step", line.step},
                                       {"prompt", line.prompt},
                                       {"expected", line.expected},
                                       {"answer", line.answer}};
  // A token may be a part of a character.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<std::vector<SampleLine>> ReadSamples(const Path& file) {
  Result<std::string> text = ReadTextFile(file, kFileLimit);
  if (!text.ok()) return text.failure();
  std::vector<SampleLine> lines;
  for (size_t begin = 0; begin < text.value().size();) {
    const size_t end = std::min(text.value().find('\n', begin), text.value().size());
    SampleLine line;
    if (Parse(text.value().substr(begin, end - begin), &line)) lines.push_back(std::move(line));
    begin = end + 1;
  }
  return lines;
}

Status WriteSamples(const Path& file, const std::string& stage, int64_t step,
                    std::span<const infer::Question> questions, std::span<const std::string> answers) {
  RUNG_CHECK(questions.size() == answers.size(), "samples: one answer a question");
  std::string text;
  if (stage != kBefore) {
    Result<std::vector<SampleLine>> earlier = ReadSamples(file);
    for (const SampleLine& line : earlier.ok() ? earlier.value() : std::vector<SampleLine>()) {
      if (line.stage == kBefore) text += Text(line);
    }
  }
  for (size_t i = 0; i < questions.size(); ++i) {
    text += Text({stage, step, questions[i].asked, questions[i].expected, answers[i]});
  }
  return WriteTextFile(file, text);
}

}  // namespace rung::train
