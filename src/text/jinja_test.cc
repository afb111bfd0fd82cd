// The language, against what Python's jinja2 wrote (tools/make_template_fixtures.py).
#include <gtest/gtest.h>

#include <ctime>

#include "text/chat_template.h"
#include "text/chat_template_fixture.h"

namespace rung::text {
namespace {

Result<Rendered> RenderSource(std::string_view source, const std::vector<Message>& messages = {}) {
  Result<ChatTemplate> parsed = ChatTemplate::Parse(source, "test");
  if (!parsed.ok()) return parsed.failure();
  return parsed.value().Render(messages, false, "", "");
}

std::string FailureOf(std::string_view source) {
  const Result<Rendered> rendered = RenderSource(source);
  return rendered.ok() ? "no failure, but: " + rendered.value().text.substr(0, 200)
                       : rendered.failure().message;
}

TEST(Jinja, EqualsPython) {
  const OrderedJson& golden = TemplateGolden();
  const std::vector<Message> context = MessagesOf(golden.at("context"));
  const RenderOptions options = OptionsOf(golden.at("context"));
  ASSERT_GE(golden.at("language").size(), 450u);
  for (const auto& entry : golden.at("language")) {
    const std::string source = entry.at("source");
    const Result<ChatTemplate> parsed = ChatTemplate::Parse(source, "test");
    const Result<Rendered> rendered =
        parsed.ok() ? parsed.value().Render(context, options) : Result<Rendered>(parsed.failure());
    if (entry.contains("error")) {
      EXPECT_FALSE(rendered.ok()) << source << "\nPython: " << entry.at("error")
                                  << "\nhere: " << (rendered.ok() ? rendered.value().text : "");
    } else {
      ASSERT_TRUE(rendered.ok()) << source << "\n" << rendered.failure().message;
      EXPECT_EQ(rendered.value().text, entry.at("output").get<std::string>()) << source;
    }
  }
}

TEST(Jinja, ErrorsSayWhere) {
  EXPECT_EQ(FailureOf("one\n{{ 1 }}\n  é {{ 'x' | foo }}"),
            "template of test: line 3, column 14: unknown filter 'foo'");
  EXPECT_EQ(FailureOf("{% if true %}\n{{ nothing.x }}{% endif %}"),
            "template of test: line 2, column 12: 'nothing' is undefined");
  EXPECT_EQ(FailureOf("a\n{% include 'x' %}"),
            "template of test: line 2, column 4: the tag 'include' is not supported");
  EXPECT_EQ(FailureOf("{% for x in y %}"),
            "template of test: line 1, column 15: a block that never ends: 'endfor' is missing");
  EXPECT_EQ(FailureOf("{{ raise_exception('no: ' ~ 1) }}"), "template of test: no: 1");
  EXPECT_EQ(FailureOf("{% for x in y recursive %}{% endfor %}"),
            "template of test: line 1, column 15: 'recursive' loops are not supported");
  EXPECT_EQ(FailureOf("\n{{ 1 + f(*2) }}"),
            "template of test: line 2, column 11: cannot iterate over an integer");
  EXPECT_EQ(FailureOf("{{ '%y' % 1 }}"),
            "template of test: line 1, column 9: a pattern with '%y', which is not supported");
  EXPECT_EQ(FailureOf("{% set m = messages.append(1) %}"),
            "template of test: line 1, column 21: 'append' would change a list, which templates may not: "
            "build a new one");
}

TEST(Jinja, SeesNothingButData) {
  EXPECT_EQ(RenderSource("{{ ''.__class__ is defined }}{{ [].__init__ is defined }}").value().text,
            "FalseFalse");
  EXPECT_NE(FailureOf("{{ ''.__class__.__mro__ }}").find("no attribute '__class__'"), std::string::npos);
  EXPECT_NE(FailureOf("{{ messages.__class__() }}").find("no method '__class__'"), std::string::npos);
  EXPECT_EQ(RenderSource("{{ self is defined }}{{ cycler is defined }}").value().text, "FalseFalse");
}

TEST(Jinja, RefusesForeignBytes) {
  EXPECT_FALSE(RenderSource("a\xff").ok());
  EXPECT_FALSE(RenderSource(std::string(2 << 20, 'a')).ok());
  // A message may be anything: its bytes pass through.
  const Result<Rendered> rendered =
      RenderSource("{{ messages[0].content | trim | upper }}", {{"user", " a\xff\xc3 "}});
  ASSERT_TRUE(rendered.ok());
  EXPECT_EQ(rendered.value().text, "A\xff\xc3");
}

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

struct Hostile {
  const char* name;
  std::string source;
};

std::vector<Hostile> HostileSources() {
  const std::string text = "{% set s = 'a' * 16000000 %}";
  return {
      {"parentheses", "{{ " + Repeat("(", 100000) + "1" + Repeat(")", 100000) + " }}"},
      {"lists", "{{ " + Repeat("[", 100000)},
      {"minus", "{{ " + Repeat("-", 100000) + "1 }}"},
      {"not", "{{ " + Repeat("not ", 100000) + "1 }}"},
      {"else", "{{ " + Repeat("1 if 0 else ", 50000) + "1 }}"},
      {"plus", "{{ 1" + Repeat("+1", 100000) + " }}"},
      {"dots", "{{ x" + Repeat(".x", 100000) + " }}"},
      {"filters", "{{ x" + Repeat("|trim", 100000) + " }}"},
      {"blocks", Repeat("{% if 1 %}", 50000)},
      {"targets", "{% for " + Repeat("(", 50000)},
      {"loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"},
      {"range", "{% for a in range(10**18) %}{% endfor %}"},
      {"range down", "{{ range(0, -(10**18), -1) }}"},
      {"string", "{{ 'a' * 10**9 }}"},
      {"doubling",
       "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}"},
      {"list", "{{ [1] * 10**9 }}"},
      {"output", "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}"},
      {"hoard",
       "{% set n = namespace(l=[]) %}{% for i in range(9999) %}"
       "{% set n.l = n.l + ['a' * 9999999 ~ i] %}{% endfor %}"},
      {"recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"},
      {"tall recursion",
       "{% macro f(x) %}{{ " + Repeat("1+(", 40) + "f(x)" + Repeat(")", 40) + " }}{% endmacro %}{{ f(1) }}"},
      {"mutual recursion",
       "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() "
       "}}"},
      {"nested lists",
       "{% set n = namespace(l=[]) %}{% for i in range(99999) %}{% set n.l = [n.l] %}{% endfor %}"},
      {"namespace in itself", "{% set n = namespace() %}{% set n.n = [n] %}"},
      {"power", "{{ 10 ** 10 ** 10 }}"},
      {"integers", "{{ 9223372036854775807 + 1 }}"},
      {"lowest", "{{ (-9223372036854775807 - 1) // -1 }}"},
      {"search", text + "{% for i in range(99) %}{{ ('a' * 8000000 ~ 'b') in s }}{% endfor %}"},
      {"search from the right", text + "{{ s.rfind('b' ~ 'a' * 8000000) }}"},
      {"split", text + "{{ s.split('a') | length }}"},
      {"characters", text + "{{ s | list | length }}"},
      {"replace", text + "{{ s.replace('a', 'bbbbbbbbbbbb') }}"},
      {"indent", text + "{{ s.replace('a', '\\n') | indent(1000, true, true) }}"},
      {"join", "{{ (['a' * 9999] * 9999) | join('b' * 9999) }}"},
      {"json", "{{ (['\\x01' * 99999] * 9999) | tojson }}"},
      {"map", "{{ [[1]] | map(" + Repeat("'map', ", 1000) + "'list') | list }}"},
      {"sort", "{% for i in range(99) %}{{ range(99999) | list | reverse | sort }}{% endfor %}"},
      {"unique", "{{ range(99999) | unique | list }}"},
      {"percent", "{{ '%999999999d' % 1 }}"},
      {"percents", "{{ ('%1000s' * 99999) % ((1,) * 99999) }}"},
      {"braces", "{{ ('{0:>1000}' * 99999).format('a') }}"},
      {"justify", "{{ 'a'.ljust(10**9) }}"},
      {"batch", "{{ [1] | batch(10**9, 0) }}"},
      {"changed", "{% for x in [1] %}{{ loop.changed(loop) }}{% endfor %}"},
      {"method in itself",
       "{% set n = namespace(d={}) %}{% for i in range(99) %}{% set n.d = {'a': n.d.get} %}{% endfor %}"},
      {"spread", "{{ dict(*(range(99999) | list)) }}"},
      {"strftime", "{{ strftime_now('%Y' * 9999) }}"},
      {"padded time", "{{ strftime_now('%999999999d') }}"},
  };
}

TEST(Jinja, HostileTemplatesFailFast) {
  for (const Hostile& hostile : HostileSources()) {
    const std::clock_t start = std::clock();  // of this process: a busy machine does not fail the test
    const Result<Rendered> rendered = RenderSource(hostile.source);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_FALSE(rendered.ok()) << hostile.name;
    // Without limits each takes minutes, all of the memory or the stack; a sanitizer build is ten times
    // slower.
    EXPECT_LT(seconds, 10) << hostile.name;
    if (rendered.ok()) continue;
    const std::string& message = rendered.failure().message;
    EXPECT_LT(message.size(), 300u) << hostile.name;
    EXPECT_EQ(message.rfind("template of test: line ", 0), 0u) << message;
    EXPECT_NE(message.find(", column "), std::string::npos) << message;
  }
}

TEST(Jinja, OrdinarySizesFit) {
  std::vector<Message> messages;
  for (int i = 0; i < 1000; ++i) messages.push_back({i % 2 ? "assistant" : "user", std::string(200, 'x')});
  const Result<Rendered> rendered = RenderSource(
      "{% set n = namespace(s='') %}{% for m in messages %}{% set n.s = n.s + m.role ~ m.content %}{% endfor "
      "%}{{ n.s }}",
      messages);
  ASSERT_TRUE(rendered.ok()) << rendered.failure().message;
  EXPECT_EQ(rendered.value().text.size(), 1000u * 200 + 500u * (4 + 9));
}

}  // namespace
}  // namespace rung::text
