#!/usr/bin/env python3
"""Trains methods on the same backbone, data and order, and writes down what each learned and cost.

    bench/compare_methods.py --rung build/release/rung --model MODEL.gguf --banking examples/banking --gsm8k FOLDER \\
        --out results.jsonl [--cases bench/cases.json] [--only REGEX] [--seeds 1,2,3]

A case is a name, a task, an epoch count and flags of `rung train` (bench/cases.json). One line of results a run, with
what it was made of: model, data, program, machine. Runs already in the file (same case, seed, model and data) are not
repeated, so an interrupted queue goes on where it stopped; a run that fails is reported, and the queue goes on. The loss
is nats per target token on the held-out records, the accuracy exact match of greedy answers (banking). Tokens/s are of
the training steps, the memory is VmHWM of the training process. Standard library only.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

TASKS = {"banking": {"tokens": 512, "generate": True}, "gsm8k": {"tokens": 1024, "generate": False}}
HEAD_BYTES = 1 << 20  # of a model's file that are hashed: its header and first weights
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr.strip()[-600:]}")
    return done


def size(text):
    """Bytes of "201.3 MiB"."""
    number, unit = text.split()
    return int(float(number) * UNITS[unit])


# What a run is made of.

def sha256(path, limit=-1):
    """Of a file, or of its first `limit` bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if limit >= 0:
            digest.update(file.read(limit))
        else:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def about_model(path):
    """Of a file, or of a folder's weights and config."""
    path = pathlib.Path(path).resolve()
    files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), path / "config.json"])
    heads = [sha256(file, HEAD_BYTES) for file in files]
    return {"name": path.name, "bytes": sum(file.stat().st_size for file in files),
            "sha256_head": heads[0] if len(heads) == 1 else hashlib.sha256("".join(heads).encode()).hexdigest()}


def about_data(folder):
    return {name: sha256(pathlib.Path(folder) / f"{name}.jsonl") for name in ("train", "test")}


def about_rung(program):
    version = json.loads(run([program, "version", "--json"]).stdout)
    binary = shutil.which(program) or program
    return {**{key: version.get(key) for key in ("version", "commit", "build", "compiler", "isa")}, "sha256": sha256(binary)}


def about_machine(threads):
    """`threads` 0: all that this process may run on, as the program takes them."""
    cpu = "unknown"
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {"cpu": cpu, "threads": threads or len(os.sched_getaffinity(0))}


# What is in the file already.

def read_results(path):
    """The whole lines of the file. The last one may be cut, where a queue was killed."""
    rows = []
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            row["task"], row["name"], row["seed"], row["flags"], row["epochs"], row["score"]
            rows.append(row)
        except (ValueError, KeyError, TypeError) as error:
            print(f"{path}:{number}: not a result, passed over ({error!r})", file=sys.stderr)
    return rows


def case_key(case, seed):
    return (case["task"], case["name"], seed, tuple(case["flags"]), float(case["epochs"]))


def is_done(rows, case, seed, model, data):
    """Lines without model and data are from before these were written down: they count for any."""
    for row in rows:
        if case_key(row, row["seed"]) != case_key(case, seed):
            continue
        if row.get("model") in (None, model) and row.get("data") in (None, data):
            return True
    return False


def append(path, row):
    with open(path, "a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # of a queue that was killed
                file.write(b"\n")
        file.write((json.dumps(row) + "\n").encode())


# One run.

def read_log(folder):
    rows = [json.loads(line) for line in open(folder / "train_log.jsonl")]
    steps = [row for row in rows if "loss" in row]
    speeds = [row["tokens_per_second"] for row in steps]
    return {"steps": len(steps), "train_loss_last_tenth": statistics.mean(r["loss"] for r in steps[-max(1, len(steps) // 10):]),
            "tokens_per_second": statistics.median(speeds), "skipped": sum(row["skipped"] for row in steps)}


def read_report(text):
    """What `rung train` says on standard error when it is done."""
    done = re.search(r"done: (\d+) steps in ([\d.]+) s, memory ([\d.]+ \w+) \(planned ([\d.]+ \w+)\)", text)
    if not done:
        raise RuntimeError(f"no report of a run in: {text.strip()[-600:]}")
    parameters = re.search(r"(\d+) parameters", text)
    return {"seconds": float(done[2]), "vm_hwm": size(done[3]), "planned": size(done[4]),
            "parameters": int(parameters[1]) if parameters else None}


def measure(args, case, seed):
    task, data = TASKS[case["task"]], pathlib.Path(getattr(args, case["task"]))
    out = pathlib.Path(tempfile.mkdtemp(dir=args.work))
    common = ["--threads", str(args.threads)] if args.threads else []
    try:
        trained = run([args.rung, "train", "--model", args.model, "--data", data / "train.jsonl", "--out", out / "run",
                       "--tokens", str(task["tokens"]), "--max-length", str(task["tokens"]), "--epochs", str(case["epochs"]),
                       "--seed", str(seed), "--progress", "none", *case["flags"], *common])
        result = {**read_report(trained.stderr), **read_log(out / "run")}
        evaluate = [args.rung, "eval", "--model", args.model, "--adapter", out / "run", "--data", data / "test.jsonl",
                    "--json", "--progress", "none", *common]
        answers = ["--max-new-tokens", "24"] if task["generate"] else ["--no-generate"]
        score = json.loads(run(evaluate + answers).stdout)
        return {**result, "score": score}
    finally:
        shutil.rmtree(out, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rung", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--banking", default="examples/banking")
    parser.add_argument("--gsm8k", default="")
    parser.add_argument("--cases", default=pathlib.Path(__file__).with_name("cases.json"))
    parser.add_argument("--only", default=".", help="regular expression on task/name")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", default=None, help="folder for runs; removed one by one")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    cases = [case for case in json.loads(pathlib.Path(args.cases).read_text())
             if getattr(args, case["task"]) and re.search(args.only, f"{case['task']}/{case['name']}")]
    known = read_results(out) if out.exists() else []
    model = about_model(args.model)
    data = {task: about_data(getattr(args, task)) for task in {case["task"] for case in cases}}
    made_of = {"model": model, "rung": about_rung(args.rung), "machine": about_machine(args.threads)}
    failed = 0
    for seed in map(int, args.seeds.split(",")):
        for case in cases:
            if is_done(known, case, seed, model, data[case["task"]]):
                continue
            try:
                result = measure(args, case, seed)
                row = {**case, "seed": seed, **result, **made_of, "data": data[case["task"]]}
                append(out, row)
                known.append(row)
                print(case["task"], case["name"], seed,
                      {k: v for k, v in result["score"].items() if not isinstance(v, (list, dict))},
                      f"{result['tokens_per_second']:.0f} tok/s, {result['vm_hwm'] / 2**20:.0f} MiB", flush=True)
            except Exception as error:  # whatever it is, it is of one run: the queue goes on
                print(f"{case['task']}/{case['name']}, seed {seed}: {error!r}" if not isinstance(error, RuntimeError)
                      else f"{case['task']}/{case['name']}, seed {seed}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
