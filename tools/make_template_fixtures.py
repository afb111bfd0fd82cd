#!/usr/bin/env python3
"""Writes tests/data/text/templates/golden.json: what Python's jinja2 makes of the templates there.

Needs jinja2 3.1. The environment is that of transformers: sandboxed, trim_blocks, lstrip_blocks, loop controls,
tojson without HTML escapes, raise_exception, strftime_now and {% generation %} blocks.
Run from the repository root.
"""
import json
import pathlib
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = pathlib.Path("tests/data/text/templates")
OPEN, CLOSE = "\ue000", "\ue001"  # private characters that mark generation blocks, taken out again


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        return OPEN + caller() + CLOSE


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return env


ENV = environment()


def render(source, messages, add_generation_prompt=False, bos="", eos=""):
    variables = {"messages": messages, "add_generation_prompt": add_generation_prompt, "tools": None, "documents": None}
    if bos:
        variables["bos_token"] = bos
    if eos:
        variables["eos_token"] = eos
    try:
        marked = ENV.from_string(source).render(**variables)
    except Exception as error:  # any kind: the sandbox, Python and the template raise different ones
        return {"error": str(error)}
    text, spans = b"", []
    for i, piece in enumerate(marked.replace(CLOSE, OPEN).split(OPEN)):
        if i % 2 == 1:
            spans.append([len(text), len(text) + len(piece.encode())])
        text += piece.encode()
    out = {"output": text.decode()}
    if "{% generation %}" in source:
        out["spans"] = spans
    return out


U, A, S = "user", "assistant", "system"
CONVERSATIONS = {
    "one": [(U, "Hello")],
    "two": [(U, "What is 2 + 2?"), (A, "4")],
    "system": [(S, "Be kind."), (U, "Hi"), (A, "Hello, how are you?"), (U, "Fine"), (A, "Good.")],
    "multi": [(U, "a"), (A, "b"), (U, "c"), (A, "d"), (U, "e"), (A, "f")],
    "open": [(U, "first"), (A, "second"), (U, "third")],
    "empty": [(U, ""), (A, ""), (U, "and now?"), (A, "x")],
    "unicode": [(U, "Grüße, 世界 🌍"), (A, "Ça va? नमस्ते \u00a0✓"), (U, "é"), (A, "日本語")],
    "spaces": [(U, "  padded  \n"), (A, "\n answer with spaces \t\n"), (U, "x "), (A, " y\u3000")],
    "quotes": [(U, "He said \"it's\" {{ x }} {% if %} \\n"), (A, "<b>\"quoted\"</b> & 'more' <|im_end|>")],
    "think": [(U, "Why?"), (A, "<think>\nlet me see\n</think>\n\nBecause."), (U, "Sure?"),
              (A, "<think>\nhm\n</think>\n\nYes.")],
    "twice": [(S, "s"), (U, "a"), (U, "b"), (A, "c"), (A, "d")],
    "lines": [(U, "1\n2\r\n3"), (A, "line one\n\nline three\n")],
}
TOKENS = {
    "mistral": ("<s>", "</s>"), "mistral_system": ("<s>", "</s>"), "phi3": ("<s>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>"), "zephyr": ("<s>", "</s>"), "smollm2": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("", "<|im_end|>"), "qwen2.5": ("", "<|im_end|>"),
}

EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 / 2
7 // 2
-7 // 2
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
-2 ** 2
1.0
1e3
1e16
1.5e-7
0.1 + 0.2
1_000
0x1f + 0b11 + 0o17
100000000000000000.0
true + 1
'a' + 'b'
'a' 'b'
'a' ~ 1 ~ none ~ true ~ 1.5
'ab' * 3
[1, 2] + [3]
[0] * 3
1 ~ 2 + 3
1 < 2 < 3
1 < 3 < 2
1 == 1.0
true == 1
'a' < 'b'
'é' > 'z'
[1, 2] < [1, 3]
'a' in 'cat'
'x' not in 'cat'
2 in [1, 2]
'k' in {'k': 1}
not true or true
not (true or true)
1 and 0 or 5
'' or 'default'
none or 0
1 if true else 2
1 if false
(1 if false) is defined
'x' if none else 'y' if 0 else 'z'
[1, 'a', none, true, 1.5]
(1, 2)
(1,)
()
1, 2
{'a': 1, 'b': [1, {'c': none}]}
['it\'s', "say \"x\"", 'both \' and "', 'tab\t nl\n \\ \x01 é \u200b']
'\x41\u00e9\101\q\
z'
[1, 2, 3][0]
[1, 2, 3][-1]
[1, 2, 3][5] is undefined
[1, 2, 3][1:]
[1, 2, 3][::-1]
[1, 2, 3, 4, 5][-1:0:-2]
[1, 2, 3][:-1]
[1, 2, 3][10:]
(1, 2, 3)[1:]
'héllo'[1]
'héllo'[1:3]
'héllo'[::-1]
'abc'[-2:]
'abc'.0
[[1, 2], [3]].0.1
{'a': 1}.a
{'a': 1}['a']
{'a': 1}['b'] is defined
{'a': {'b': 'deep'}}.a.b
{1: 'one', true: 'yes'}[1]
nothing
nothing.attribute
nothing ~ 'x'
nothing + 'x'
nothing == nothing2
nothing is defined
nothing | length
nothing | default('d')
'' | default('d')
'' | default('d', true)
none | d('x', boolean=true)
{}.x.y
messages[0].role
messages[0]['content'] | upper
messages | length
messages[-1].content
messages | map(attribute='role') | join(', ')
messages | map(attribute='role') | map('upper') | list
messages | map(attribute='name', default='anon') | list
messages | selectattr('role', 'equalto', 'user') | list | length
messages | rejectattr('role', '==', 'user') | map(attribute='content') | join('|')
messages | selectattr('name', 'defined') | list
messages | selectattr('content') | list | length
messages[0] | tojson
messages[0] | items | list
messages[0].items() | list
messages[0].keys() | list
messages[0].values() | list
messages[0].get('role')
messages[0].get('x')
messages[0].get('x', 'y')
[1, 2, 3, 4] | select('odd') | list
[1, 2, 3, 4] | reject('even') | list
[0, 1, '', 'a', none] | select | list
[1, 2, 3] | select('in', [1, 3]) | list
[3, 1, 2] | sort
['b', 'A', 'c'] | sort
['b', 'A', 'c'] | sort(reverse=true, case_sensitive=true)
[{'a': 2}, {'a': 1}] | sort(attribute='a') | map(attribute='a') | list
{'b': 1, 'a': 2, 'C': 0} | dictsort
{'b': 1, 'a': 2} | dictsort(by='value')
{'b': 1, 'a': 2} | dictsort(false, 'key', true)
['a', 'b', 'A', 'a'] | unique | list
['a', 'A'] | unique(true) | list
[1, 2, 3] | sum
[1, 5, 3] | max
['b', 'A'] | min
[1, 2, 3] | reverse | list
'abc' | reverse
[1, 2] | first
'xyz' | last
[] | first is defined
'  a b ' | trim
'xxaxx' | trim('x')
'\u00a0 a\u3000' | trim
'Hello World' | lower
'straße' | upper
'hELLO wORLD' | capitalize
'hello wORLD-foo (bar) it\'s' | title
"it's a dog-house".title()
'hello World'.capitalize()
'a-b-c' | replace('-', '+')
'a-b-c' | replace('-', '+', 1)
'aaa'.replace('a', 'bb', 2)
'abc'.replace('', '-')
'a,b,,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
'a\nb\r\nc\n'.splitlines()
'a\nb'.splitlines(true)
' ab '.strip() ~ '|' ~ ' ab '.lstrip() ~ '|' ~ ' ab '.rstrip()
'xyaxy'.strip('xy')
'</think>abc'.startswith('</think>')
'abc'.endswith(('x', 'c'))
'banana'.count('an')
'banana'.find('n')
'banana'.rfind('é')
'prefix-body'.removeprefix('prefix-')
'body.txt'.removesuffix('.txt')
'12'.isdigit() and not ''.isdigit()
', '.join(['a', 'b'])
[1, [2, 'x'], none] | join('-')
[1, 2, 3] | join
'42' | int + 1
'4.7' | int
'x' | int(7)
'ff' | int(base=16)
3.9 | int
'1.5' | float
'x' | float
5 | string + '5'
'abc' | list
{'a': 1} | list
'x<y>' | safe
-5 | abs
(-5) | abs
'a\nb\n\nc' | indent
'a\nb' | indent(2, true)
'a\n\nb' | indent('> ', blank=true)
{'a': 'é"\n<>', 'b': [1.5, true, none]} | tojson
[1, {'a': []}] | tojson(indent=2)
{'b': 1, 'a': 2} | tojson(sort_keys=true)
{'b': 1, 'a': [1, 2]} | tojson(separators=(',', ':'))
'é🌍' | tojson(ensure_ascii=true)
'' | tojson
{1: 2, none: 3} | tojson
1 is number and 1.5 is number and true is number and '1' is not number
1 is integer and true is not integer and 1.5 is float
'a' is string and messages is not string
{} is mapping and [] is not mapping
[] is iterable and 'a' is iterable and 1 is not iterable
[] is sequence and 'a' is sequence and 1 is not sequence
true is boolean and 1 is not boolean
true is true and 1 is not true and false is false
none is none and nothing is not none
3 is odd and 4 is even
6 is divisibleby 3
6 is divisibleby(4)
1 is in [1, 2]
2 is eq 2 and 2 is ne 3 and 2 is gt 1 and 2 is le 2
'abc' is lower and 'ABC' is upper
'a' is equalto 'a'
not 1 is none
range(5) | list
range(2, 8, 3) | list
range(5, 0, -2) | list
range(0) | list
dict(a=1, b='x')
dict({'a': 1}, a=2)
dict(a=1).a
namespace(a=1).a
namespace({'a': 3}).a
(1 + 2) | string | length
'%' ~ '%'
'a' | upper | lower ~ 'B'
loop
1 / 0
[] + 1
'a' + 1
'a' < 1
none.x is defined
1.x is defined
5[0] is defined
messages.append(1)
raise_exception('stop here')
strftime_now('x%%y')
caller
"x" | nosuchfilter
"x" is nosuchtest
"x".nosuchmethod()
range(1000000)
none + 1
{[]: 1}
'a' in 5
5 | length
-'a'
nothing | int
"unterminated
1 +
[1, 2
foo(
1 2
'a'|
x is
{'a' 1}
"""

STATEMENTS = [
    "{% if messages %}yes{% else %}no{% endif %}",
    "{% if false %}a{% elif true %}b{% else %}c{% endif %}",
    "{% for x in [1, 2, 3] %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in range(6) if x is even %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in 'abc' %}{{ loop.index0 }}{{ loop.index }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for x in 'abc' %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in 'abc' %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.depth }}{{ x }}{{ y }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for i in range(3) %}{{ x }}{% set x = x + 1 %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(x=1, found=false) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.y %}block{{ 1 }}{% endset %}{{ ns.y }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set x %}  padded  {% endset %}[{{ x }}]",
    "{% set x | trim | upper %}  padded  {% endset %}[{{ x }}]",
    "{% if true %}{% set x = 5 %}{% endif %}{{ x }}",
    "{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=4) }}{{ m(b=0) }}",
    "{% macro m() %}x{% endmacro %}{% set y = m() %}{{ y | upper }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
    "{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}",
    "{% macro m(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call m(1) %}body{% endcall %}",
    "{% macro m() %}{% for x in [1, 2] %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) m() %}<{{ v }}>{% endcall %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% filter upper %}abc {{ 'def' }}{% endfilter %}",
    "{% filter trim | replace('a', 'b') %}  aaa {% endfilter %}|",
    "{% with x = 1, y = 2 %}{{ x }}{{ y }}{% endwith %}{{ x }}",
    "{% set x = 1 %}{% with %}{% set x = 2 %}{{ x }}{% endwith %}{{ x }}",
    "{% raw %}{{ not }} {% if %} {# kept #}{% endraw %}!",
    "a {%- raw -%}  b  {%- endraw -%}  c",
    "a{# comment #}b{#- x -#} c",
    "a\n{# comment #}\nb",
    "  {% if true %}\n  x\n  {% endif %}\ny\n",
    "  {%+ if true %}\n  x\n  {% endif +%}\ny\n",
    "a  {%- if true -%}  x  {%- endif -%}  y",
    "a \n {{- 'x' -}} \n y",
    "a \n {{ 'x' }} \n y\n\n",
    "\t{% set x = 1 %}\t\n\tz",
    "x {% set y = 1 %} z",
    "{% set y = 1 %}\n\n{% set z = 1 %}\n  {{ y }}\n{{ z }}\n",
    "line\r\n{% if true %}\r\nb\r{% endif %}\r\nc",
    "{{ '{{' }} }} %} #} {",
    "{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ {'a':{'b':2}} }}",
    "{{- 1 }}{{ 2 -}} {{ 3 }}",
    "{%for x in [1]%}{{x}}{%endfor%}",
    "{% if not messages[0].tool_calls %}plain{% endif %}",
    "{% if messages[0].tool_calls is defined and messages[0].tool_calls is not none %}t{% else %}p{% endif %}",
    "{% if tools is none and documents is none %}n{% endif %}{{ bos_token is defined }}",
    "{% for message in messages[1:] %}{{ message.role }}{{ loop.index0 }}{% endfor %}",
    "{% for m in messages %}{{ m['role'] }}{% if loop.nextitem is defined %}>{{ loop.nextitem.role }}{% endif %} {% endfor %}",
    "{% set loop_messages = messages | rejectattr('role', 'equalto', 'assistant') | list %}{{ loop_messages | length }}",
    "{% set c = messages[1].content %}{{ c.split(' ')[-1] }}{{ c[:3] }}{{ c | length }}",
    "{% for x in [1, 2] %}{{ x }}",
    "{% if true %}x{% endfor %}",
    "{% endif %}",
    "{% break %}",
    "{% foo %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% set x.y = 1 %}",
    "{{ x",
    "{% if",
    "{# open",
    "{% raw %} open",
    "{{ ) }}",
    "{{ (] }}",
    "{{ 'a' ? 'b' }}",
]
CONTEXT = [(S, "Be kind."), (U, "Hi there"), (A, "Hello, you")]


def as_messages(pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def main():
    templates = sorted(path.stem for path in FOLDER.glob("*.jinja"))
    conversations = []
    for name in templates:
        source = (FOLDER / f"{name}.jinja").read_bytes().decode()
        bos, eos = TOKENS.get(name, ("", "</s>"))
        for conversation, pairs in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": name, "conversation": conversation, "add_generation_prompt": prompt, "bos": bos,
                        "eos": eos}
                case.update(render(source, as_messages(pairs), prompt, bos, eos))
                conversations.append(case)
    # A line that ends in a backslash goes on in the next.
    lines = EXPRESSIONS.strip("\n").replace("\\\n", "\0").split("\n")
    sources = ["{{ " + line.replace("\0", "\\\n") + " }}" for line in lines] + STATEMENTS
    language = [{"source": source, **render(source, as_messages(CONTEXT))} for source in sources]
    golden = {"jinja2": jinja2.__version__, "conversations": {k: as_messages(v) for k, v in CONVERSATIONS.items()},
              "context": as_messages(CONTEXT), "templates": conversations, "language": language}
    rows = json.dumps(golden, ensure_ascii=False, indent=1)
    (FOLDER / "golden.json").write_text(rows + "\n", encoding="utf-8", newline="")
    print(f"{len(conversations)} renderings of {len(templates)} templates, {len(language)} pieces of the language, "
          f"{sum('error' in case for case in language)} of them errors")


if __name__ == "__main__":
    main()
