#!/usr/bin/env python3
"""Training steps beside a model of 7 billion random weights, under a hard limit of memory.

    bench/run_7b.py --rung build/release/rung --dir /tmp/qwen2.5-7b-nf4 --limit 6 --method ladder
    bench/run_7b.py --rung build/release/rung --dir /tmp/qwen2.5-7b-nf4 --method all --json

The model is written first when --dir is not there (rung quantize --random). Each method runs in a process of its own.
The limit is a cgroup's where one can be made (what the kernel charges: anonymous memory and page cache, no swap),
else an rlimit. The peak is ru_maxrss of the process, which is its VmHWM. Standard library only.
"""

import argparse
import json
import os
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
# What each method adds to the command line.
METHODS = {
    "ladder": ["--method", "ladder"],
    "ladder, embeddings quantised": ["--method", "ladder", "--quantize-embeddings"],
    "lora keep": ["--method", "lora"],
    "lora recompute": ["--method", "lora", "--recompute"],
}
LIMITS = ["auto", "cgroup", "data", "as", "none"]


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


def measure(rung, folder, method, limit):
    command = [rung] + [part.replace("{dir}", str(folder)) for part in STEP] + METHODS[method]
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
            "planned_bytes": found.get("planned_bytes"), "tokens_per_second": found.get("tokens_per_second"),
            "limit_bytes": limit.limit, "limit_by": limit.kind, "message": words, "report": found}


def gib(value):
    return "-" if value is None else f"{value / GIB:.2f} GiB"


def print_row(row):
    rate = row["tokens_per_second"]
    end = "killed at the limit" if row["killed_at_limit"] else str(row["exit_code"])
    print(f"{row['method']:<16}{gib(row['planned_bytes']):>12}{gib(row['peak_bytes']):>12}"
          f"{'-' if rate is None else f'{rate:.1f}':>10}  {end}", flush=True)
    if row["exit_code"] != 0 and row["message"]:
        print("  " + row["message"].replace("\n", "\n  "), flush=True)


def write_model(rung, folder, shape):
    if (folder / "config.json").exists():
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
    limit_bytes = None if a.limit is None else int(a.limit * GIB)
    rows = []
    for method in METHODS if a.method == "all" else [a.method]:
        limit = Limit(limit_bytes, a.limit_by)
        if not rows and not a.json:
            print(f"{a.dir.name}, limit {gib(limit_bytes)}: {Limit.NOTES[limit.kind]}")
            print(f"{'method':<16}{'planned':>12}{'peak':>12}{'tokens/s':>10}  exit", flush=True)
        rows.append(measure(a.rung, a.dir, method, limit))
        if not a.json:
            print_row(rows[-1])
    if a.json:
        print(json.dumps({"dir": str(a.dir), "rows": rows}, indent=2))
    return 0 if all(row["exit_code"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
