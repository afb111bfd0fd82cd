#include "cli/data_flags.h"

#include <fmt/format.h>

#include <set>

#include "base/text.h"
#include "cli/option_info.h"

namespace rung::cli {

void AddReadFlags(CLI::App& app, DataFlags* flags) {
  const std::vector<std::string> formats = data::FormatNames();
  app.add_option("--format", flags->format,
                 "keys of a record: auto, prompt-completion, messages, text, alpaca, sharegpt, segments")
      ->capture_default_str()
      ->check(CLI::IsMember(std::set<std::string>(formats.begin(), formats.end())));
  app.add_option("--columns", flags->columns,
                 "columns by the keys they stand for: prompt=question,completion=answer")
      ->type_name(kListType);
  app.add_option("--template-prompt", flags->template_prompt,
                 "the prompt made of columns: \"Q: {question}\\nA:\"");
  app.add_option("--template-completion", flags->template_completion, "the completion made of columns");
  app.add_option("--template-text", flags->template_text, "the text made of columns");
  app.add_option("--sample-by", flags->sample_by, "a record of a .txt file: line, paragraph, document")
      ->capture_default_str()
      ->check(CLI::IsMember({"line", "paragraph", "document"}));
  app.add_flag("--special-tokens", flags->special_tokens,
               "read special tokens in text records as such: for texts that a chat template has written");
  app.add_option("--max-bad-rows", flags->max_bad_rows,
                 "leave out so many bad rows of a file instead of stopping")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
}

void AddExampleFlags(CLI::App& app, DataFlags* flags) {
  app.add_option("--truncate", flags->truncate,
                 "an example that is too long: left (cut its prompt from the left), drop, split")
      ->capture_default_str()
      ->check(CLI::IsMember({"left", "drop", "split"}));
  app.add_flag("--mask-history", flags->mask_history,
               "of several answers in a conversation learn only the last");
  app.add_option("--valid-fraction", flags->valid_fraction,
                 "hold out this share of the records for evaluation, chosen by their content")
      ->check(CLI::Range(0.0, 0.9));
  app.add_option("--token-cache", flags->token_cache,
                 "folder of encoded data; none: encode every time; auto: of large files, in ~/.cache/rung")
      ->capture_default_str();
  app.add_option("--token-cache-limit", flags->token_cache_limit,
                 "when the folder of encoded data holds more, files used longest ago are removed")
      ->type_name(kSizeType)
      ->capture_default_str();
}

data::ReadOptions ResolveReading(const DataFlags& flags) {
  data::ReadOptions options;
  options.record.format = data::ParseFormat(flags.format).OrThrow();
  options.sample_by = flags.sample_by == "paragraph"  ? data::SampleBy::kParagraph
                      : flags.sample_by == "document" ? data::SampleBy::kDocument
                                                      : data::SampleBy::kLine;
  options.max_bad_rows = flags.max_bad_rows;
  data::Columns& columns = options.record.columns;
  columns.AddNames(flags.columns).OrThrow();
  for (const auto& [key, text] : {std::pair{"prompt", &flags.template_prompt},
                                  {"completion", &flags.template_completion},
                                  {"text", &flags.template_text}}) {
    if (!text->empty()) columns.AddTemplate(key, *text).OrThrow();
  }
  return options;
}

train::DataOptions Resolve(const DataFlags& flags) {
  train::DataOptions options;
  options.read = ResolveReading(flags);
  options.truncation = flags.truncate == "drop"    ? data::Truncation::kDrop
                       : flags.truncate == "split" ? data::Truncation::kSplit
                                                   : data::Truncation::kLeft;
  options.mask_history = flags.mask_history;
  options.special_tokens = flags.special_tokens;
  options.valid_fraction = flags.valid_fraction;
  options.cache_limit = SizeOf(flags.token_cache_limit, "--token-cache-limit");
  if (flags.token_cache == "none") {
    options.cache = Path();
  } else if (flags.token_cache != "auto") {
    options.cache = flags.token_cache;
  }
  return options;
}

uint64_t SizeOf(const std::string& text, const char* flag) {
  const int64_t size = ParseBytes(text);
  if (size <= 0)
    throw Error(ExitCode::kUsage, fmt::format("{} {}: not a size; write 8GiB or 350MB", flag, text));
  return static_cast<uint64_t>(size);
}

int64_t WithinContext(int64_t length, std::optional<int64_t> given, int64_t context) {
  if (length <= context) return length;
  if (!given) return context;
  throw Error(
      ExitCode::kUsage,
      fmt::format("--max-length {}: the model was made for {} tokens; give --max-length {} or leave it out",
                  *given, context, context));
}

}  // namespace rung::cli
