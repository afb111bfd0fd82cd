#!/usr/bin/env python3
"""Makes prompt/completion records from GSM8K's train.jsonl and test.jsonl (MIT licence, openai/grade-school-math).

    tools/make_gsm8k.py FOLDER_WITH_THE_FILES --out FOLDER [--train 2000] [--test 400] [--seed 1]

The same input and seed give the same bytes on any machine: records are ordered by a hash of seed and question.
"""

import argparse
import hashlib
import json
import pathlib


def records(path, count, seed):
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed}:{row['question']}".encode()).digest())
    return [{"prompt": row["question"], "completion": row["answer"]} for row in rows[:count]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--train", type=int, default=2000, help="records; 7473 are all")
    parser.add_argument("--test", type=int, default=400, help="records; 1319 are all")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", args.train), ("test", args.test)):
        rows = records(args.source / f"{name}.jsonl", count, args.seed)
        with open(args.out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{args.out / name}.jsonl: {len(rows)} records")


if __name__ == "__main__":
    main()
