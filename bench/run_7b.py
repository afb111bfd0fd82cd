#!/usr/bin/env python3
"""Training steps beside a model of 7 billion random weights, under a hard limit of memory.

    bench/run_7b.py --rung build/release/rung --dir qwen2.5-7b-nf4 --limit 12
    bench/run_7b.py --rung build/release/rung --dir qwen2.5-7b-nf4 --limit 6 --method "ladder, embeddings quantised" --json

The model is written first when --dir is not there (rung quantize --random). Each method runs in a process of its own,
and its outcome is judged: the exit status is 0 when every expectation was seen to hold.
The limit is a cgroup's where one can be made (what the kernel charges: anonymous memory and page cache, no swap),
else an rlimit. The peak is ru_maxrss of the process, which is its VmHWM. Standard library only.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 1 << 30
SHAPE = "qwen2.5-7b"
# One training step on one sequence, timed.
STEP = ["bench", "step", "--model", "{dir}", "--tokens", "2048", "--sequence", "2048", "--iterations", "0",
        "--step-only", "--json"]
# Its plan, for methods that do not live to print it.
PLAN = ["plan", "--model", "{dir}", "--tokens", "2048", "--max-length", "2048", "--json"]
# What each method adds to the command line.
METHODS = {
    "ladder": ["--method", "ladder", "--rejoin", "0"],
    "ladder, embeddings quantised": ["--method", "ladder", "--rejoin", "0", "--quantize-embeddings"],
    "ladder, rejoining": ["--method", "ladder"],
    "lora keep": ["--method", "lora"],
    "lora recompute": ["--method", "lora", "--recompute"],
}
LIMITS = ["auto", "cgroup", "data", "as", "none"]
# What is expected of SHAPE, in GiB of peak: at most, or more than. A method that is not here is only reported.
EXPECTATIONS = {
    "ladder": ("at most", 12),
    "ladder, embeddings quantised": ("at most", 6),
    "ladder, rejoining": ("at most", 12),
    "lora keep": ("more than", 12),
}
# (over, under): what they share out.
RATIOS = [("ladder", "lora keep"), ("ladder", "lora recompute"), ("ladder, rejoining", "lora keep"),
          ("ladder, embeddings quantised", "lora keep"),
          ("ladder, embeddings quantised", "lora recompute")]
OUT_OF_MEMORY = 4  # the program's exit code
# Hidden size and layers of the shapes that can be written, to tell whose folder --dir is.
SIZES = {
    "qwen2.5-0.5b": (896, 24), "qwen2.5-1.5b": (1536, 28), "qwen2.5-3b": (2048, 36), "qwen2.5-7b": (3584, 28),
    "qwen2.5-14b": (5120, 48), "llama-3.2-1b": (2048, 16), "llama-3.2-3b": (3072, 28), "llama-3.1-8b": (4096, 32),
    "llama-3.1-70b": (8192, 80), "smollm2-135m": (576, 30), "smollm2-360m": (960, 32), "smollm2-1.7b": (2048, 24),
    "gemma-2-2b": (2304, 26), "gemma-3-1b": (1152, 26), "phi-3-mini": (3072, 32), "phi-4-mini": (3072, 32),
    "olmo-2-7b": (4096, 32), "pythia-1.4b": (2048, 24), "opt-350m": (1024, 24), "opt-1.3b": (2048, 24),
    "opt-6.7b": (4096, 32),
}


def cgroup_homes():
    """Folders of cgroup v2 in which a child group may be made: our own, then the one above it, because a group that
    has processes cannot pass the memory controller on."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    root = Path("/sys/fs/cgroup")
    for line in lines:
        if line.startswith("0::"):
            own = root / line[3:].lstrip("/")
            yield own
            if own != root:
                yield own.parent


def make_cgroup(limit):
    """A group limited to this many bytes without swap, or None."""
    for home in cgroup_homes():
        group = home / f"rung-7b-{os.getpid()}"
        try:
            control = home / "cgroup.subtree_control"
            if "memory" not in control.read_text().split():
                control.write_text("+memory")
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "memory.max").write_text(str(limit))
            if (group / "memory.swap.max").exists():
                (group / "memory.swap.max").write_text("0")
            return group
        except OSError:
            group.rmdir()
    return None


def was_killed(group):
    try:
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        return int(events.get("oom_kill", 0)) > 0
    except (OSError, ValueError):
        return False


class Limit:
    """How a process is held to `limit` bytes; None: not at all."""

    NOTES = {
        "cgroup": "memory.max of a cgroup, no swap",
        "data": "RLIMIT_DATA: private writable memory, touched or not; mapped files are not counted",
        "as": "RLIMIT_AS: address space, mapped files included, touched or not",
        "none": "no limit",
    }

    def __init__(self, limit, kind):
        self.limit, self.group, self.kind = limit, None, "none"
        if limit is None or kind == "none":
            return
        if kind in ("auto", "cgroup"):
            self.group = make_cgroup(limit)
            if self.group:
                self.kind = "cgroup"
                return
            if kind == "cgroup":
                sys.exit("run_7b: no cgroup can be made here; --limit-by data works anywhere")
        self.kind = "as" if kind == "as" else "data"

    def enter(self):
        """In the child, before exec."""
        if self.kind == "cgroup":
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
        elif self.kind in ("data", "as"):
            which = resource.RLIMIT_AS if self.kind == "as" else resource.RLIMIT_DATA
            resource.setrlimit(which, (self.limit, self.limit))

    def leave(self):
        """True when the kernel killed the process at the limit."""
        killed = bool(self.group) and was_killed(self.group)
        if self.group:
            self.group.rmdir()
        return killed


def parse_output(text):
    """The JSON object that the program printed; {} when there is none."""
    try:
        found = json.loads(text[text.index("{"):])
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def command_of(rung, words, folder, method):
    return [rung] + [part.replace("{dir}", str(folder)) for part in words] + METHODS[method]


def planned(rung, folder, method):
    done = subprocess.run(command_of(rung, PLAN, folder, method), capture_output=True, text=True)
    return parse_output(done.stdout).get("total_bytes")


def measure(rung, folder, method, limit):
    command = command_of(rung, STEP, folder, method)
    begin = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err, preexec_fn=limit.enter)
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            killed = limit.leave()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        found = parse_output(out.read().decode(errors="replace"))
        words = err.read().decode(errors="replace").strip()
    return {"method": method, "command": command, "exit_code": process.returncode, "killed_at_limit": killed,
            "seconds": time.monotonic() - begin, "peak_bytes": usage.ru_maxrss * 1024,
            "planned_bytes": found.get("planned_bytes") or planned(rung, folder, method),
            "tokens_per_second": found.get("tokens_per_second"),
            "limit_bytes": None if limit.kind == "none" else limit.limit, "limit_by": limit.kind, "message": words, "report": found}


def judge(row, expected):
    """(True, False or None for undecided; why). Out of memory under a limit shows that more than the limit is needed,
    and nothing about bounds above it."""
    out_of_memory = row["killed_at_limit"] or row["exit_code"] == OUT_OF_MEMORY
    if row["exit_code"] != 0 and not out_of_memory:
        return False, f"ended with {row['exit_code']}"
    if expected is None:
        return True, "reported"
    kind, bound = expected[0], expected[1] * GIB
    if out_of_memory:
        limit = row["limit_bytes"]
        if limit is None or limit < bound:
            return None, f"out of memory below {gib(bound)}"
        return kind == "more than", f"does not fit in {gib(limit)}"
    fits = row["peak_bytes"] <= bound
    return fits == (kind == "at most"), f"peak {gib(row['peak_bytes'])}"


def ratios(rows):
    """Of the plans, and of the peaks of methods that ran to their end."""
    plans = {row["method"]: row["planned_bytes"] for row in rows}
    peaks = {row["method"]: row["peak_bytes"] for row in rows if row["exit_code"] == 0}

    def ratio(values, over, under):
        return values[over] / values[under] if values.get(over) and values.get(under) else None

    return [{"over": over, "under": under, "planned_ratio": ratio(plans, over, under),
             "peak_ratio": ratio(peaks, over, under)} for over, under in RATIOS if over in plans and under in plans]


def gib(value):
    return "-" if value is None else f"{value / GIB:.2f} GiB"


WIDTH = max(map(len, METHODS)) + 2


def words_of(verdict):
    word = {True: "holds", False: "FAILS", None: "undecided"}[verdict["holds"]]
    return f"{verdict['expected']}: {word} ({verdict['why']})" if verdict["expected"] else verdict["why"]


def print_row(row):
    rate = row["tokens_per_second"]
    end = "killed at the limit" if row["killed_at_limit"] else str(row["exit_code"])
    print(f"{row['method']:<{WIDTH}}{gib(row['planned_bytes']):>12}{gib(row['peak_bytes']):>12}"
          f"{'-' if rate is None else f'{rate:.1f}':>10}  {end:<6}{words_of(row['verdict'])}", flush=True)
    if row["exit_code"] != 0 and row["message"]:
        print("  " + row["message"].replace("\n", "\n  "), flush=True)


def base_name(shape):
    """As the program reads it: "Qwen/Qwen2.5-7B-Instruct" is "qwen2.5-7b"."""
    return re.sub(r"(-instruct|-base|-chat|-hf)+$", "", shape.rsplit("/", 1)[-1].lower()).removeprefix("meta-")


def other_shape(folder, shape):
    """What the folder's config says where it is not of this shape; empty where it is, or where nobody knows."""
    config = json.loads((folder / "config.json").read_text())
    found = (config.get("hidden_size"), config.get("num_hidden_layers"))
    wanted = SIZES.get(base_name(shape), found)
    if found == wanted:
        return ""
    return f"hidden size {found[0]} and {found[1]} layers; {shape} has {wanted[0]} and {wanted[1]}"


def write_model(rung, folder, shape):
    if (folder / "config.json").exists():
        try:
            other = other_shape(folder, shape)
        except (ValueError, AttributeError) as error:
            other = f"a config.json that cannot be read ({error})"
        if other:
            sys.exit(f"run_7b: --dir {folder}: {other}. Name another folder, or --shape")
        return
    command = [rung, "quantize", "--random", shape, "--out", str(folder)]
    if subprocess.run(command).returncode != 0:
        sys.exit("run_7b: the model could not be written")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", required=True, help="the program")
    parser.add_argument("--dir", required=True, type=Path, help="the model's folder; written when it is not there")
    parser.add_argument("--shape", default=SHAPE, help="of the model that is written")
    parser.add_argument("--limit", type=float, help="GiB of memory; without: no limit")
    parser.add_argument("--limit-by", choices=LIMITS, default="auto")
    parser.add_argument("--method", choices=[*METHODS, "all"], default="all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    a = parser.parse_args()
    if not shutil.which(a.rung):
        parser.error(f"--rung {a.rung}: no such program")
    write_model(a.rung, a.dir, a.shape)
    expectations = EXPECTATIONS if base_name(a.shape) == SHAPE else {}
    limit_bytes = None if a.limit is None else int(a.limit * GIB)
    rows = []
    for method in METHODS if a.method == "all" else [a.method]:
        limit = Limit(limit_bytes, a.limit_by)
        if not rows and not a.json:
            print(f"{a.dir.name}, limit {gib(limit_bytes)}: {Limit.NOTES[limit.kind]}")
            print(f"{'method':<{WIDTH}}{'planned':>12}{'peak':>12}{'tokens/s':>10}  exit  expected", flush=True)
        row = measure(a.rung, a.dir, method, limit)
        expected = expectations.get(method)
        holds, why = judge(row, expected)
        row["verdict"] = {"expected": f"peak {expected[0]} {expected[1]} GiB" if expected else None, "holds": holds,
                          "why": why}
        rows.append(row)
        if not a.json:
            print_row(row)
    held = all(row["verdict"]["holds"] for row in rows)
    if a.json:
        print(json.dumps({"dir": str(a.dir), "rows": rows, "ratios": ratios(rows), "expectations_hold": held}, indent=2))
    else:
        for ratio in ratios(rows):
            numbers = {name: "-" if ratio[f"{name}_ratio"] is None else f"{ratio[f'{name}_ratio']:.3f}"
                       for name in ("planned", "peak")}
            print(f"{ratio['over']} / {ratio['under']}: planned {numbers['planned']}, peak {numbers['peak']}")
        print("all expectations hold" if held else "not all expectations were seen to hold")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
