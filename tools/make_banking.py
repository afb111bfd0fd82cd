#!/usr/bin/env python3
"""Makes examples/banking/ from the Banking77 files train.csv and test.csv.

    tools/make_banking.py FOLDER_WITH_THE_CSV_FILES [--seed 1] [--out examples/banking]

The same input and seed give the same bytes on any machine: samples are ordered by a hash of seed and text.
"""

import argparse
import csv
import hashlib
import json
import pathlib

INSTRUCTION = "Name the intent:"
TRAIN, VALID, TEST = 2000, 200, 500


def read(path):
    """Category -> texts, white space collapsed, each text once."""
    by_category, seen = {}, set()
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text = " ".join(row["text"].split())
            if text.lower() not in seen:
                seen.add(text.lower())
                by_category.setdefault(row["category"], []).append(text)
    return by_category, seen


def key(seed, text):
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def shares(total, categories, seed):
    """`total` over the categories as evenly as it goes; a hash picks those that get one more."""
    low, more = divmod(total, len(categories))
    order = sorted(categories, key=lambda category: key(seed, f"{total}:{category}"))
    return {category: low + (i < more) for i, category in enumerate(order)}


def completion(category):
    return category.replace("_", " ")


def write(path, samples, seed):
    samples.sort(key=lambda sample: key(seed, f"{path.name}:{sample[1]}"))
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for category, text in samples:
            record = {"prompt": f"{INSTRUCTION} {text}", "completion": completion(category)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="the folder of train.csv and test.csv")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("examples/banking"))
    args = parser.parse_args()

    train_texts, _ = read(args.folder / "train.csv")
    test_texts, held_out = read(args.folder / "test.csv")
    categories = sorted(train_texts, key=str.lower)
    if sorted(test_texts, key=str.lower) != categories or len(categories) != 77:
        parser.error("train.csv and test.csv do not have the same 77 categories: are they the Banking77 files?")
    if len({completion(category) for category in categories}) != 77:
        parser.error("two categories have the same words")

    train_share, valid_share, test_share = (shares(n, categories, args.seed) for n in (TRAIN, VALID, TEST))
    train, valid, test = [], [], []
    for category in categories:
        texts = [text for text in train_texts[category] if text.lower() not in held_out]
        texts.sort(key=lambda text: key(args.seed, text))
        n, m = train_share[category], valid_share[category]
        if len(texts) < n + m:
            parser.error(f"{category} has {len(texts)} texts, {n + m} are needed")
        train += [(category, text) for text in texts[:n]]
        valid += [(category, text) for text in texts[n : n + m]]
        texts = sorted(test_texts[category], key=lambda text: key(args.seed, text))
        test += [(category, text) for text in texts[: test_share[category]]]

    args.out.mkdir(parents=True, exist_ok=True)
    for name, samples in (("train", train), ("valid", valid), ("test", test)):
        write(args.out / f"{name}.jsonl", samples, args.seed)
    with open(args.out / "choices.txt", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(completion(category) + "\n" for category in categories)


if __name__ == "__main__":
    main()
