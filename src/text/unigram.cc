#include "text/unigram.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "base/error.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

constexpr uint32_t kNowhere = std::numeric_limits<uint32_t>::max();
constexpr double kUnknownPenalty = 10;  // below the worst token, as SentencePiece has it

}  // namespace

void Unigram::Build(const Vocabulary& vocabulary, std::vector<double> scores, int32_t unknown) {
  scores_ = std::move(scores);
  unknown_ = unknown;
  unknown_score_ =
      (scores_.empty() ? 0 : *std::min_element(scores_.begin(), scores_.end())) - kUnknownPenalty;

  std::vector<int32_t> order;
  for (int32_t id = 0; id < static_cast<int32_t>(scores_.size()); ++id)
    if (vocabulary.Kind(id) != TokenKind::kControl && !vocabulary.Text(id).empty()) order.push_back(id);
  const auto text = [&](size_t i) { return vocabulary.Text(order[i]); };
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return vocabulary.Text(a) < vocabulary.Text(b); });

  // Breadth first: a node stands for the tokens [begin,end) of `order`, which agree in their first `depth`
  // bytes.
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, order.size(), 0}};
  nodes_.assign(1, Node{});
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const Range range = ranges[node];
    size_t at = range.begin;
    if (at < range.end && text(at).size() == range.depth) nodes_[node].id = order[at++];
    nodes_[node].children = static_cast<uint32_t>(nodes_.size());
    while (at < range.end) {
      const auto label = static_cast<uint8_t>(text(at)[range.depth]);
      const size_t begin = at;
      while (at < range.end && static_cast<uint8_t>(text(at)[range.depth]) == label) ++at;
      Node& child = nodes_.emplace_back();
      child.label = label;
      ranges.push_back({begin, at, range.depth + 1});
      ++nodes_[node].count;
    }
  }
}

const Unigram::Node* Unigram::Child(const Node& node, uint8_t label) const {
  const Node* begin = nodes_.data() + node.children;
  const Node* end = begin + node.count;
  const Node* found =
      std::lower_bound(begin, end, label, [](const Node& child, uint8_t byte) { return child.label < byte; });
  return found != end && found->label == label ? found : nullptr;
}

void Unigram::FindBest(std::string_view piece, Scratch* scratch) const {
  std::vector<Scratch::Best>& best = scratch->best;
  best.assign(piece.size() + 1, {0, -1, kNowhere});
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    Scratch::Best& target = best[end];
    if (target.begin == kNowhere || score > target.score) target = {score, id, static_cast<uint32_t>(begin)};
  };
  for (size_t at = 0; at < piece.size();) {
    const double so_far = best[at].score;
    const size_t character = StepUtf8(piece.substr(at)).size;
    bool single = false;
    const Node* node = nodes_.data();
    for (size_t end = at; end < piece.size();) {
      node = Child(*node, static_cast<uint8_t>(piece[end]));
      if (node == nullptr) break;
      ++end;
      if (node->id < 0) continue;
      offer(at, end, scores_[static_cast<size_t>(node->id)] + so_far, node->id);
      single |= end - at == character;
    }
    if (!single) offer(at, at + character, unknown_score_ + so_far, unknown_);
    at += character;
  }
}

void Unigram::PushUnknown(const Vocabulary& vocabulary, std::string_view text,
                          std::vector<int32_t>* ids) const {
  const int32_t id = vocabulary.FindPlain(text);
  if (id >= 0) return ids->push_back(id);
  const auto byte_id = [&](char c) { return byte_ids[static_cast<uint8_t>(c)]; };
  if (byte_fallback && std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
    for (const char c : text) ids->push_back(byte_id(c));
    return;
  }
  if (unknown_ >= 0) ids->push_back(unknown_);
}

void Unigram::Encode(const Vocabulary& vocabulary, std::string_view piece, Scratch* scratch,
                     std::vector<int32_t>* ids) const {
  RUNG_CHECK(piece.size() < (size_t{1} << 31), "a piece of text is less than 2 GiB");
  FindBest(piece, scratch);
  scratch->tokens.clear();
  for (auto end = static_cast<uint32_t>(piece.size()); end > 0; end = scratch->best[end].begin)
    scratch->tokens.emplace_back(scratch->best[end].begin, scratch->best[end].id);
  auto& tokens = scratch->tokens;  // from the last to the first
  for (size_t i = tokens.size(); i > 0; --i) {
    const auto [begin, id] = tokens[i - 1];
    if (id >= 0 && id != unknown_) {
      ids->push_back(id);
      continue;
    }
    while (i > 1 && tokens[i - 2].second == id) --i;
    const size_t end = i > 1 ? tokens[i - 2].first : piece.size();
    PushUnknown(vocabulary, piece.substr(begin, end - begin), ids);
  }
}

}  // namespace rung::text
