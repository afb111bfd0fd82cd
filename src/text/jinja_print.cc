// Values as text: str(), repr() and JSON as Python writes them.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_ops.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

void CheckSize(const Text& out) {
  if (out.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
}

std::string Hex(const char* prefix, int width, uint32_t code) {
  std::array<char, 16> buffer;
  const int size = std::snprintf(buffer.data(), buffer.size(), "%s%0*x", prefix, width, code);
  return std::string(buffer.data(), static_cast<size_t>(size));
}

bool IsPrintable(int32_t code) {
  if (code < 0x7f) return code >= 0x20;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

// One character inside of Python's quotes.
std::string ReprChar(std::string_view bytes, size_t at, char quote) {
  const int32_t code = CodePoint(bytes, at);
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  if (code == '\\' || code == quote) return std::string("\\") + static_cast<char>(code);
  const uint32_t value = code < 0 ? static_cast<unsigned char>(bytes[at]) : static_cast<uint32_t>(code);
  if (code >= 0 && IsPrintable(code)) return std::string(bytes.substr(at, CharLength(bytes, at)));
  return value < 0x100 ? Hex("\\x", 2, value) : value < 0x10000 ? Hex("\\u", 4, value) : Hex("\\U", 8, value);
}

void AppendReprText(Text& out, const Text& text) {
  const bool apostrophe = text.bytes.find('\'') != std::string::npos;
  const char quote = apostrophe && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  out.bytes += quote;
  for (size_t at = 0; at < text.bytes.size(); at += CharLength(text.bytes, at)) {
    out.AppendAs(ReprChar(text.bytes, at, quote), text, at);
    CheckSize(out);
  }
  out.bytes += quote;
}

std::string JsonChar(std::string_view bytes, size_t at, bool ascii) {
  const int32_t code = CodePoint(bytes, at);
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  if (code >= 0 && code < 0x20) return Hex("\\u", 4, static_cast<uint32_t>(code));
  if (!ascii || code < 0x7f) return std::string(bytes.substr(at, CharLength(bytes, at)));
  const uint32_t value = static_cast<uint32_t>(code);
  if (value < 0x10000) return Hex("\\u", 4, value);
  return Hex("\\u", 4, 0xd800 + ((value - 0x10000) >> 10)) +
         Hex("\\u", 4, 0xdc00 + ((value - 0x10000) & 0x3ff));
}

void AppendJsonText(Text& out, const Text& text, bool ascii) {
  out.bytes += '"';
  for (size_t at = 0; at < text.bytes.size(); at += CharLength(text.bytes, at)) {
    out.AppendAs(JsonChar(text.bytes, at, ascii), text, at);
    CheckSize(out);
  }
  out.bytes += '"';
}

std::string JsonNumber(const Value& value) {
  if (const int64_t* number = value.As<int64_t>()) return std::to_string(*number);
  const double number = *value.As<double>();
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return FloatRepr(number);
}

void AppendJsonKey(Text& out, const Value& key, bool ascii) {
  if (const Text* text = key.text()) return AppendJsonText(out, *text, ascii);
  std::string name = "null";
  if (const bool* flag = key.As<bool>()) name = *flag ? "true" : "false";
  if (key.Is<int64_t>() || key.Is<double>()) name = JsonNumber(key);
  out.Append("\"" + name + "\"");
}

void AppendRepr(Text& out, const Value& value, Budget& budget);

template <class List, class Each>
void AppendJoined(Text& out, const List& items, const Each& each) {
  bool first = true;
  for (const auto& item : items) {
    if (!first) out.Append(", ");
    first = false;
    each(item);
    CheckSize(out);
  }
}

void AppendReprDict(Text& out, const Dict& dict, Budget& budget) {
  out.Append("{");
  AppendJoined(out, dict.items, [&](const auto& item) {
    AppendRepr(out, item.first, budget);
    out.Append(": ");
    AppendRepr(out, item.second, budget);
  });
  out.Append("}");
}

void AppendRepr(Text& out, const Value& value, Budget& budget) {
  budget.Step();
  if (const Text* text = value.text()) {
    budget.Work(text->bytes.size());
    return AppendReprText(out, *text);
  }
  if (value.Is<Undefined>()) return out.Append("Undefined");
  if (const List* list = value.list()) {
    out.Append(list->tuple ? "(" : "[");
    AppendJoined(out, list->items, [&](const Value& item) { AppendRepr(out, item, budget); });
    if (list->tuple && list->items.size() == 1) out.Append(",");
    return out.Append(list->tuple ? ")" : "]");
  }
  if (const Dict* dict = value.dict()) return AppendReprDict(out, *dict, budget);
  AppendStr(out, value, budget);
}

void NewLine(Text& out, const JsonStyle& style, int64_t level) {
  if (!style.indent) return;
  out.bytes += '\n';
  for (int64_t i = 0; i < level; ++i) out.bytes += *style.indent;
  CheckSize(out);
}

// A separator in front of all items but the first; with an indent, a trailing space of it is not wanted.
void Separate(Text& out, const JsonStyle& style, int64_t level, bool first) {
  if (!first) out.Append(style.item);
  NewLine(out, style, level);
}

void AppendJsonDict(Text& out, const Dict& dict, const JsonStyle& style, int64_t level, Budget& budget) {
  std::vector<const std::pair<Value, Value>*> items;
  for (const auto& item : dict.items) items.push_back(&item);
  if (style.sort)
    std::stable_sort(items.begin(), items.end(),
                     [&](const auto* a, const auto* b) { return Compare(a->first, b->first, budget) < 0; });
  if (items.empty()) return out.Append("{}");
  out.Append("{");
  for (size_t i = 0; i < items.size(); ++i) {
    Separate(out, style, level + 1, i == 0);
    AppendJsonKey(out, items[i]->first, style.ascii);
    out.Append(style.key);
    AppendJson(out, items[i]->second, style, level + 1, budget);
  }
  NewLine(out, style, level);
  out.Append("}");
}

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 32> buffer;
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string scientific(buffer.data(), end.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;  // both write at least two digits of exponent
  std::array<char, 64> fixed;
  const auto stop = std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed);
  std::string text(fixed.data(), stop.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

void AppendStr(Text& out, const Value& value, Budget& budget) {
  if (const Text* text = value.text()) {
    budget.Work(text->bytes.size());
    out.Append(*text);
  } else if (value.Is<Undefined>()) {
    return;
  } else if (value.Is<None>()) {
    out.Append("None");
  } else if (const bool* flag = value.As<bool>()) {
    out.Append(*flag ? "True" : "False");
  } else if (const int64_t* number = value.As<int64_t>()) {
    out.Append(std::to_string(*number));
  } else if (const double* real = value.As<double>()) {
    out.Append(FloatRepr(*real));
  } else if (value.list() || value.dict()) {
    AppendRepr(out, value, budget);
  } else {
    out.Append("<" + TypeName(value).substr(2) + ">");
  }
  CheckSize(out);
}

Text Repr(const Value& value, Budget& budget) {
  Text out;
  AppendRepr(out, value, budget);
  CheckSize(out);
  return out;
}

Text ToText(const Value& value, Budget& budget) {
  Text out;
  AppendStr(out, value, budget);
  return out;
}

void AppendJson(Text& out, const Value& value, const JsonStyle& style, int64_t level, Budget& budget) {
  budget.Step();
  CheckSize(out);
  if (const Text* text = value.text()) {
    budget.Work(text->bytes.size());
    return AppendJsonText(out, *text, style.ascii);
  }
  if (value.Is<None>()) return out.Append("null");
  if (const bool* flag = value.As<bool>()) return out.Append(*flag ? "true" : "false");
  if (value.Is<int64_t>() || value.Is<double>()) return out.Append(JsonNumber(value));
  if (const Dict* dict = value.dict()) return AppendJsonDict(out, *dict, style, level, budget);
  const List* list = value.list();
  if (!list) Fail("tojson does not take " + TypeName(value));
  if (list->items.empty()) return out.Append("[]");
  out.Append("[");
  for (size_t i = 0; i < list->items.size(); ++i) {
    Separate(out, style, level + 1, i == 0);
    AppendJson(out, list->items[i], style, level + 1, budget);
  }
  NewLine(out, style, level);
  out.Append("]");
}

}  // namespace rung::text::jinja
