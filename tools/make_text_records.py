#!/usr/bin/env python3
"""Makes text records of a plain text file: whole lines, joined until a record has so many characters.

    tools/make_text_records.py FILE --out records.jsonl [--characters 2200] [--records 32]
"""

import argparse
import json
import pathlib


def records(lines, characters):
    """Lines keep their ends; what is left when the text ends is no record."""
    record = ""
    for line in lines:
        record += line
        if len(record) >= characters:
            yield record
            record = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--characters", type=int, default=2200)
    parser.add_argument("--records", type=int, default=32)
    args = parser.parse_args()
    with open(args.source, encoding="utf-8", newline="") as source, open(args.out, "w", encoding="utf-8") as out:
        for text, _ in zip(records(source, args.characters), range(args.records)):
            out.write(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    main()
