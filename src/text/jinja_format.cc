// Python's two ways to put values into a pattern: '%' and str.format.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_call.h"
#include "text/jinja_ops.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1000;  // of one field, and of digits behind a point

// The form of one field, in the terms of '%': "[flags][width][.precision]type".
struct Form {
  bool left = false, zero = false, plus = false, space = false, alternate = false;
  int64_t width = 0, precision = -1;
  char type = 's';
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int64_t TakeNumber(std::string_view pattern, size_t& at) {
  int64_t number = 0;
  for (; at < pattern.size() && IsDigit(pattern[at]); ++at) {
    number = number * 10 + (pattern[at] - '0');
    if (number > kMaxWidth) Fail("a field of more than 1000 characters");
  }
  return number;
}

// Everything up to the type, which is the character at `at` afterwards.
Form TakeForm(std::string_view pattern, size_t& at) {
  Form form;
  for (; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '-') {
      form.left = true;
    } else if (c == '0') {
      form.zero = true;
    } else if (c == '+') {
      form.plus = true;
    } else if (c == ' ') {
      form.space = true;
    } else if (c == '#') {
      form.alternate = true;
    } else {
      break;
    }
  }
  form.width = TakeNumber(pattern, at);
  if (at < pattern.size() && pattern[at] == '.') form.precision = TakeNumber(pattern, ++at);
  return form;
}

void AppendPadded(Text& out, const Text& text, const Form& form, char fill) {
  const int64_t missing = std::max<int64_t>(form.width - CountChars(text.bytes), 0);
  const std::string padding(static_cast<size_t>(missing), fill);
  if (!form.left) out.Append(padding);
  out.Append(text);
  if (form.left) out.Append(padding);
}

std::string Printed(const Form& form, std::string_view length, auto number) {
  std::string pattern = "%";
  if (form.left) pattern += '-';
  if (form.zero) pattern += '0';
  if (form.plus) pattern += '+';
  if (form.space) pattern += ' ';
  if (form.alternate) pattern += '#';
  pattern += "*.*";
  pattern += length;
  pattern += form.type;
  std::array<char, 2 * kMaxWidth + 400> buffer;  // a double has at most 309 digits before its point
  const int size = std::snprintf(buffer.data(), buffer.size(), pattern.c_str(), static_cast<int>(form.width),
                                 static_cast<int>(form.precision), number);
  if (size < 0 || static_cast<size_t>(size) >= buffer.size()) Fail("a number of too many digits");
  return std::string(buffer.data(), static_cast<size_t>(size));
}

std::string Whole(Form form, const Value& value) {
  const std::optional<double> number = AsNumber(value);
  if (!number || (value.Is<double>() && form.type != 'd'))
    Fail(std::string("'%") + form.type + "' needs an integer, not " + TypeName(value));
  if (!(std::fabs(*number) < 9.2e18) && value.Is<double>()) Fail("an integer of more than 64 bits");
  const int64_t integer = AsInt(value) ? *AsInt(value) : static_cast<int64_t>(*number);
  if (form.precision >= 0) Fail("digits behind a point need '%f'");
  form.precision = form.type == 'd' || integer != 0 ? -1 : 1;
  if (form.type == 'd') return Printed(form, "ll", static_cast<long long>(integer));
  if (integer < 0) Fail("a negative number in another base than 10 is not supported");
  if (form.alternate) Fail("'#' in a pattern is not supported");
  return Printed(form, "ll", static_cast<unsigned long long>(integer));
}

std::string Real(Form form, const Value& value) {
  const std::optional<double> number = AsNumber(value);
  if (!number) Fail(std::string("'%") + form.type + "' needs a number, not " + TypeName(value));
  if (!std::isfinite(*number)) form.zero = false;
  if (form.precision < 0) form.precision = 6;
  return Printed(form, "", *number);
}

void AppendField(Text& out, Form form, const Value& value, Budget& budget) {
  if (value.Is<Undefined>() && form.type != 's') Fail(*value.As<Undefined>()->why);
  switch (form.type) {
    case 's':
    case 'r': {
      Text text = form.type == 's' ? ToText(value, budget) : Repr(value, budget);
      if (form.precision >= 0 && form.precision < CountChars(text.bytes))
        text = Slice(text, 0, CharStarts(text.bytes)[static_cast<size_t>(form.precision)]);
      return AppendPadded(out, text, form, ' ');
    }
    case 'd':
    case 'i':
    case 'u':
      form.type = 'd';
      return out.Append(Whole(form, value));
    case 'x':
    case 'X':
    case 'o':
      return out.Append(Whole(form, value));
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
      return out.Append(Real(form, value));
    default:
      Fail(std::string("a pattern with '%") + form.type + "', which is not supported");
  }
}

// The values that a pattern takes: by name, or one after another.
struct Source {
  const std::vector<Value>& positional;
  const Dict* named;
  size_t used = 0;

  const Value& Next() {
    if (used >= positional.size()) Fail("not enough values for the pattern");
    return positional[used++];
  }
  const Value& Named(Budget& budget, std::string_view name) const {
    const Value* found = named ? Find(*named, MakeString(budget, name), budget) : nullptr;
    if (!found) Fail("the pattern has a name that is not given: '" + std::string(name.substr(0, 100)) + "'");
    return *found;
  }
};

// str.format's "[[fill]align][sign][0][width][.precision][type]", as far as it means the same in '%'.
Form FieldForm(std::string_view spec, const Value& value) {
  size_t at = 0;
  bool left = value.text() != nullptr;
  if (!spec.empty() && (spec[0] == '<' || spec[0] == '>')) left = spec[at++] == '<';
  Form form = TakeForm(spec, at);
  if (form.alternate || form.space || (form.left && left) || at + 1 < spec.size())
    Fail("the format '" + std::string(spec.substr(0, 100)) + "' is not supported");
  form.left = left && !form.zero;
  if (at < spec.size()) {
    form.type = spec[at];
  } else if (AsInt(value) && !value.Is<bool>()) {
    form.type = 'd';
  } else if (value.Is<double>() && form.precision >= 0) {
    form.type = 'g';
  }
  const bool number = form.type != 's';
  if (number == (value.text() != nullptr)) Fail("a format that does not fit " + TypeName(value));
  if (!number && (form.zero || form.plus)) Fail("a format of numbers for " + TypeName(value));
  return form;
}

// One "{...}" of str.format; `field` is what stands between the braces.
void AppendBraced(Text& out, std::string_view field, Source& source, Budget& budget) {
  const size_t colon = std::min(field.find(':'), field.size());
  std::string_view name = field.substr(0, colon);
  const std::string_view spec = field.substr(std::min(colon + 1, field.size()));
  const bool repr = name.ends_with("!r");
  if (repr || name.ends_with("!s")) name.remove_suffix(2);
  if (name.find_first_of(".[!{") != std::string_view::npos)
    Fail("the field '{" + std::string(field.substr(0, 100)) + "}' is not supported");
  size_t index = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool number = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
  if (number && index >= source.positional.size()) Fail("not enough values for the pattern");
  Value value = name.empty() ? source.Next() : number ? source.positional[index] : source.Named(budget, name);
  if (repr) value = MakeText(budget, Repr(value, budget));
  if (spec.empty()) return AppendStr(out, value, budget);
  AppendField(out, FieldForm(spec, value), value, budget);
}

}  // namespace

Value FormatPercent(const Text& pattern, const std::vector<Value>& values, const Dict* named,
                    Budget& budget) {
  Source source{values, named};
  Text out;
  const std::string_view bytes = pattern.bytes;
  for (size_t at = 0; at < bytes.size();) {
    const size_t percent = std::min(bytes.find('%', at), bytes.size());
    out.AppendSlice(pattern, at, percent);
    if (percent == bytes.size()) break;
    at = percent + 1;
    const Value* value = nullptr;
    if (at < bytes.size() && bytes[at] == '(') {
      const size_t end = bytes.find(')', at);
      if (end == std::string_view::npos) Fail("a pattern with '%(' without ')'");
      value = &source.Named(budget, bytes.substr(at + 1, end - at - 1));
      at = end + 1;
    }
    Form form = TakeForm(bytes, at);
    if (at >= bytes.size()) Fail("a pattern that ends within a field");
    form.type = bytes[at++];
    if (form.type == '%') {
      out.Append("%");
    } else {
      AppendField(out, form, value ? *value : source.Next(), budget);
    }
    budget.Step();
    if (out.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
  }
  if (!named && source.used < values.size()) Fail("not all values are used by the pattern");
  return MakeText(budget, std::move(out));
}

Value FormatBraces(const Text& pattern, const Arguments& arguments, Budget& budget) {
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [name, value] : arguments.named) items.emplace_back(MakeString(budget, name), value);
  const Value named = MakeDict(budget, std::move(items));
  Source source{arguments.positional, named.dict()};
  Text out;
  const std::string_view bytes = pattern.bytes;
  for (size_t at = 0; at < bytes.size();) {
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.AppendSlice(pattern, at, brace);
    if (brace == bytes.size()) break;
    budget.Step();
    at = brace + 1;
    if (at < bytes.size() && bytes[at] == bytes[brace]) {
      out.Append(bytes.substr(at++, 1));
      continue;
    }
    const size_t end = bytes.find('}', at);
    if (bytes[brace] == '}' || end == std::string_view::npos) Fail("a pattern with a single brace");
    AppendBraced(out, bytes.substr(at, end - at), source, budget);
    at = end + 1;
    if (out.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
  }
  return MakeText(budget, std::move(out));
}

}  // namespace rung::text::jinja
