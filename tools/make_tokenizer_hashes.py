"""Makes and checks tests/data/text/hashes.txt: what the `tokenizers` package gives for texts made at run time.

    python3 tools/make_tokenizer_hashes.py FOLDER                       # writes the file anew
    python3 tools/make_tokenizer_hashes.py FOLDER --check build/tokenize    # compares id by id, prints the first differences

FOLDER holds <model>/tokenizer.json, or vocab.json and merges.txt, and gguf-vocab/*.gguf; tokenizers of tests/data/text are
taken as well. The texts are 10,000 random Unicode strings, and a megabyte each of English, code, Chinese and of a line
without a space; src/text/tokenizer_{strings,texts}.h make the same ones. Only hashes are kept: many vocabularies may not be.

A line of the file: the model, "plain" or "special" (special tokens of the text are recognised), the text, its FNV-1a hashes:
one for each 1,000 strings, over the number of ids and the ids of each string, 32 bits little-endian each.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/data/text/hashes.txt"
HERE = ["gpt2", "smollm2", "qwen2", "tinystories"]  # in tests/data/text
MASK = (1 << 64) - 1

ENGLISH = (ROOT / "tests/data/text/words.txt").read_text().split("\n")[0].split(" ")
CHINESE = (ROOT / "tests/data/text/words.txt").read_text().split("\n")[1]
SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
            "<|start_story|>", "<|end_story|>", "<think>", "   ", " </s>", "<pad>"]
RANGES = [(0x20, 0x7E), (0x61, 0x7A), (0x20, 0x20), (0x00, 0x20), (0xA0, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0xDFF),
          (0x1100, 0x11FF), (0xAC00, 0xD7A3), (0x3000, 0x9FFF), (0x2000, 0x206F), (0x1F300, 0x1FAFF), (0x1F3FB, 0x1F3FF),
          (0x1F1E6, 0x1F1FF), (0x200D, 0x200D), (0xFE00, 0xFE0F), (0x30, 0x39), (0x2150, 0x24FF), (0xE000, 0xFFFF),
          (0x10000, 0x1FFFF), (0x20000, 0x33FFF), (0x10000, 0x10FFFF), (0x80, 0xD7FF)]


class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n

    def word(self):
        n = len(ENGLISH)
        return ENGLISH[self.below(n) * self.below(n) // n]  # earlier words more often


def random_string(seed):
    random, text = Random(seed), ""
    for _ in range(random.below(40)):
        if random.below(24) == 0:
            text += SPECIALS[random.below(len(SPECIALS))]
            continue
        low, high = RANGES[random.below(len(RANGES))]
        text += chr(low + random.below(high - low + 1)) * (1 + random.below(20) if random.below(16) == 0 else 1)
    return text


def chunks(parts, size=8192):
    """Joins parts to texts of about so many characters: the package's Replace is quadratic."""
    out, current, total = [], [], 0
    for part in parts:
        current.append(part)
        total += len(part)
        if total >= size:
            out.append("".join(current))
            current, total = [], 0
    return out + ["".join(current)]


def english(size):
    random, parts, total = Random(1), [], 0
    while total < size:
        sentence = []
        for _ in range(3 + random.below(18)):
            word, kind = random.word(), random.below(40)
            word = (word + "'s" if kind == 0 else word + "," if kind < 4 else str(random.below(3000)) if kind == 4 else
                    '"' + word + '"' if kind == 5 else word.upper() if kind == 6 else word)
            sentence.append(word)
        text = " ".join(sentence)
        text = text[0].upper() + text[1:] + [". ", "! ", "? ", ".\n", ".\n\n", "; "][random.below(6)]
        parts.append(text)
        total += len(text)
    return chunks(parts)


def code(size):
    random, parts, total = Random(2), [], 0
    while total < size:
        a, b, c, n = random.word(), random.word(), random.word(), random.below(1000)
        line = [f"for (int {a} = 0; {a} < {b}_{c}; ++{a}) {{\n", f"  if ({a}.{b}() != {n}) return {c};\n", f"def {a}_{b}(self, {c}=None):\n",
                f"    return {a}[{n}] + {b.upper()}  # {c}\n", f"\tstd::vector<{a}> {b}{c.capitalize()}({n});\n", "}\n\n",
                f'    "{a}": {{"{b}": {n}, "{c}": [0x{n:x}, {n}.5e-{n % 10}]}},\n', f"        {a} = {b} ** 2 - {c}[:-1]\n",
                f"// {a} {b} {c}\n", f"import {a}.{b} as {c}\n"][random.below(10)]
        parts.append(line)
        total += len(line)
    return chunks(parts)


def chinese(size):
    random, parts, total, n = Random(3), [], 0, len(CHINESE)
    while total < size:
        text = "".join(CHINESE[random.below(n) * random.below(n) // n] for _ in range(2 + random.below(20)))
        text += ["\uff0c", "\u3002", "\uff01", "\u3002\n", str(random.below(100))][random.below(5)]
        parts.append(text)
        total += len(text.encode())
    return chunks(parts)


def line(size):
    random, parts, total = Random(4), [], 0
    while total < size:
        parts.append(random.word())
        total += len(parts[-1])
    return "".join(parts)


def make_texts():
    return {"strings": [random_string(1000 + i) for i in range(10000)], "english": english(1 << 20), "code": code(1 << 20),
            "chinese": chinese(1 << 20), "line": [line(1 << 20)]}


def fnv(data, h=0xCBF29CE484222325):
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def hashes(lists):
    out = []
    for at in range(0, len(lists), 1000):
        h = fnv(b"")
        for ids in lists[at:at + 1000]:
            h = fnv(struct.pack(f"<I{len(ids)}i", len(ids), *ids), h)
        out.append(f"{h:016x}")
    return " ".join(out)


def pair(merge, vocab):
    """The two tokens of "left right"; the package does not read merges of tokens with spaces in this older form."""
    places = [i for i, c in enumerate(merge) if c == " "]
    return next([merge[:i], merge[i + 1:]] for i in places
                if merge[:i] in vocab and merge[i + 1:] in vocab and merge[:i] + merge[i + 1:] in vocab)


def adapt(root, path):
    """Gives a tokenizer.json the added tokens that a GGUF file has; the rest of both is the same."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    tokens, kinds = (fields["tokenizer.ggml." + key].contents() for key in ("tokens", "token_type"))
    old = {t["content"]: t for t in root["added_tokens"]}
    root["added_tokens"] = [{"id": i, "content": text, "special": kind == 3, "normalized": False, "lstrip": False, "rstrip": False,
                             "single_word": False} for i, (text, kind) in enumerate(zip(tokens, kinds))
                            if kind in (3, 4) and not text.startswith("[PAD")]
    if "\u00a0" in tokens and " " in root["model"]["vocab"]:  # Llama-2's tokenizer.json has lost its no-break spaces
        mend = lambda text: text.replace(" ", "\u00a0")
        root["model"]["vocab"] = {mend(t): i for t, i in root["model"]["vocab"].items()}
        root["model"]["merges"] = [[mend(a), mend(b)] for a, b in root["model"]["merges"]]
    known = root["model"]["vocab"]
    for token in root["added_tokens"]:
        if token["content"] not in known and token["content"] not in old:
            known[token["content"]] = token["id"]  # so that the package gives it this id


def load(path, within=None):
    """The package's tokenizer; with the added tokens of the GGUF file `within`, if there is one."""
    if (path / "tokenizer.json").exists():
        root = json.loads((path / "tokenizer.json").read_text())
        if any(isinstance(m, str) for m in root["model"].get("merges", [])):
            root["model"]["merges"] = [pair(m, root["model"]["vocab"]) for m in root["model"]["merges"]]
        if within:
            adapt(root, within)
        if root["model"]["type"] == "BPE":
            # The package renumbers added tokens where a reduced vocabulary has holes.
            vocab, used = root["model"]["vocab"], set(root["model"]["vocab"].values())
            first = min([t["id"] for t in root["added_tokens"] if t["content"] not in vocab], default=0)
            vocab.update({f"\0{i}": i for i in range(first) if i not in used})
        return tokenizers.Tokenizer.from_str(json.dumps(root))
    tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


# The tokenizer.json whose ids a GGUF vocabulary gives, less added tokens that it does not have.
GGUF = {"gpt-2": "gpt2", "gpt-neox": "pythia", "llama-bpe": "llama-3", "llama-spm": "llama-2", "phi-3": "llama-2", "qwen2": "qwen3"}


def find_models(folder):
    """(name, what rung loads, what the package loads)"""
    found = [(name, ROOT / "tests/data/text" / name, ROOT / "tests/data/text" / name) for name in HERE if (ROOT / "tests/data/text" / name).exists()]
    for path in sorted(folder.iterdir()):
        if (path / "tokenizer.json").exists() or (path / "vocab.json").exists():
            found.append(("folder/" + path.name, path, path))
    for path in sorted((folder / "gguf-vocab").glob("*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        if name in GGUF and (folder / GGUF[name]).exists():
            found.append(("folder/gguf-vocab/" + path.name, path, folder / GGUF[name]))
    return found


class Peer:
    def __init__(self, program, path):
        self.process = subprocess.Popen([program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def encode(self, text, special):
        data = text.encode()
        self.process.stdin.write(struct.pack("<BI", 1 if special else 0, len(data)) + data)
        self.process.stdin.flush()
        ns, count = struct.unpack("<QI", self.process.stdout.read(12))
        return list(struct.unpack(f"<{count}i", self.process.stdout.read(4 * count))), ns

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def compare(name, path, tokenizer, texts, program):
    peer, wrong, count = Peer(program, path), 0, 0
    for special in (False, True):
        tokenizer.encode_special_tokens = not special
        for kind, strings in texts.items():
            for text in strings if kind == "strings" or not special else []:
                want = encode(tokenizer, text)
                got, _ = peer.encode(text, special)
                count += 1
                if want == got:
                    continue
                wrong += 1
                if wrong <= 5:
                    at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
                    print(f"  {name} {kind} special={special}: at id {at}: want {want[max(0, at - 3):at + 5]} got "
                          f"{got[max(0, at - 3):at + 5]} {[tokenizer.id_to_token(i) for i in want[max(0, at - 3):at + 5]]} "
                          f"{ascii(text[:300])}")
    peer.close()
    print(f"{name}: {wrong} mismatches in {count} texts", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", metavar="PROGRAM", help="the program bench/tokenize.cc")
    parser.add_argument("--only", help="models whose name contains this")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts, lines, wrong = make_texts(), [], 0
    for kind, strings in texts.items():
        lines.append(f"text utf-8 {kind} {hashes([list(s.encode()) for s in strings])}")
    for name, path, source in find_models(args.folder):
        if args.only and args.only not in name:
            continue
        tokenizer = load(source, path if path.suffix == ".gguf" else None)
        if args.check:
            wrong += compare(name, path, tokenizer, texts, args.check)
            continue
        print(name, file=sys.stderr, flush=True)
        for special in (False, True):
            tokenizer.encode_special_tokens = not special
            for kind, strings in texts.items():
                if special and kind != "strings":
                    continue  # no special token stands in the others
                lists = [encode(tokenizer, s) for s in strings]
                lines.append(f"{name} {'special' if special else 'plain'} {kind} {hashes(lists)}")
    if args.check:
        print(f"{wrong} mismatches")
        sys.exit(wrong != 0)
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
