"""Makes tests/data/text/components.json: small random tokenizers of every supported component, and the ids of the package.

    python3 tools/make_tokenizer_components.py
    python3 tools/make_tokenizer_components.py --check build/tokenize [--count 2000] [--seed 1]

The second form makes other ones and compares. Both need the packages tokenizers and sentencepiece (for a charsmap).
"""

import argparse
import base64
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import tokenizers

OUT = Path(__file__).resolve().parent.parent / "tests/data/text/components.json"
ALPHABET = list("abcABC  12.,-'\n\t") + ["\u2581", "\u00e9", "\u0301", "\u4f60", "\u00a0", "\u2167", "\ufb01", "_", "\u00df"]
OTHER = ["\u0130", "\u3000", "\U0001f600", "\u200d", "\u0323", "\u212b", "\u00bd", "\u1e9b", "\uac01", "\u1100", "\u1161", "x", "$", "\u0661", "\r\n",
         "\u30d5\u309a", "\u2460", "\u24b6", "\u00b2", "\ua7cb", "\U00010d50", "\u0898", "\U00011938", "\u061d", "\u2e44", "\U00011de0", "\x00",
         "\ufeff", "\U000113c5", "\u0d3b", "e\u0301\u0323"]
ADDED = ["<s>", "ab", " b", "Cc", "<x> ", "a b", "12", "\u00e9", "\ufb01", "-", "<s", "  "]
PATTERNS = [r"\p{L}+", r"\s+", r"[^\s\p{L}\p{N}]", r"\w+", r"\d", r"(?i:AB)|c+", r"b*", r"\s+$", r"^a", r"[ab]+", r"\p{Lu}\p{Ll}*|\p{M}", r"\p{N}{1,2}",
            r"a(?=b)|\S", r"\s+(?!\S)|\s+", r"[\p{Han}]+", r"\W", r"\D+", r"\P{L}", r"\n|.", r"(?<=a)b", r"a++b?", r"[\w.]+", r"x|"]
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def charsmap():
    """A small one, made by SentencePiece itself."""
    import sentencepiece
    with tempfile.TemporaryDirectory() as folder:
        rules = [("FB01", "66 69"), ("3000", "20"), ("65 301", "E9"), ("41", "61"), ("24B6", "41"), ("AC01", "1100"), ("2D", ""), ("2581", "20"),
                 ("62 62", "63"), ("1F600", "3A 29"), ("A0", "20")]
        path = Path(folder)
        (path / "rules.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rules))
        (path / "text.txt").write_text("\n".join("ab abc bca cab" for _ in range(50)))
        sentencepiece.SentencePieceTrainer.train(input=str(path / "text.txt"), model_prefix=str(path / "m"), vocab_size=8, minloglevel=2,
                                                 normalization_rule_tsv=str(path / "rules.tsv"))
        data = (path / "m.model").read_bytes()
    return base64.b64encode(field(field(data, 3), 2)).decode()


def field(message, number):
    """The last length-delimited field of that number in a protocol buffer."""
    at, found = 0, b""

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
        elif key & 7 == 5:
            at += 4
        elif key & 7 == 1:
            at += 8
        else:
            size = varint()
            if key >> 3 == number:
                found = message[at:at + size]
            at += size
    return found


def text(rng):
    parts = [rng.choice(ALPHABET if rng.random() < 0.8 else OTHER if rng.random() < 0.7 else ADDED) for _ in range(rng.randrange(0, 16))]
    return "".join(p * (rng.randrange(2, 5) if rng.random() < 0.1 else 1) for p in parts)


def pattern(rng):
    if rng.random() < 0.3:
        return {"String": rng.choice(["a", " ", "ab", "\u2581", "."])}
    return {"Regex": rng.choice(PATTERNS)}


def normalizer(rng, precompiled, depth=0):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend", "Replace", "Precompiled", "Sequence", None])
    if kind is None:
        return None
    if kind == "Strip":
        return {"type": kind, "strip_left": rng.random() < 0.7, "strip_right": rng.random() < 0.7}
    if kind == "Prepend":
        return {"type": kind, "prepend": rng.choice(["\u2581", "a", " "])}
    if kind == "Replace":
        return {"type": kind, "pattern": pattern(rng), "content": rng.choice(["\u2581", "", "b", "a b"])}
    if kind == "Precompiled":
        return {"type": kind, "precompiled_charsmap": precompiled}
    if kind == "Sequence":
        steps = [normalizer(rng, precompiled, depth + 1) for _ in range(rng.randrange(1, 4))] if depth < 2 else []
        return {"type": kind, "normalizers": [s for s in steps if s]}
    return {"type": kind}


def pre_tokenizer(rng, depth=0):
    kind = rng.choice(["Split", "Split", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits", "Punctuation", "BertPreTokenizer", "Delimiter",
                       "FixedLength", "Sequence", None])
    if kind is None:
        return None
    if kind == "Split":
        return {"type": kind, "pattern": pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.3}
    if kind == "Metaspace":
        return {"type": kind, "replacement": "\u2581", "prepend_scheme": rng.choice(["always", "first", "never"]), "split": rng.random() < 0.7}
    if kind == "Digits":
        return {"type": kind, "individual_digits": rng.random() < 0.5}
    if kind == "Punctuation":
        return {"type": kind, "behavior": rng.choice(BEHAVIORS)}
    if kind == "Delimiter":
        return {"type": kind, "delimiter": rng.choice("a. ")}
    if kind == "FixedLength":
        return {"type": kind, "length": rng.randrange(1, 6)}
    if kind == "Sequence":
        steps = [pre_tokenizer(rng, depth + 1) for _ in range(rng.randrange(1, 4))] if depth < 2 else []
        return {"type": kind, "pretokenizers": [s for s in steps if s]}
    return {"type": kind}


def join(rng, tokens, count):
    merges = []
    for _ in range(count):
        a, b = rng.choice(tokens), rng.choice(tokens)
        if len(a + b) <= 4 and [a, b] not in merges:
            merges.append([a, b])
            if a + b not in tokens:
                tokens.append(a + b)
    return merges


def model(rng):
    tokens = ["<unk>"] + sorted({c for c in ALPHABET if rng.random() < 0.9})
    fallback = rng.random() < 0.5
    if fallback:
        tokens += [f"<0x{i:02X}>" for i in range(256)]
    if rng.random() < 0.5:
        plain = [t for t in tokens if len(t) == 1]
        merges = join(rng, plain, 30)
        tokens += [t for t in plain if t not in tokens]
        return {"type": "BPE", "dropout": None, "unk_token": "<unk>" if rng.random() < 0.8 else None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": rng.random() < 0.5, "byte_fallback": fallback, "ignore_merges": rng.random() < 0.3,
                "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}
    plain = [t for t in tokens if len(t) == 1]
    join(rng, plain, 40)
    tokens += [t for t in plain if t not in tokens]
    return {"type": "Unigram", "unk_id": 0, "byte_fallback": fallback,
            "vocab": [[t, 0.0 if t == "<unk>" else round(-rng.random() * 8, 1)] for t in tokens]}


def make(rng, precompiled):
    m = model(rng)
    known = m["vocab"] if m["type"] == "BPE" else {t: i for i, (t, _) in enumerate(m["vocab"])}
    added, used = [], len(known)
    for content in rng.sample(ADDED, rng.randrange(0, 5)):
        added.append({"id": known.get(content, used), "content": content,
                      # Ours never reads a special token from plain text, not even one that is in the model.
                      "special": content not in known and rng.random() < 0.4, "normalized": rng.random() < 0.5,
                      "lstrip": rng.random() < 0.3, "rstrip": rng.random() < 0.3, "single_word": rng.random() < 0.3})
        used += content not in known
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer(rng, precompiled),
            "pre_tokenizer": pre_tokenizer(rng), "post_processor": None, "decoder": {"type": "Fuse"}, "model": m}


def reference(root, strings):
    """[[ids without special tokens, ids with]] of the package, or None where it does not take the tokenizer."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(root))
        if any(tokenizer.token_to_id(t["content"]) != t["id"] for t in root["added_tokens"]):
            return None
        texts = [tokenizer.normalizer.normalize_str(t["content"]) if tokenizer.normalizer else t["content"]
                 for t in root["added_tokens"] if t["normalized"]]
        if len(set(texts)) < len(texts):  # then any of them may be taken
            return None
        out = []
        for string in strings:
            pair = []
            for special in (False, True):
                tokenizer.encode_special_tokens = not special
                pair.append(tokenizer.encode(string, add_special_tokens=False).ids)
            out.append(pair)
        return out
    except BaseException as error:  # the package panics on some of its own combinations
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def check(root, strings, want, program):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(root))
        data = b""
        for string in strings:
            for special in (0, 1):
                data += struct.pack("<BI", special, len(string.encode())) + string.encode()
        done = subprocess.run([program, str(path)], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            return done.stderr.decode().strip() or f"exit {done.returncode}"
    at = 0
    for string, pair in zip(strings, want):
        for special in (0, 1):
            _, count = struct.unpack_from("<QI", done.stdout, at)
            got = list(struct.unpack_from(f"<{count}i", done.stdout, at + 12))
            at += 12 + 4 * count
            if got != pair[special]:
                return f"{string!a} special={special}: want {pair[special]} got {got}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", metavar="PROGRAM")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    precompiled, cases, wrong, tried = charsmap(), [], 0, 0
    for number in range(args.count if args.check else 60):
        rng = random.Random(args.seed * 1000003 + number)
        root = make(rng, precompiled)
        strings = [text(rng) for _ in range(30 if args.check else 6)]
        want = reference(root, strings)
        if want is None:
            continue
        tried += 1
        cases.append({"tokenizer": root, "texts": [[s, *pair] for s, pair in zip(strings, want)]})
        if args.check and (what := check(root, strings, want, args.check)):
            wrong += 1
            if wrong <= 8:
                short = {k: root[k] for k in ("added_tokens", "normalizer", "pre_tokenizer")}
                print(number, what, json.dumps(short)[:700].replace(precompiled, "..."), {k: v for k, v in root["model"].items() if k not in ("vocab", "merges")})
    if args.check:
        print(f"{wrong} of {tried} tokenizers differ")
        sys.exit(wrong != 0)
    OUT.write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
