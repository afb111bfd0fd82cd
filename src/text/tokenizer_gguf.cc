// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2") or SentencePiece BPE ("llama").
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

std::string Where(const io::Gguf& gguf, std::string_view key) {
  return fmt::format("{}: tokenizer.ggml.{}", gguf.name(), key);
}

TokenKind KindOf(int64_t type) {
  return type >= 1 && type <= 6 ? static_cast<TokenKind>(type) : TokenKind::kNormal;
}

Status ReadTokens(const io::Gguf& gguf, TokenizerImpl* impl) {
  const auto* tokens = gguf.GetStrings("tokenizer.ggml.tokens");
  const auto* types = gguf.GetInts("tokenizer.ggml.token_type");
  if (tokens == nullptr || tokens->empty()) return Failure{Where(gguf, "tokens") + ": missing"};
  if (types != nullptr && types->size() != tokens->size())
    return Failure{fmt::format("{}: {} entries for {} tokens", Where(gguf, "token_type"), types->size(),
                               tokens->size())};
  std::string bytes;
  for (size_t id = 0; id < tokens->size(); ++id) {
    const std::string& text = (*tokens)[id];
    TokenKind kind = types == nullptr ? TokenKind::kNormal : KindOf((*types)[id]);
    bytes.clear();
    // Special and added tokens are written as they are, the others in the byte alphabet.
    const bool is_alphabet =
        impl->bpe.bytes && kind == TokenKind::kNormal && AppendAlphabetBytes(text, &bytes);
    if (impl->bpe.bytes && kind == TokenKind::kNormal && !is_alphabet) kind = TokenKind::kUnused;
    if (!impl->vocabulary.Add(static_cast<int64_t>(id), is_alphabet ? bytes : text, kind))
      return Failure{fmt::format("{}: token {} is one too many", Where(gguf, "tokens"), id)};
    if (kind != TokenKind::kControl && kind != TokenKind::kUserDefined) continue;
    AddedToken added;
    added.text = text;
    added.id = static_cast<int32_t>(id);
    added.special = kind == TokenKind::kControl;
    impl->AddToken(added);
  }
  impl->vocabulary.BuildIndex();
  return Ok{};
}

Status ReadMerges(const io::Gguf& gguf, TokenizerImpl* impl) {
  const auto* merges = gguf.GetStrings("tokenizer.ggml.merges");
  if (merges == nullptr) return Failure{Where(gguf, "merges") + ": missing"};
  impl->bpe.merges.Reserve(merges->size());
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string& merge = (*merges)[rank];
    if (!impl->SetMerge(merge, static_cast<uint32_t>(rank)))
      return Failure{
          fmt::format("{}: merge {}: '{:.80}': expected two tokens of the vocabulary that join into a third",
                      Where(gguf, "merges"), rank, merge)};
  }
  return Ok{};
}

// Which text each name of tokenizer.ggml.pre stands for. An absent name is GPT-2's: files without one are
// older than the key, and nearly all of that family.
Status ReadPattern(const io::Gguf& gguf, TokenizerImpl* impl) {
  struct Known {
    std::string_view name;
    const KnownPattern& pattern;
    // As Llama-3's own tokenizer: whole words of the vocabulary are not merged, and BOS comes first.
    bool llama3 = false;
  };
  static const Known kKnown[] = {{"gpt-2", kGpt2Pattern},
                                 {"gpt2", kGpt2Pattern},
                                 {"olmo", kGpt2Pattern},
                                 {"phi-2", kGpt2Pattern},
                                 {"mpt", kGpt2Pattern},
                                 {"default", kGpt2Pattern},
                                 {"qwen2", kQwen2Pattern},
                                 {"deepseek-r1-qwen", kQwen2Pattern},
                                 {"llama-bpe", kLlama3Pattern, true},
                                 {"llama3", kLlama3Pattern, true},
                                 {"llama-v3", kLlama3Pattern, true},
                                 {"dbrx", kLlama3Pattern},
                                 {"smollm", kSmolLmPattern},
                                 {"starcoder", kSmolLmPattern},
                                 {"refact", kSmolLmPattern}};
  const std::string* pre = gguf.GetString("tokenizer.ggml.pre");
  const std::string_view name = pre == nullptr ? kGpt2Pattern.name : std::string_view(*pre);
  const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                   [&](const Known& entry) { return entry.name == name; });
  if (known == std::end(kKnown))
    return Failure{
        fmt::format("{}: pre-tokenizer '{:.60}' is not supported: use the model's folder with tokenizer.json",
                    Where(gguf, "pre"), name)};
  const KnownPattern& pattern = known->pattern;
  if (pattern.digits_first)
    impl->pretokenizer.steps.push_back(SplitAtCharacters(IsNumber, SplitBehavior::kIsolated));
  impl->pretokenizer.steps.push_back(SplitAt(pattern.pattern, SplitBehavior::kIsolated).OrThrow());
  // What the file does not say and the models' own tokenizers do.
  const std::string* family = gguf.GetString("general.architecture");
  if (&pattern == &kQwen2Pattern || (family != nullptr && *family == "gptneox"))
    impl->normalizer.steps.emplace_back().kind = NormalStep::Kind::kNfc;
  impl->bpe.ignore_merges = impl->adds_bos = known->llama3;
  impl->kind = fmt::format("byte-level bpe ({})", pattern.name);
  return Ok{};
}

Status ReadByteLevel(const io::Gguf& gguf, TokenizerImpl* impl) {
  Status status = ReadPattern(gguf, impl);
  if (!status.ok()) return status;
  status = ReadTokens(gguf, impl);
  if (!status.ok()) return status;
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    const int32_t id = impl->vocabulary.Find({&text, 1});
    const bool normal = impl->vocabulary.Kind(id) == TokenKind::kNormal;
    impl->bpe.byte_ids[static_cast<size_t>(byte)] = normal ? id : -1;
  }
  return ReadMerges(gguf, impl);
}

Status ReadSentencePiece(const io::Gguf& gguf, TokenizerImpl* impl) {
  impl->bpe.bytes = false;
  impl->bpe.by_score = true;
  impl->adds_bos = true;
  impl->kind = "sentencepiece bpe";
  if (gguf.GetBool("tokenizer.ggml.add_space_prefix").value_or(true)) {
    NormalStep& prepend = impl->normalizer.steps.emplace_back();
    prepend.kind = NormalStep::Kind::kPrepend;
    prepend.to = kSpaceMark;
    impl->leading_spaces = 1;
  }
  NormalStep& replace = impl->normalizer.steps.emplace_back();
  replace.kind = NormalStep::Kind::kReplace;
  replace.from = " ";
  replace.to = kSpaceMark;
  impl->piece_replacements.emplace_back(std::string(kSpaceMark), " ");

  Status status = ReadTokens(gguf, impl);
  if (!status.ok()) return status;
  impl->bpe.byte_ids = impl->FindByteTokens();
  const auto* scores = gguf.GetFloats("tokenizer.ggml.scores");
  if (scores == nullptr || static_cast<int64_t>(scores->size()) != impl->vocabulary.size())
    return Failure{fmt::format("{}: {} entries for {} tokens", Where(gguf, "scores"),
                               scores == nullptr ? 0 : scores->size(), impl->vocabulary.size())};
  if (std::any_of(scores->begin(), scores->end(), [](double score) { return std::isnan(score); }))
    return Failure{Where(gguf, "scores") + ": a score is not a number"};
  std::vector<uint32_t> order(scores->size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return (*scores)[a] > (*scores)[b]; });
  impl->bpe.score_ranks.resize(scores->size());
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && (*scores)[order[i]] != (*scores)[order[i - 1]]) ++rank;
    impl->bpe.score_ranks[order[i]] = rank;
  }
  impl->FindWordMark(kSpaceMark);
  return Ok{};
}

// Ids beyond the vocabulary mean "none": writers put 2^32 - 1.
int32_t IdOf(const io::Gguf& gguf, std::string_view key, const TokenizerImpl& impl) {
  const std::optional<int64_t> id = gguf.GetInt(fmt::format("tokenizer.ggml.{}_token_id", key));
  return id && impl.vocabulary.Has(*id) ? static_cast<int32_t>(*id) : -1;
}

}  // namespace

Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerGguf(const io::Gguf& gguf) {
  const std::string* model = gguf.GetString("tokenizer.ggml.model");
  if (model == nullptr) return Failure{Where(gguf, "model") + ": missing: the file carries no tokenizer"};
  auto impl = std::make_shared<TokenizerImpl>();
  impl->bpe.byte_ids.fill(-1);
  if (*model != "gpt2" && *model != "llama")
    return Failure{
        fmt::format("{}: '{:.60}' is not supported, only gpt2 and llama are", Where(gguf, "model"), *model)};
  const Status status =
      *model == "gpt2" ? ReadByteLevel(gguf, impl.get()) : ReadSentencePiece(gguf, impl.get());
  if (!status.ok()) return status.failure();
  impl->bos = IdOf(gguf, "bos", *impl);
  impl->eos = IdOf(gguf, "eos", *impl);
  // Bytes that a byte-level vocabulary lacks are dropped: files name <|endoftext|> as unknown there, which no
  // text may yield.
  if (!impl->bpe.bytes) impl->bpe.unknown = IdOf(gguf, "unknown", *impl);
  for (const char* key : {"eot", "eom"}) {
    const int32_t id = IdOf(gguf, key, *impl);
    if (id >= 0) impl->end_ids.push_back(id);
  }
  impl->adds_bos = gguf.GetBool("tokenizer.ggml.add_bos_token").value_or(impl->adds_bos);
  if (const std::string* source = gguf.GetString("tokenizer.chat_template")) impl->chat_template = *source;
  return impl;
}

}  // namespace rung::text
