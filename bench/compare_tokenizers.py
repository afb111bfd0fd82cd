"""Speed of encoding beside the `tokenizers` package, one thread each, in turns: prints megabytes a second and the ratio.

    cmake --build build/release --target tokenize
    python bench/compare_tokenizers.py build/release/tokenize FOLDER... [--text FILE] [--rounds 5] [--json]

FOLDER holds a tokenizer.json. Texts: a megabyte each of made English, code and Chinese, and a line without a space
(tools/make_tokenizer_hashes.py), in chunks of some kilobytes, as records of a data set are; --text adds a file's.
Each round encodes a text once with each; the medians count. Ids are compared on the way.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import make_tokenizer_hashes as made  # noqa: E402


def measure(peer, tokenizer, texts, rounds):
    ours, theirs = [], []
    for _ in range(rounds):
        total, got = 0, []
        for text in texts:
            encoded, ns = peer.encode(text, False)
            total += ns
            got.append(encoded)
        ours.append(total / 1e9)
        begin = time.perf_counter()
        want = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        theirs.append(time.perf_counter() - begin)
        if got != [e.ids for e in want]:
            sys.exit("the ids differ: tools/make_tokenizer_hashes.py --check shows where")
    size = sum(len(text.encode()) for text in texts) / 1e6
    return size / statistics.median(ours), size / statistics.median(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the program bench/tokenize.cc")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = {"english": made.english(1 << 20), "code": made.code(1 << 20), "chinese": made.chinese(1 << 20),
             "line": [made.line(1 << 20)]}
    for path in args.text:
        texts[path.name] = made.chunks(path.read_text().splitlines(keepends=True))
    rows = []
    if not args.json:
        print(f"{'tokenizer':16} {'text':16} {'rung MB/s':>10} {'package MB/s':>13} {'ratio':>6}")
    for folder in args.folders:
        tokenizer = made.load(folder)
        tokenizer.encode_special_tokens = True
        peer = made.Peer(args.program, folder)
        for name, parts in texts.items():
            ours, theirs = measure(peer, tokenizer, parts, args.rounds)
            rows.append({"tokenizer": folder.name, "text": name, "rung": ours, "package": theirs, "ratio": ours / theirs})
            if not args.json:
                print(f"{folder.name:16} {name:16} {ours:10.1f} {theirs:13.1f} {ours / theirs:6.2f}", flush=True)
        peer.close()
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
