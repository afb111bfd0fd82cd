#!/usr/bin/env python3
"""Trains methods on the same backbone, data and order, and writes down what each learned and cost.

    bench/compare_methods.py --rung build/release/rung --model MODEL.gguf --banking examples/banking --gsm8k FOLDER \\
        --out results.jsonl [--cases bench/cases.json] [--only REGEX] [--seeds 1,2,3]

A case is a name, a task, an epoch count and flags of `rung train` (bench/cases.json). One line of results a run; runs
already in the file are not repeated, so an interrupted queue goes on where it stopped. The loss is nats per target
token on the held-out records, the accuracy exact match of greedy answers (banking). Tokens/s are of the training
steps, the memory is VmHWM of the training process.
"""

import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

TASKS = {"banking": {"tokens": 512, "generate": True}, "gsm8k": {"tokens": 1024, "generate": False}}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr.strip()[-600:]}")
    return done


def size(text):
    number, unit = text.split()
    return int(float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit])


def read_log(folder):
    rows = [json.loads(line) for line in open(folder / "train_log.jsonl")]
    steps = [row for row in rows if "loss" in row]
    speeds = [row["tokens_per_second"] for row in steps]
    return {"steps": len(steps), "train_loss_last_tenth": statistics.mean(r["loss"] for r in steps[-max(1, len(steps) // 10):]),
            "tokens_per_second": statistics.median(speeds), "skipped": sum(row["skipped"] for row in steps)}


def measure(args, case, seed):
    task, data = TASKS[case["task"]], pathlib.Path(getattr(args, case["task"]))
    out = pathlib.Path(tempfile.mkdtemp(dir=args.work))
    common = ["--threads", str(args.threads)] if args.threads else []
    try:
        trained = run([args.rung, "train", "--model", args.model, "--data", data / "train.jsonl", "--out", out / "run",
                       "--tokens", str(task["tokens"]), "--max-length", str(task["tokens"]), "--epochs", str(case["epochs"]),
                       "--seed", str(seed), "--progress", "none", *case["flags"], *common])
        done = re.search(r"done: (\d+) steps in ([\d.]+) s, memory ([\d.]+ \w+) \(planned ([\d.]+ \w+)\)", trained.stderr)
        parameters = re.search(r"(\d+) parameters", trained.stderr)
        result = {"seconds": float(done[2]), "vm_hwm": size(done[3]), "planned": size(done[4]),
                  "parameters": int(parameters[1]) if parameters else None, **read_log(out / "run")}
        evaluate = [args.rung, "eval", "--model", args.model, "--adapter", out / "run", "--data", data / "test.jsonl",
                    "--json", "--progress", "none", "--max-new-tokens", "24", *common]
        score = json.loads(run(evaluate + ([] if task["generate"] else ["--no-generate"])).stdout)
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
    known = {(r["task"], r["name"], r["seed"]) for r in map(json.loads, open(out))} if out.exists() else set()
    failed = 0
    for seed in map(int, args.seeds.split(",")):
        for case in json.loads(pathlib.Path(args.cases).read_text()):
            key = (case["task"], case["name"], seed)
            if key in known or not re.search(args.only, f"{case['task']}/{case['name']}") or not getattr(args, case["task"]):
                continue
            try:
                result = measure(args, case, seed)
            except RuntimeError as error:
                print(f"{key}: {error}", file=sys.stderr)
                failed += 1
                continue
            with open(out, "a") as file:
                file.write(json.dumps({**case, "seed": seed, **result}) + "\n")
            print(case["task"], case["name"], seed, {k: v for k, v in result["score"].items() if not isinstance(v, (list, dict))},
                  f"{result['tokens_per_second']:.0f} tok/s, {result['vm_hwm'] / 2**20:.0f} MiB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
