#!/usr/bin/env python3
"""Makes tests/data/data/learned.json: records of every format with their token ids and which of them are learned, as
transformers has them.

  python tools/make_learned_golden.py

Conversations are rendered and masked by transformers' own `apply_chat_template(return_assistant_tokens_mask=True)`
with {% generation %} around what is learned; text, completions without a template and segments are encoded piece by
piece. The tokenizer is a byte-level BPE of 600 tokens, made here of the project's own examples:
tests/data/data/tokenizer. Made with transformers 5.24, tokenizers 0.23.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests/data/data/tokenizer"
OUT = ROOT / "tests/data/data/learned.json"
BOS, EOS = "<s>", "</s>"

# What rung is given; transformers gets the same with {% generation %} around an answer and its end.
TEMPLATE = (
    "{{ bos_token }}{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'assistant:\n' }}%BEGIN%"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ '<call>' + (c.function | tojson) }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{{ eos_token }}%END%{{ '\n' }}"
    "{% else %}{{ m.role + ':\n' + m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
PLAIN = TEMPLATE.replace("%BEGIN%", "").replace("%END%", "")
MASKED = TEMPLATE.replace("%BEGIN%", "{% generation %}").replace("%END%", "{% endgeneration %}")


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[AddedToken(BOS, special=True), AddedToken(EOS, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = (ROOT / "examples/stories/train.jsonl").read_text().splitlines()
    tokenizer.train_from_iterator((json.loads(row)["prompt"] for row in rows), trainer)
    FOLDER.mkdir(exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"))
    config = {"add_bos_token": True, "bos_token": BOS, "eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast",
              "chat_template": PLAIN}
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return PreTrainedTokenizerFast.from_pretrained(FOLDER)


def chat(tokenizer, messages, learned=None, tools=None):
    """ids and marks; `learned`: of each assistant message, whether it counts."""
    out = tokenizer.apply_chat_template(
        messages, chat_template=MASKED, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, marks = list(out["input_ids"]), list(out["assistant_masks"])
    runs, answer = [], -1
    for i, mark in enumerate(marks):
        if mark and (i == 0 or not marks[i - 1]):
            answer += 1
        runs.append(answer if mark else None)
    if learned is not None:
        marks = [int(run is not None and learned[run]) for run in runs]
    return trim(ids, marks)


def trim(ids, marks):
    while marks and not marks[-1]:
        ids, marks = ids[:-1], marks[:-1]
    return ids, [0] + marks[1:]


def pieces(tokenizer, parts):
    """parts: (text, learned, special tokens are read)."""
    ids, marks = [], []
    for text, mark, special in parts:
        piece = tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
        ids += piece
        marks += [int(mark)] * len(piece)
    return trim(ids, marks)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def cases(tokenizer):
    tool = {"type": "function", "function": {"name": "count", "parameters": {"type": "object", "b": 1, "a": 2}}}
    call = {"type": "function", "function": {"name": "count", "arguments": {"what": "dogs", "in": "park"}}}
    turns = [{"role": "system", "content": "Be kind."}, user("Who is there?"), assistant("A dog."), user("Its name?"),
             assistant("Spot.")]
    yield "prompt and completion", True, {"prompt": "Where did Lily go?", "completion": "To the park."}, chat(
        tokenizer, [user("Where did Lily go?"), assistant("To the park.")])
    yield "prompt and completion without a template", False, {"prompt": "Lily went", "completion": " to the park."}, pieces(
        tokenizer, [(BOS, False, True), ("Lily went", False, False), (" to the park.", True, False), (EOS, True, True)])
    yield "prompt and completion as messages", True, {"prompt": turns[:4], "completion": turns[4:]}, chat(
        tokenizer, turns, [False, True])
    yield "messages", True, {"messages": turns}, chat(tokenizer, turns)
    weighted = [dict(m) for m in turns]
    weighted[2]["weight"] = 0
    yield "messages, one answer not learned", True, {"messages": weighted}, chat(tokenizer, turns, [False, True])
    weighted = [dict(m) for m in turns]
    weighted[4]["train"] = False
    yield "messages, the last answer not learned", True, {"messages": weighted}, chat(tokenizer, turns, [True, False])
    with_tool = [user("How many dogs?"), {"role": "assistant", "content": None, "tool_calls": [call]},
                 {"role": "tool", "content": "3"}, assistant("Three dogs.")]
    yield "messages with a tool call", True, {"messages": with_tool, "tools": [tool]}, chat(tokenizer, with_tool,
                                                                                          tools=[tool])
    yield "text", False, {"text": "Once upon a time there was a dog."}, pieces(
        tokenizer, [(BOS, False, True), ("Once upon a time there was a dog.", True, False), (EOS, True, True)])
    yield "alpaca", True, {"instruction": "Name the animal.", "input": "It barks.", "output": "A dog."}, chat(
        tokenizer, [user("Name the animal.\nIt barks."), assistant("A dog.")])
    yield "alpaca with system and history", True, {
        "instruction": "Its name?", "input": "", "output": "Spot.", "system": "Be kind.",
        "history": [["Who is there?", "A dog."]]}, chat(tokenizer, turns)
    yield "sharegpt", True, {"system": "Be kind.", "conversations": [
        {"from": "human", "value": "Who is there?"}, {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "Its name?"}, {"from": "gpt", "value": "Spot."}]}, chat(tokenizer, turns)
    yield "sharegpt with a call", True, {"tools": json.dumps([tool]), "conversations": [
        {"from": "human", "value": "How many dogs?"},
        {"from": "function_call", "value": json.dumps(call["function"])},
        {"from": "observation", "value": "3"}, {"from": "gpt", "value": "Three dogs."}]}, chat(
        tokenizer, with_tool, tools=[tool])
    yield "segments", True, {"segments": [
        {"label": False, "text": BOS + "Q: Who is there?\nA: "}, {"label": True, "text": "A dog." + EOS},
        {"label": False, "text": "\nQ: Its name?\nA: "}, {"label": True, "text": "Spot." + EOS}]}, pieces(
        tokenizer, [(BOS + "Q: Who is there?\nA: ", False, True), ("A dog." + EOS, True, True),
                    ("\nQ: Its name?\nA: ", False, True), ("Spot." + EOS, True, True)])


def picture(tokenizer, ids, marks):
    """The tokens, learned ones between brackets."""
    return " ".join(
        ("[%s]" if mark else "%s") % json.dumps(tokenizer.convert_ids_to_tokens(i), ensure_ascii=False)
        for i, mark in zip(ids, marks))


def main():
    tokenizer = make_tokenizer()
    made = []
    for name, templated, record, (ids, marks) in cases(tokenizer):
        made.append({"name": name, "template": templated, "record": record, "ids": ids, "learned": marks,
                     "picture": picture(tokenizer, ids, marks)})
    OUT.write_text(json.dumps({"cases": made}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
