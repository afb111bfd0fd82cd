#!/usr/bin/env python3
"""Makes the tables and packed files under tests/data/data: quoted.csv and .tsv as Python's csv module writes them, with
the fields in quoted.json, and pairs.jsonl.gz and .zst as Python and zstd pack them.

  python tools/make_table_golden.py        (needs the program zstd)
"""

import csv
import gzip
import json
import random
import subprocess
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "tests/data/data"
PARTS = ["a", "b c", ",", '"', "\n", "\r\n", "\t", "é", "😀", " ", "'", ";", "\\", '""', "", "x,y"]


def main():
    rng = random.Random(7)
    columns = ["prompt", "completion", "note, \"quoted\""]
    rows = [["".join(rng.choices(PARTS, k=rng.randrange(7))) for _ in columns] for _ in range(60)]
    rows.append(["", "", ""])
    rows.append(["plain", "last", "row"])
    for name, separator, end in (("quoted.csv", ",", "\r\n"), ("quoted.tsv", "\t", "\n")):
        with open(OUT / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=separator, lineterminator=end)
            writer.writerow(columns)
            writer.writerows(rows)
    (OUT / "quoted.json").write_text(json.dumps({"columns": columns, "rows": rows}, ensure_ascii=False) + "\n")

    lines = "".join(json.dumps({"prompt": f"{i} + 1 =", "completion": str(i + 1)}) + "\n" for i in range(40))
    # Two members one after another, as `cat a.gz b.gz` makes.
    half = len(lines) // 2
    packed = gzip.compress(lines[:half].encode(), mtime=0) + gzip.compress(lines[half:].encode(), mtime=0)
    (OUT / "pairs.jsonl.gz").write_bytes(packed)
    plain = OUT / "pairs.jsonl"
    plain.write_text(lines)
    subprocess.run(["zstd", "-q", "-f", "-19", str(plain), "-o", str(plain) + ".zst"], check=True)


if __name__ == "__main__":
    main()
