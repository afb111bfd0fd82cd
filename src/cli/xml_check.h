// For tests: whether a text is well-formed as far as our drawings use XML (elements, attributes, text,
// entities; no comments, declarations or CDATA).
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace rung::cli {

// What is wrong and where; empty: nothing.
inline std::string XmlFault(const std::string& text) {
  const auto fault = [](const char* what, size_t at) {
    return std::string(what) + " at " + std::to_string(at);
  };
  const auto bad_entity = [&](const std::string& part) {
    for (size_t at = 0; (at = part.find('&', at)) != std::string::npos; ++at) {
      const std::string name = part.substr(at + 1, part.find(';', at) - at - 1);
      if (name != "amp" && name != "lt" && name != "gt" && name != "quot" && name != "#39") return true;
    }
    return false;
  };
  std::vector<std::string> open;
  size_t roots = 0;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '<') {
      const size_t end = std::min(text.find('<', at), text.size());
      const std::string part = text.substr(at, end - at);
      if (open.empty() && part.find_first_not_of(" \n") != std::string::npos)
        return fault("text outside", at);
      if (part.find('>') != std::string::npos || bad_entity(part)) return fault("bare character", at);
      at = end;
      continue;
    }
    const size_t end = text.find('>', at);
    if (end == std::string::npos) return fault("open tag", at);
    std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1)) return fault("unbalanced tag", at);
      open.pop_back();
    } else {
      const bool closed = tag.ends_with("/");
      if (closed) tag.pop_back();
      if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return fault("open quote", at);
      if (tag.find('<') != std::string::npos || bad_entity(tag)) return fault("bare character in a tag", at);
      if (open.empty() && ++roots > 1) return fault("second root", at);
      if (!closed) open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  if (!open.empty()) return fault("unclosed element", text.size());
  return roots == 1 ? "" : "no root";
}

}  // namespace rung::cli
