#!/usr/bin/env python3
"""The record of a run as other programs read it: train_log.jsonl, trainer_state.json (transformers), TensorBoard's
event files (tensorboard). The latter two parts are skipped where the package is missing. RUNG_BINARY names the program.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNG = os.environ.get("RUNG_BINARY", str(ROOT / "build/release/rung"))
STEPS = 12
STEP_KEYS = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "total_tokens", "target_tokens",
             "tokens_per_second", "peak_share", "waiting", "flops", "resident_bytes", "seconds", "skipped"}


def command(out, *more):
    return [RUNG, "train", "--model", "tests/data/models/tinystories-656k", "--data", "examples/stories/train.jsonl",
            "--eval-data", "examples/stories/valid.jsonl", "--out", str(out), "--tokens", "128", "--max-length", "96",
            "--max-steps", str(STEPS), "--save-steps", "2", "--eval-steps", "4", "--progress", "plain", *more]


def interrupt(arguments, after):
    """Runs, and asks it to end once the log has `after` steps."""
    log = Path(arguments[arguments.index("--out") + 1]) / "train_log.jsonl"
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (log.exists() and f'{{"step":{after},' in log.read_text()):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def has(module):
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


class Record(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="rung_record_"))
        cls.out = cls.folder / "run"
        cls.code = interrupt(command(cls.out), 3)
        with open(cls.out / "train_log.jsonl", "a") as log:
            log.write('{"step":4,"loss":')  # as a power cut leaves it
        if cls.code == 143:
            subprocess.run(command(cls.out, "--resume"), cwd=ROOT, check=True, capture_output=True)
        cls.lines = []
        for line in (cls.out / "train_log.jsonl").read_text().splitlines():
            try:
                cls.lines.append(json.loads(line))
            except json.JSONDecodeError:
                cls.lines.append(None)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_log_has_every_step_with_every_key(self):
        steps = [line for line in self.lines if line and "loss" in line]
        self.assertEqual([line["step"] for line in steps if set(line) != STEP_KEYS], [])
        self.assertLessEqual(set(range(1, STEPS + 1)), {line["step"] for line in steps})
        for line in steps:
            self.assertTrue(0 <= line["waiting"] <= 1, line)
            self.assertTrue(0 < line["peak_share"] <= 1, line)
            self.assertGreater(line["resident_bytes"], 1 << 20)
            self.assertGreaterEqual(line["tokens"], line["target_tokens"])
        total = 0
        for line in steps:  # in order, as the run was interrupted between two steps
            total += line["tokens"]
            self.assertEqual(line["total_tokens"], total)
        seconds = [line["seconds"] for line in steps]
        self.assertEqual(seconds, sorted(seconds))

    def test_log_tells_the_story(self):
        kinds = [line["event"] for line in self.lines if line and "event" in line]
        self.assertEqual(kinds[0], "begin")
        self.assertEqual(kinds[-1], "finished")
        self.assertEqual(self.code, 143)
        for kind in ("plan", "saved", "interrupted", "resumed"):
            self.assertIn(kind, kinds)
        plan = next(line for line in self.lines if line and line.get("event") == "plan")
        self.assertEqual(sum(item["bytes"] for item in plan["items"]), plan["total_bytes"])
        self.assertEqual(self.lines.count(None), 1)  # the half line

    def test_trainer_state(self):
        if not has("transformers"):
            self.skipTest("no transformers package")
        read = "import sys, json, dataclasses; from transformers import TrainerState; " \
               "print(json.dumps(dataclasses.asdict(TrainerState.load_from_json(sys.argv[1]))))"
        for folder, step in ((self.out, STEPS), (self.out / f"checkpoint-{STEPS - 2}", STEPS - 2)):
            path = folder / "trainer_state.json"
            result = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True, check=True)
            state = json.loads(result.stdout)
            self.assertEqual(state, json.loads(path.read_text()))
            self.assertEqual(state["global_step"], step)
            losses = [entry["step"] for entry in state["log_history"] if "loss" in entry]
            self.assertEqual(losses, list(range(1, step + 1)))
        # The keys that Hugging Face's Trainer writes at the end of a run.
        last = state_of(self.out)["log_history"][-1]
        self.assertLessEqual({"train_loss", "train_runtime", "total_flos", "epoch", "step"}, set(last))
        evals = [e for e in state_of(self.out)["log_history"] if "eval_loss" in e]
        self.assertEqual(evals[-1]["step"], STEPS)
        best = min(evals, key=lambda e: e["eval_loss"])
        self.assertEqual(state_of(self.out)["best_metric"], best["eval_loss"])
        self.assertEqual(state_of(self.out)["best_global_step"], best["step"])

    def test_tensorboard(self):
        if not has("tensorboard"):
            self.skipTest("no tensorboard package")
        self.assertEqual(len(list(self.out.glob("events.out.tfevents.*"))), 2)
        result = subprocess.run([sys.executable, ROOT / "tools/make_tensorboard_golden.py", self.out],
                                capture_output=True, text=True, check=True)
        scalars = json.loads(result.stdout)
        steps = {line["step"]: line for line in self.lines if line and "loss" in line}
        for tag, key in (("train/loss", "loss"), ("train/learning_rate", "learning_rate"),
                         ("train/grad_norm", "grad_norm"), ("train/tokens_per_second", "tokens_per_second")):
            self.assertEqual([step for step, _ in scalars[tag]], list(range(1, STEPS + 1)), tag)
            for step, value in scalars[tag]:
                self.assertAlmostEqual(value, steps[step][key], delta=1e-5 * abs(steps[step][key]))
        self.assertEqual(scalars["eval/loss"][-1][0], STEPS)
        self.assertIn("eval/token_accuracy", scalars)


def state_of(folder):
    return json.loads((folder / "trainer_state.json").read_text())


if __name__ == "__main__":
    unittest.main()
