#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <span>

#include "base/text.h"
#include "text/piece_cache.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace rung::text {

struct TokenizerImpl::Scratch {
  explicit Scratch(const TokenizerImpl& impl) : pieces(impl.pretokenizer) {}
  PreTokenizer::Scratch pieces;
  Bpe::Scratch bpe;
  Unigram::Scratch unigram;
  PieceCache cache;
  std::vector<AddedTokens::Segment> segments;
  std::vector<int32_t> ids;
};

// The buffers of one call: those of an earlier one, where there are any. A text that made them large does not
// leave them so.
class TokenizerImpl::Lease {
 public:
  explicit Lease(const TokenizerImpl& impl) : impl_(impl) {
    const std::lock_guard<std::mutex> lock(impl.mutex_);
    if (impl.idle_.empty()) return;
    scratch_ = std::move(impl.idle_.back());
    impl.idle_.pop_back();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() {
    if (scratch_->pieces.pieces.capacity() > kMost || scratch_->bpe.symbols.capacity() > kMost ||
        scratch_->unigram.best.capacity() > kMost)
      return;
    const std::lock_guard<std::mutex> lock(impl_.mutex_);
    if (impl_.idle_.size() < kIdle) impl_.idle_.push_back(std::move(scratch_));
  }
  Scratch* get() {
    if (!scratch_) scratch_ = std::make_unique<Scratch>(impl_);
    return scratch_.get();
  }

 private:
  static constexpr size_t kIdle = 64, kMost = size_t{1} << 17;  // calls; entries of a buffer
  const TokenizerImpl& impl_;
  std::unique_ptr<Scratch> scratch_;
};

TokenizerImpl::TokenizerImpl() = default;
TokenizerImpl::~TokenizerImpl() = default;

void TokenizerImpl::EncodeModel(std::string_view piece, Scratch* scratch) const {
  if (scratch->cache.Get(piece, &scratch->ids)) return;
  const size_t before = scratch->ids.size();
  if (unigram)
    unigram->Encode(vocabulary, piece, &scratch->unigram, &scratch->ids);
  else
    bpe.Encode(vocabulary, piece, &scratch->bpe, &scratch->ids);
  scratch->cache.Put(piece, std::span(scratch->ids).subspan(before));
}

void TokenizerImpl::EncodePiece(std::string_view piece, Scratch* scratch) const {
  while (!word_mark.empty()) {
    // The next word begins at a mark that follows something else.
    size_t next = piece.starts_with(word_mark) ? word_mark.size() : 0;
    while (next < piece.size() && piece.substr(next).starts_with(word_mark)) next += word_mark.size();
    next = piece.find(word_mark, next);
    if (next == std::string_view::npos) break;
    EncodeModel(piece.substr(0, next), scratch);
    piece.remove_prefix(next);
  }
  EncodeModel(piece, scratch);
}

// `text` is valid UTF-8 without raw added tokens.
void TokenizerImpl::EncodeNormal(std::string_view text, bool first, bool specials, Scratch* scratch) const {
  std::string normal;
  if (!normalizer.steps.empty()) {
    bool keeps_start = true;
    normal = normalizer.Apply(text, &keeps_start);
    text = normal;
    first &= keeps_start;
  }
  scratch->segments.clear();
  normalized_added.Split(text, specials, &scratch->segments);
  for (const AddedTokens::Segment& segment : scratch->segments) {
    if (segment.id >= 0) {
      scratch->ids.push_back(segment.id);
      continue;
    }
    pretokenizer.Split(segment.text, first && segment.text.data() == text.data(), &scratch->pieces);
    for (const PreTokenizer::Piece& piece : scratch->pieces.pieces) EncodePiece(piece.text, scratch);
  }
}

std::vector<int32_t> TokenizerImpl::Encode(std::string_view text, bool specials) const {
  Lease lease(*this);
  Scratch& scratch = *lease.get();
  scratch.ids.clear();
  std::vector<AddedTokens::Segment> segments;
  raw_added.Split(text, specials, &segments);
  for (const AddedTokens::Segment& segment : segments) {
    if (segment.id >= 0) {
      scratch.ids.push_back(segment.id);
      continue;
    }
    bool first = segment.text.data() == text.data();
    std::string_view rest = segment.text;
    if (IsUtf8(rest)) {
      EncodeNormal(rest, first, specials, &scratch);
      continue;
    }
    // Broken bytes are pieces of their own, so that normal forms and patterns see valid text only.
    while (!rest.empty()) {
      size_t size = 0;
      bool valid = true;
      for (; size < rest.size();) {
        const Utf8Step step = StepUtf8(rest.substr(size));
        if (size == 0) valid = step.valid;
        if (step.valid != valid) break;
        size += step.size;
      }
      if (valid)
        EncodeNormal(rest.substr(0, size), first, specials, &scratch);
      else
        EncodeModel(rest.substr(0, size), &scratch);
      first = false;
      rest.remove_prefix(size);
    }
  }
  return scratch.ids;
}

void TokenizerImpl::AppendPiece(int32_t id, std::string* bytes) const {
  const std::string_view text = vocabulary.Text(id);
  if (vocabulary.Kind(id) == TokenKind::kByte) {
    const int byte = ByteOfToken(text);
    if (byte >= 0) return bytes->push_back(static_cast<char>(byte));
  }
  if (piece_replacements.empty()) {
    bytes->append(text);
    return;
  }
  std::string piece(text);
  for (const auto& [from, to] : piece_replacements)
    for (size_t at = piece.find(from); at != std::string::npos; at = piece.find(from, at + to.size()))
      piece.replace(at, from.size(), to);
  bytes->append(piece);
}

int32_t TokenizerImpl::Find(std::string_view token) const {
  if (const AddedToken* added = raw_added.Find(token)) return added->id;
  if (const AddedToken* added = normalized_added.Find(token)) return added->id;
  return vocabulary.Find(token);
}

bool TokenizerImpl::AddToken(const AddedToken& token) {
  if (vocabulary.Has(token.id)) {
    if (vocabulary.Text(token.id) != token.text) return false;
    // A token of the model stays one, except that a special token must not come out of plain text.
    if (token.special) vocabulary.SetKind(token.id, TokenKind::kControl);
  } else if (!vocabulary.Add(token.id, token.text,
                             token.special ? TokenKind::kControl : TokenKind::kUserDefined)) {
    return false;
  }
  if (!token.normalized) {
    raw_added.Add(token);
  } else {
    AddedToken normal = token;
    normal.text = normalizer.Apply(token.text);
    normalized_added.Add(std::move(normal));
  }
  return true;
}

std::array<int32_t, 256> TokenizerImpl::FindByteTokens() const {
  std::array<int32_t, 256> ids{};
  for (int byte = 0; byte < 256; ++byte)
    ids[static_cast<size_t>(byte)] = vocabulary.Find(fmt::format("<0x{:02X}>", byte));
  return ids;
}

void TokenizerImpl::FindWordMark(std::string_view mark) {
  const int32_t id = vocabulary.Find(mark);
  if (bpe.bytes || bpe.ignore_merges || unigram || id < 0 || vocabulary.Kind(id) == TokenKind::kControl)
    return;
  bool crosses = crosses_words_;
  for (int32_t token = 0; bpe.by_score && token < vocabulary.size(); ++token) {
    const TokenKind of = vocabulary.Kind(token);
    if (of != TokenKind::kNormal && of != TokenKind::kUserDefined) continue;
    std::string_view text = vocabulary.Text(token);
    while (text.starts_with(mark)) text.remove_prefix(mark.size());
    crosses |= text.find(mark) != std::string_view::npos;
  }
  if (!crosses) word_mark = mark;
}

bool TokenizerImpl::SetMerge(std::string_view left, std::string_view right, uint32_t rank) {
  std::string joined;
  if (!bpe.bytes || !AppendAlphabetBytes(left, &joined)) joined += left;
  const size_t middle = joined.size();
  if (!bpe.bytes || !AppendAlphabetBytes(right, &joined)) joined += right;
  const std::string_view text = joined;
  const int32_t a = vocabulary.Find(text.substr(0, middle)), b = vocabulary.Find(text.substr(middle));
  const int32_t id = vocabulary.Find(text);
  if (a < 0 || b < 0 || id < 0) return false;
  bpe.merges.Set(a, b, {rank, id});
  crosses_words_ |= right.starts_with(kSpaceMark) && !left.ends_with(kSpaceMark);
  return true;
}

bool TokenizerImpl::SetMerge(std::string_view pair, uint32_t rank) {
  // The bound keeps a merge of a million spaces from costing the square of that; published runs have 48 at
  // most.
  constexpr int kReadings = 64;
  size_t space = pair.find(' ', 1);
  for (int i = 0; i < kReadings && space < pair.size() - 1; ++i, space = pair.find(' ', space + 1))
    if (SetMerge(pair.substr(0, space), pair.substr(space + 1), rank)) return true;
  return false;
}

void TokenizerImpl::CollectEnds() {
  static constexpr std::string_view kEnds[] = {"<|im_end|>",    "<|eot_id|>",    "<|eom_id|>",     "<|end|>",
                                               "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"};
  if (eos >= 0) end_ids.insert(end_ids.begin(), eos);
  for (const std::string_view text : kEnds) {
    const int32_t id = Find(text);
    if (id >= 0 && vocabulary.Kind(id) == TokenKind::kControl) end_ids.push_back(id);
  }
  std::vector<int32_t> once;
  for (const int32_t id : end_ids)
    if (vocabulary.Has(id) && std::find(once.begin(), once.end(), id) == once.end()) once.push_back(id);
  end_ids = std::move(once);
}

Result<Tokenizer> Tokenizer::FromFolder(const Path& folder) {
  Result<std::shared_ptr<TokenizerImpl>> impl = ReadTokenizerFolder(folder);
  if (!impl.ok()) return impl.failure();
  impl.value()->CollectEnds();
  return Tokenizer(std::move(impl).value());
}

Result<Tokenizer> Tokenizer::FromJson(std::string_view json, const std::string& name) {
  Result<std::shared_ptr<TokenizerImpl>> impl = ReadTokenizerJson(json, name);
  if (!impl.ok()) return impl.failure();
  impl.value()->CollectEnds();
  return Tokenizer(std::move(impl).value());
}

Result<Tokenizer> Tokenizer::FromGguf(const io::Gguf& gguf) {
  Result<std::shared_ptr<TokenizerImpl>> impl = ReadTokenizerGguf(gguf);
  if (!impl.ok()) return impl.failure();
  impl.value()->CollectEnds();
  return Tokenizer(std::move(impl).value());
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const { return impl_->Encode(text, false); }

std::vector<int32_t> Tokenizer::EncodeWithSpecials(std::string_view text) const {
  return impl_->Encode(text, true);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_specials) const {
  std::string bytes;
  for (const int32_t id : ids)
    if (!skip_specials || !IsSpecial(id)) impl_->AppendPiece(id, &bytes);
  std::string_view rest = bytes;
  for (int i = 0; i < impl_->leading_spaces && rest.starts_with(' '); ++i) rest.remove_prefix(1);
  std::string text;
  text.reserve(rest.size());
  AppendRepaired(rest, false, &text);
  return text;
}

std::string Tokenizer::Piece(int32_t id) const {
  std::string bytes;
  impl_->AppendPiece(id, &bytes);
  return bytes;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const TokenKind kind = impl_->vocabulary.Kind(id);
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

int32_t Tokenizer::FindSpecial(std::string_view text) const {
  for (const AddedTokens* added : {&impl_->raw_added, &impl_->normalized_added}) {
    if (const AddedToken* token = added->FirstSpecial(text)) return token->id;
  }
  return -1;
}

int64_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }
int32_t Tokenizer::bos() const { return impl_->bos; }
int32_t Tokenizer::eos() const { return impl_->eos; }
bool Tokenizer::adds_bos() const { return impl_->adds_bos && impl_->bos >= 0; }
const std::vector<int32_t>& Tokenizer::end_ids() const { return impl_->end_ids; }
int32_t Tokenizer::Find(std::string_view token) const { return impl_->Find(token); }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }
const std::string& Tokenizer::kind() const { return impl_->kind; }
int Tokenizer::leading_spaces() const { return impl_->leading_spaces; }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool continues)
    : tokenizer_(tokenizer), leading_spaces_(continues ? 0 : tokenizer.leading_spaces()) {}

std::string StreamDecoder::Push(int32_t id) {
  pending_ += tokenizer_.Piece(id);
  while (leading_spaces_ > 0 && !pending_.empty()) {
    leading_spaces_ = pending_[0] == ' ' ? leading_spaces_ - 1 : 0;
    if (pending_[0] == ' ')
      pending_.erase(0, 1);
    else
      break;
  }
  std::string text;
  pending_.erase(0, AppendRepaired(pending_, true, &text));
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text;
  AppendRepaired(pending_, false, &text);
  pending_.clear();
  return text;
}

}  // namespace rung::text
