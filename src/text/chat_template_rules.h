// For tests: what each template under tests/data makes of an assistant's turn, said independently of the
// interpreter, and conversations to try it on.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace rung::text {

inline std::string Trim(const std::string& text, const std::string& spaces = " \t\n") {
  const size_t begin = text.find_first_not_of(spaces);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(spaces) + 1 - begin);
}

inline std::string TrimLeft(const std::string& text, const std::string& spaces) {
  return text.substr(std::min(text.find_first_not_of(spaces), text.size()));
}

// What a template makes of an assistant's content.
inline std::string AsItIs(const std::string& content, bool) { return content; }
inline std::string Trimmed(const std::string& content, bool) { return Trim(content); }
inline std::string BehindThinking(const std::string& content, bool) {
  const size_t at = content.rfind("</think>");
  return at == std::string::npos ? content : content.substr(at + 8);
}
inline std::string LinesClosed(const std::string& content,
                               bool) {  // Falcon's: an empty line becomes a line end
  std::string out;
  for (size_t at = 0; at < content.size(); ++at) {
    out += content[at];
    if (content.compare(at, 2, "\n\n") == 0) ++at;
  }
  return out;
}
// Qwen3's: without the reasoning, which the last turn keeps.
inline std::string Qwen3(const std::string& content, bool last) {
  const size_t end = content.rfind("</think>");
  if (end == std::string::npos) return last ? TrimLeft(content, "\n") : content;
  const std::string answer = TrimLeft(content.substr(end + 8), "\n");
  const std::string before = content.substr(0, content.find("</think>"));
  const size_t begin = before.rfind("<think>");
  const std::string thinking = Trim(begin == std::string::npos ? before : before.substr(begin + 7), "\n");
  return last && !thinking.empty() ? thinking + "\n</think>\n\n" + answer : answer;
}
// GLM's: the same, on lines of its own, spaces trimmed everywhere.
inline std::string Glm4(const std::string& content, bool last) {
  const size_t end = content.rfind("</think>");
  if (end == std::string::npos) return Trim(content);
  const std::string answer = Trim(content.substr(end + 8));
  const std::string before = content.substr(0, content.find("</think>"));
  const size_t begin = before.rfind("<think>");
  const std::string thinking = Trim(begin == std::string::npos ? before : before.substr(begin + 7));
  if (!last || thinking.empty()) return answer;
  return thinking + "</think>" + (answer.empty() ? "" : "\n" + answer);
}

// What a template writes between the generation prompt and an assistant's content.
inline std::string Nothing(const std::string&, bool) { return ""; }
inline std::string Space(const std::string&, bool) { return " "; }
inline std::string FinalChannel(const std::string&, bool) { return "<|channel|>final<|message|>"; }
inline std::string Qwen3Lead(const std::string& content, bool last) {
  if (!last) return "";
  return Qwen3(content, true).find("</think>") == std::string::npos ? "<think>\n\n</think>\n\n" : "<think>\n";
}
inline std::string Glm4Lead(const std::string& content, bool last) {
  return last && Glm4(content, true).find("</think>") != std::string::npos ? "\n<think>"
                                                                           : "\n<think></think>\n";
}

struct Rule {
  const char* name;
  const char* marker;
  std::string (*content)(const std::string&, bool last);
  bool system = true;                 // it takes a system message
  const char* last_marker = nullptr;  // of the last turn, where it differs
  std::string (*lead)(const std::string&, bool last) = Nothing;

  // A turn from the end of the generation prompt on; "" where no byte of it is the assistant's.
  std::string Turn(const std::string& said, bool last) const {
    const std::string own = content(said, last);
    return own.empty() ? "" : lead(said, last) + own + (last && last_marker ? last_marker : marker);
  }
};

inline constexpr Rule kRules[] = {
    {"alpaca", "</s>", Trimmed},
    {"chatml", "<|im_end|>", AsItIs},
    {"command_r", "<|END_OF_TURN_TOKEN|>", Trimmed},
    {"deepseek_r1", "<｜end▁of▁sentence｜>", BehindThinking},
    {"exaone", "[|endofturn|]", AsItIs},
    {"falcon", "</s>", LinesClosed, true, nullptr, Space},
    {"gemma", "<end_of_turn>", Trimmed, false},
    {"gemma3", "<end_of_turn>", Trimmed},
    {"glm4", "", Glm4, true, nullptr, Glm4Lead},
    {"granite", "<|end_of_text|>", AsItIs},
    {"harmony", "<|end|>", AsItIs, true, "<|return|>", FinalChannel},
    {"hermes", "<|im_end|>", AsItIs},
    {"lfm2", "<|im_end|>", AsItIs},
    {"llama2", " </s>", Trimmed, true, nullptr, Space},
    {"llama3", "<|eot_id|>", Trimmed},
    {"llama3.1", "<|eot_id|>", Trimmed},
    {"macro", "</s>", Trimmed},
    {"mistral", "</s>", AsItIs, false},
    {"mistral_system", "</s>", Trimmed, true, nullptr, Space},
    {"mistral_tools", "</s>", AsItIs, true, nullptr, Space},
    {"olmo2", "</s>", AsItIs},
    {"openchat", "<|end_of_turn|>", AsItIs, true, nullptr, Space},
    {"phi3", "<|end|>", AsItIs, false},
    {"phi4", "<|end|>", AsItIs},
    {"qwen2.5", "<|im_end|>", AsItIs},
    {"qwen3", "<|im_end|>", Qwen3, true, nullptr, Qwen3Lead},
    {"smollm2", "<|im_end|>", AsItIs},
    {"vicuna", "</s>", Trimmed, true, nullptr, Space},
    {"zephyr", "</s>", AsItIs},
};

inline std::string RandomContent(std::mt19937& random) {
  static const std::vector<std::string> kWords = {"a",       "word",
                                                  " ",       " ",
                                                  "\n",      "\n\n",
                                                  "\t",      "é",
                                                  "世界",    "🌍",
                                                  "\"",      "'",
                                                  "{{ x }}", "{% if %}",
                                                  "\\n",     "<|im_end|>",
                                                  "</s>",    "<think>\nhm\n</think>\n\n",
                                                  "[INST]",  "assistant",
                                                  "user",    "<|assistant|>",
                                                  "0"};
  std::string content;
  for (size_t left = random() % 8; left > 0; --left) content += kWords[random() % kWords.size()];
  return content;
}

}  // namespace rung::text
