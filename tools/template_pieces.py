"""Pieces of the Jinja language that tools/make_template_fixtures.py renders: expressions, then whole sources."""

# A line that ends in a backslash goes on in the next.
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
tools | length
tools[0] | tojson
tools[0] | tojson(indent=4)
tools | tojson(indent=0)
tools[1] | tojson(indent='\t', separators=(',', ' : '))
tools[0].function.parameters.properties | dictsort | map('first') | join(',')
tools[0].function.parameters.items is defined
tools[0].function.parameters['items'] is defined
tools[0].function.parameters.properties.days.items is mapping
tools[0].function.parameters.properties.days['items'].type
tools[0].function.get('strict', false)
tools[0]
tools[0].function.description.splitlines()[0].split('.')[0]
{'items': 1}.items is callable
{'items': 1}['items']
{'pop': 1}.pop is defined
{'pop': 1}['pop']
{'keys': 2}.keys() | list
'abc'.upper is defined
'abc'['upper'] is defined
messages[0].update is defined
messages[0].update({'a': 1})
tools | map(attribute='function.name') | join(' ')
tools | selectattr('function.name', 'equalto', 'clock') | map(attribute='type') | list
'%s is %d, %5.2f%% (%r)' % ('x', 3, 2.5, 'q')
'%s' % 'one'
'%(a)s-%(b)03d' % {'a': 1, 'b': 7}
'%-5s|%5s|%+d|%x|%X|%o|%e|%g' % ('a', 'b', 5, 255, 255, 8, 12345.678, 0.0001)
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%d' % 'a'
'%.2s' % 'héllo'
'%s and %s' | format('a', 2)
'%(x)s' | format(x=1)
'{} {}'.format('a', 1)
'{1} {0} {{}} {name}'.format('a', 'b', name='c')
'{:>5}|{:5}|{:05d}|{:.3f}|{!r}'.format('a', 'b', 42, 3.14159, 'q')
'{}'.format()
'{x}'.format(y=1)
3.14159 | round(2)
2.5 | round
3.5 | round
7 | round
2.675 | round(2)
2.1 | round(0, 'ceil')
-2.1 | round(0, method='floor')
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, 0) | list
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'abc'.rpartition('=')
'ab'.ljust(4, '.') ~ 'é'.rjust(3) ~ '|'
'banana'.find('an', 2)
'banana'.find('an', -1)
'banana'.index('n')
'banana'.index('x')
'banana'.rindex('n')
'aB'.islower() or 'aB'.isupper()
'ab1'.islower() and 'AB1'.isupper()
dict(*[{'a': 1}], **{'b': 2})
range(*[1, 4]) | list
dict(a=1, **{'a': 2})
namespace(_x=1)
namespace(a=1)._x is defined
strftime_now('%d %B %Y, %H:%M:%S')
strftime_now('%Y-%m-%d') ~ strftime_now('%-d')
[1, 2] | join(', ') ~ 'x' if true
messages[0].content[:2] ~ messages[0]['content'][-2:]
'a' in messages[0].content and 'role' in messages[0]
(messages | last).role
(messages | first)['role']
[[1, 2], [3]] | sum(start=[])
[{'a': 1}, {'b': 2}] | selectattr('a', 'defined') | list
{'a': none} | tojson
[1.0, 1e22, 1e-7, 123456789.123] | tojson
'\u2028\x7f\x1b' | tojson
'\u2028\x7f\x1b' | tojson(ensure_ascii=true)
not messages
x is defined and x.y
messages[10].role
messages[10] is defined
none | default('x')
none is defined
(none or {}).a is defined
'a b'.split()[0] is string
1 if messages[0].role == 'system' and not tools is none else 2
messages is not none and messages | length > 1
'abc' is in ['abc']
messages | map('tojson') | join('\n')
messages | map(attribute='content') | map('length') | sum
messages | map(attribute='content') | map('replace', 'e', '3') | first
{'a': 1} == {'a': 1.0} and [1] != (1,)
[] is mapping or {} is sequence
none | map('upper') | list
none | selectattr('a', 'equalto', 'b') | list | length > 0
0 | select('odd') | list
false | rejectattr('a') | list
nothing | reject | list
1 | select | list
'x' * 0 ~ [] * 3
'10' > '9'
1 < 'a'
[3, 'a'] | sort
(1, 2) + (3,)
(1, 2) + [3]
{'a': [1, {'b': 'c'}]}['a'][1]['b']
"\u00e9" == 'é'
''.join(messages | map(attribute='role'))
'a'.startswith(('b', 'a')) and 'abc'.startswith('')
' x '.strip(none)
[1, 2, 3] | last - 1
[] | max is defined
true and 'x' or 'y'
(true | string) ~ (none | string)
'<&>"\'' | tojson
'Straße İ ǆ' | upper
'a\tb\x0bc\x1cd' | trim
'1_000' | int
' 12 ' | int
'12.5' | int
'0x1f' | int(base=16)
'1e3' | float
'inf' | float
true | int
-7 // 2 * 2 + -7 % 2
2 ** 3 ** 2
'a' ~ 'b' * 2
not 1 == 2
1 in [1] and 2 not in [1]
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
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in 'aab' %}{% if loop.changed(x, 1) %}{{ x }}{% endif %}{{ loop.changed(x, 2) }}{% endfor %}",
    "{% set f = 'Abc'.upper %}{{ f() }}{{ messages[0].get('role') }}{% set g = messages[0].get %}{{ g('role') }}",
    "{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1], **{'b': 2}) }}{{ m(b=3, *[1]) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{'c': 2}) }}",
    "{% macro p(spec, name='') %}{% if spec.type == 'array' %}{{ p(spec['items']) }}[]{% elif spec.type == 'object' %}{{ '{' }}{% for k, v in spec.properties | dictsort %}{{ k }}: {{ p(v, name=k) }}{% if not loop.last %}, {% endif %}{% endfor %}{{ '}' }}{% else %}{{ spec.type }}{% if spec.enum %} ({{ spec.enum | join('|') }}){% endif %}{% endif %}{% endmacro %}{{ p(tools[0].function.parameters) }}",
    "{% macro outer() %}({{ caller('in') }}){% endmacro %}{% call(x) outer() %}{% filter upper %}{{ x }}{% endfilter %}{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro a() %}[{{ caller() }}]{% endmacro %}{% macro b() %}{% call a() %}<{{ caller() }}>{% endcall %}{% endmacro %}",
    "{% set ns = namespace(list=[]) %}{% for m in messages %}{% set ns.list = ns.list + [m.role] %}{% endfor %}{{ ns.list | join('/') }}",
    "{% for tool in tools %}{% set t = tool.function %}{{ loop.index }}. {{ t.name }}: {{ t.parameters.properties.keys() | list }}\n{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{% if loop.first %}>{% endif %}{{ m.role }}{{ loop.index }}/{{ loop.length }}{% else %}nobody{% endfor %}",
    "{% for m in messages | selectattr('role', 'in', ['user', 'tool']) %}{{ loop.revindex }}{{ m.content }}{% endfor %}",
    "{% set x = namespace(n=0) %}{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% continue %}{% endif %}{% if i == 2 %}{% break %}{% endif %}{% set x.n = x.n + 1 %}{% endfor %}{% endfor %}{{ x.n }}",
    "{% set a %}{% for x in [1, 2] %}{{ x }},{% endfor %}{% endset %}{{ a | length }}{{ a.split(',') }}",
    "{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{%- if tools -%}\n  {{- 'T' -}}\n{%- else -%}\n  F\n{%- endif %}\n\n  end\n",
    "  {%- set x = 1 +%}\n  {{ x }}\n\n{# c #}\n  {#- d -#}\n z",
    "{% if x is not defined %}{% set x = 'd' %}{% endif %}{{ x }}",
    "{% for i in [1, 2, 3] %}{% set y = i %}{% endfor %}{{ y is defined }}",
    "{% for k in tools[0].function %}{{ k }} {% endfor %}",
    "{% do messages %}",
    "{{ messages[0].content.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ (messages | map(attribute='__class__') | list)[0].__name__ }}",
    "{{ namespace.__init__ }}",
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
