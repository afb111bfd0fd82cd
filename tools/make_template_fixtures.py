#!/usr/bin/env python3
"""Writes tests/data/text/templates/golden.json: what transformers makes of the templates there.

Needs transformers 5 and jinja2 3.1. Rendering is transformers' own: its environment (sandboxed, trim_blocks,
lstrip_blocks, loop controls, tojson without HTML escapes, raise_exception, strftime_now, {% generation %}), its
normalisation of messages, and the spans it finds of generation blocks. Only the clock is held still.
Run from the repository root. In another folder with templates of that path it makes their goldens there, and
`text_test --gtest_filter=ChatTemplate.EqualsPython` run in that folder compares them.
"""
import json
import pathlib
from datetime import datetime, timezone

import jinja2
import transformers
from transformers.utils import chat_template_utils

from template_pieces import EXPRESSIONS, STATEMENTS

FOLDER = pathlib.Path("tests/data/text/templates")
NOW = 1721999109  # 2024-07-26 13:05:09


class Clock:
    @staticmethod
    def now():
        return datetime.fromtimestamp(NOW, timezone.utc)


chat_template_utils.datetime = Clock


def render(source, chat, add_generation_prompt=False, bos="", eos=""):
    tokens = {key: value for key, value in (("bos_token", bos), ("eos_token", eos)) if value}
    generation = "{% generation %}" in source
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [chat_template_utils._normalize_chat_messages(chat["messages"])], chat_template=source,
            tools=chat.get("tools"), documents=chat.get("documents"), add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=generation, **{**tokens, **chat.get("variables", {})})
    except Exception as error:  # any kind: the sandbox, Python and the template raise different ones
        return {"error": str(error)}
    out = {"output": texts[0]}
    if generation:
        out["spans"] = [[len(texts[0][:at].encode()) for at in span] for span in spans[0] if span[0] < span[1]]
    return out


U, A, S = "user", "assistant", "system"
PLAIN = {
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


def as_messages(pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def call(name, arguments, identity=None):
    function = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return function if identity is None else {"id": identity, **function}


def weather_tool():
    place = {"type": "string", "description": "City, e.g. \"Zürich\" <or> 'Łódź'"}
    unit = {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}
    days = {"type": "array", "items": {"type": "integer"}, "description": "Days from now", "nullable": True}
    wind = {"type": "object", "properties": {"limit": {"type": "number", "default": 1.5}}, "required": ["limit"]}
    properties = {"place": place, "unit": unit, "days": days, "wind": wind}
    return {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a place.\nFor up to 5 days.",
        "parameters": {"type": "object", "properties": properties, "required": ["place"]},
        "return": {"type": "string", "description": "A forecast"}}}


CLOCK_TOOL = {"type": "function", "function": {"name": "clock", "description": "The time",
                                               "parameters": {"type": "object", "properties": {}}}}
TOOLS = [weather_tool(), CLOCK_TOOL]
ASK = {"role": U, "content": "Weather in Zürich?"}
ARGUMENTS = {"place": "Zürich \"old\" town", "days": [0, 1], "wind": {"limit": 2.0}, "exact": True, "note": None}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"degrees\": 21.5}"}
ANSWER = {"role": A, "content": "It is 21.5 degrees."}


def calling(*calls, **keys):
    return {"role": A, **keys, "tool_calls": list(calls)}


ONE_CALL = calling(call("get_weather", ARGUMENTS, "call00001"), content="")
TWO_CALLS = calling(call("get_weather", {"place": "A"}, "call00001"), call("clock", {}, "call00002"),
                    content="Let me look.")
DOCUMENTS = [{"title": "Ducks", "text": "Ducks swim.\nThey quack.", "doc_id": 1}, {"title": "Geese", "text": "Geese <fly>."}]
THINKING = [{"role": U, "content": "Why?"}, {"role": A, "content": "Because.", "reasoning_content": "\nlet me see\n"},
            {"role": U, "content": "Sure?"}, {"role": A, "content": "Yes.", "reasoning_content": "hm"}]


def text(*parts):
    return [{"type": "text", "text": part} for part in parts]


def chats():
    all_chats = {name: {"messages": as_messages(pairs)} for name, pairs in PLAIN.items()}
    system = {"role": S, "content": "Use tools."}
    last = {"role": U, "content": "And there?"}
    all_chats.update({
        "tools": {"messages": [system, ASK, ONE_CALL, RESULT, ANSWER, last], "tools": TOOLS},
        "tools_given": {"messages": [ASK], "tools": TOOLS},
        "tools_called": {"messages": [ASK, ONE_CALL], "tools": TOOLS},
        "tools_twice": {"messages": [ASK, TWO_CALLS, RESULT, {**RESULT, "name": "clock", "tool_call_id": "call00002",
                                                               "content": "13:05"}, ANSWER], "tools": TOOLS},
        "tools_text": {"messages": [ASK, calling(call("get_weather", json.dumps(ARGUMENTS), "call00001")), RESULT,
                                    ANSWER], "tools": TOOLS},
        "tools_null": {"messages": [ASK, calling(call("clock", {}), content=None), RESULT]},
        "parts": {"messages": [{"role": S, "content": text("Be ", "kind.")}, {"role": U, "content": text("a", " b")},
                               {"role": A, "content": text(" one", "two ")}, {"role": U, "content": text("c")}]},
        "reasoning": {"messages": THINKING},
        "reasoning_off": {"messages": THINKING[:1], "variables": {"enable_thinking": False, "thinking": False}},
        "reasoning_tools": {"messages": [ASK, {**ONE_CALL, "thinking": "I must look."}, RESULT], "tools": TOOLS},
        "documents": {"messages": [ASK], "documents": DOCUMENTS, "variables": {"date_string": "1 Jan 2025"}},
        "assistant_first": {"messages": [ANSWER, ASK]},
        "named": {"messages": [{**ASK, "name": "ann"}, {**ANSWER, "name": "bot"}, {"role": "developer", "content": "d"}]},
    })
    return all_chats


TOKENS = {
    "mistral": ("<s>", "</s>"), "mistral_system": ("<s>", "</s>"), "phi3": ("<s>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>"), "zephyr": ("<s>", "</s>"), "smollm2": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("", "<|im_end|>"), "qwen2.5": ("", "<|im_end|>"),
}

CONTEXT = [(S, "Be kind."), (U, "Hi there"), (A, "Hello, you")]


def main():
    templates = sorted(path.stem for path in FOLDER.glob("*.jinja"))
    conversations = chats()
    renderings = []
    for name in templates:
        source = (FOLDER / f"{name}.jinja").read_bytes().decode()
        bos, eos = TOKENS.get(name, ("<s>", "</s>"))
        for conversation, chat in conversations.items():
            prompt = chat["messages"][-1]["role"] != A
            case = {"template": name, "conversation": conversation, "add_generation_prompt": prompt, "bos": bos,
                    "eos": eos}
            renderings.append({**case, **render(source, chat, prompt, bos, eos)})
    # A line that ends in a backslash goes on in the next.
    lines = EXPRESSIONS.strip("\n").replace("\\\n", "\0").split("\n")
    sources = ["{{ " + line.replace("\0", "\\\n") + " }}" for line in lines] + STATEMENTS
    context = {"messages": as_messages(CONTEXT), "tools": TOOLS}
    language = [{"source": source, **render(source, context)} for source in sources]
    golden = {"transformers": transformers.__version__, "jinja2": jinja2.__version__, "now": NOW,
              "conversations": conversations, "context": context, "templates": renderings, "language": language}
    rows = json.dumps(golden, ensure_ascii=False, indent=1)
    (FOLDER / "golden.json").write_text(rows + "\n", encoding="utf-8", newline="")
    print(f"{len(renderings)} renderings of {len(templates)} templates, {len(language)} pieces of the language, "
          f"{sum('error' in case for case in language)} of them errors")


if __name__ == "__main__":
    main()
