#!/usr/bin/env python3
"""Trains low-rank pairs with rung, reads the folder with peft, and compares the losses of held-out records.

  check_peft.py --rung build/release/rung [--steps 8] [--records 12] [--tolerance 1e-3]
  check_peft.py --rung build/release/rung --model tests/data/families/gpt2

Both compute in f32 from weights as they are stored. Without --model it is the trained model and the records of the
repository; a folder that --model names and that has no tokenizer gets one of letters, and records of made-up words.
Prints for every record the loss in nats a token of rung and of transformers with peft, and the loss without the
adapter; fails when the two differ by more than the tolerance, when the adapter changes too little to tell, or when
peft warns.
"""

import argparse
import json
import random
import shutil
import string
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import peft
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "tests/data/models/tinystories-656k"
STORIES = ROOT / "examples/stories"
# Within the shorter of the two ranges that a LongRoPE fixture has: transformers chooses by the text, rung by this.
LENGTH = 128


def texts_of(path):
    """Prompt and completion as one text, all of which is learned: no border that a tokenizer could treat apart."""
    with open(path, encoding="utf-8") as file:
        return [f"{row['prompt']} {row['completion']}" for row in map(json.loads, file)]


def made_up(count, seed):
    """Lines of words that share their endings: something to learn in a few steps."""
    rng = random.Random(seed)
    word = lambda: "".join(rng.choices("abcdef", k=rng.randint(1, 4))) + rng.choice(["ing", "ed"])
    return [" ".join(word() for _ in range(8)) + "." for _ in range(count)]


def with_tokenizer(model, folder):
    """A copy of the model with a tokenizer of letters: every id is below the smallest vocabulary of the fixtures."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    pieces = ["<s>", "</s>", *string.ascii_lowercase, ".", "\u0120"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [{"id": i, "content": pieces[i], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(2)]
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
                 "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                           "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": []}}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


def write_records(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def train(rung, model, texts, folder, steps):
    write_records(folder / "train.jsonl", texts)
    run([rung, "train", "--method", "lora", "--model", model, "--data", folder / "train.jsonl", "--out",
         folder / "adapter", "--quantize", "none", "--compute", "f32", "--lora-r", 8, "--rslora", "--learning-rate",
         0.01, "--max-steps", steps, "--max-length", LENGTH, "--threads", 1, "--progress", "none"])
    return folder / "adapter"


def loss_of_rung(rung, model, folder, adapter, text):
    write_records(folder / "one.jsonl", [text])
    return json.loads(run([rung, "eval", "--json", "--no-generate", "--model", model, "--adapter", adapter, "--data",
                           folder / "one.jsonl", "--quantize", "none", "--compute", "f32", "--max-length", LENGTH,
                           "--threads", 1, "--progress", "none"]))


def loss_of(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", type=Path, required=True, help="the program")
    parser.add_argument("--model", type=Path, default=MODEL, help="a folder")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--records", type=int, default=12)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rung = options.rung.resolve()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = (options.model / "tokenizer.json").exists()
        path = options.model if known else with_tokenizer(options.model, folder)
        learned = texts_of(STORIES / "train.jsonl") if known else made_up(200, 1)
        asked = (texts_of(STORIES / "test.jsonl") if known else made_up(100, 2))[: options.records]

        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        base = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        sequences = {}
        for text in asked:
            ids = tokenizer(text)["input_ids"]
            sequences[text] = ids if ids[-1] == tokenizer.eos_token_id else ids + [tokenizer.eos_token_id]
        without = {text: loss_of(base, ids) for text, ids in sequences.items()}

        adapter = train(rung, path, learned, folder, options.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of peft about what it read
            model = peft.PeftModel.from_pretrained(base, adapter).eval()
        worst, change = 0.0, 0.0
        for text, ids in sequences.items():
            ours, theirs = loss_of_rung(rung, path, folder, adapter, text), loss_of(model, ids)
            if ours["target_tokens"] != len(ids) - 1:
                sys.exit(f"rung has {ours['target_tokens']} targets, transformers {len(ids) - 1}: {text}")
            worst = max(worst, abs(ours["loss"] - theirs))
            change = max(change, abs(without[text] - theirs))
            print(f"rung {ours['loss']:.6f}  peft {theirs:.6f}  without {without[text]:.6f}")
    print(f"apart by {worst:.1e} nats a token at most; the adapter changes {change:.1e}")
    if not worst <= options.tolerance:
        sys.exit(f"more than {options.tolerance:.1e}")
    if change < 100 * options.tolerance:
        sys.exit("the adapter changes too little to tell")


if __name__ == "__main__":
    main()
