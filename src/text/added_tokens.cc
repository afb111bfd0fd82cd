#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

size_t StartOfLastCharacter(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool IsWord(std::string_view character) {
  const Utf8Step step = StepUtf8(character);
  if (!step.valid) return false;
  return IsWordCharacter(step.code_point);
}

bool EndsInSpace(std::string_view text) {
  const Utf8Step step = StepUtf8(text.substr(StartOfLastCharacter(text)));
  return step.valid && IsSpace(step.code_point);
}

bool BeginsWithSpace(std::string_view text) {
  const Utf8Step step = StepUtf8(text);
  return step.valid && IsSpace(step.code_point);
}

}  // namespace

void AddedTokens::Add(AddedToken token) {
  if (token.text.empty() || !index_.emplace(token.text, tokens_.size()).second) return;
  std::vector<size_t>& sizes = sizes_[static_cast<uint8_t>(token.text[0])];
  const auto place = std::lower_bound(sizes.begin(), sizes.end(), token.text.size(), std::greater<>());
  if (place == sizes.end() || *place != token.text.size()) sizes.insert(place, token.text.size());
  has_plain_ |= !token.special;
  tokens_.push_back(std::move(token));
}

const AddedToken* AddedTokens::Find(std::string_view text) const {
  const auto found = index_.find(text);
  return found == index_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Match(std::string_view text, size_t at) const {
  for (const size_t size : sizes_[static_cast<uint8_t>(text[at])]) {
    if (size > text.size() - at) continue;
    if (const AddedToken* token = Find(text.substr(at, size))) return token;
  }
  return nullptr;
}

const AddedToken* AddedTokens::FirstSpecial(std::string_view text) const {
  for (size_t at = 0; !tokens_.empty() && at < text.size(); ++at) {
    const AddedToken* token = Match(text, at);
    if (token != nullptr && token->special) return token;
  }
  return nullptr;
}

// A match that does not count is stepped over, as is one that begins in the space that the token before it
// took.
void AddedTokens::Split(std::string_view text, bool specials, std::vector<Segment>* segments) const {
  size_t done = 0;
  const bool any = specials ? !tokens_.empty() : has_plain_;
  for (size_t at = 0; any && at < text.size();) {
    const AddedToken* token = Match(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->text.size();
    at = end;
    if (token->special && !specials) continue;
    const bool inside = (begin > 0 && IsWord(text.substr(StartOfLastCharacter(text.substr(0, begin))))) ||
                        (end < text.size() && IsWord(text.substr(end)));
    if (token->single_word && inside) continue;
    if (token->lstrip) {
      while (begin > 0 && EndsInSpace(text.substr(0, begin)))
        begin = StartOfLastCharacter(text.substr(0, begin));
      begin = std::max(begin, done);
    }
    while (token->rstrip && end < text.size() && BeginsWithSpace(text.substr(end)))
      end += StepUtf8(text.substr(end)).size;
    if (begin > done) segments->push_back({text.substr(done, begin - done), -1});
    if (end > begin) segments->push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  if (done != text.size()) segments->push_back({text.substr(done), -1});
}

}  // namespace rung::text
