#!/usr/bin/env python3
"""Tests of the pure functions of bench/run_7b.py, compare_methods.py and report_methods.py: what they judge, read and
group. Nothing is trained."""

import contextlib
import io
import json
import re
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "bench"))
import compare_methods
import report_methods
import run_7b

CASES = json.loads((ROOT / "bench/cases.json").read_text())


def outcome(method="ladder", exit_code=0, killed=False, peak=5.0, limit=None):
    return {"method": method, "exit_code": exit_code, "killed_at_limit": killed, "peak_bytes": int(peak * run_7b.GIB),
            "planned_bytes": {"ladder": 5, "lora recompute": 20}.get(method),
            "limit_bytes": None if limit is None else int(limit * run_7b.GIB)}


class Run7b(unittest.TestCase):
    def judged(self, expected, **row):
        return run_7b.judge(outcome(**row), expected)[0]

    def test_at_most(self):
        self.assertIs(self.judged(("at most", 6), peak=6.0), True)
        self.assertIs(self.judged(("at most", 6), peak=6.1), False)
        self.assertIs(self.judged(("at most", 6), exit_code=4, limit=6), False)
        self.assertIs(self.judged(("at most", 6), exit_code=-9, killed=True, limit=12), False)
        self.assertIs(self.judged(("at most", 12), exit_code=4, limit=8), None)

    def test_more_than(self):
        self.assertIs(self.judged(("more than", 12), exit_code=4, limit=12), True)
        self.assertIs(self.judged(("more than", 12), exit_code=-9, killed=True, limit=12), True)
        self.assertIs(self.judged(("more than", 12), exit_code=4, limit=8), None)
        self.assertIs(self.judged(("more than", 12), exit_code=4), None)
        self.assertIs(self.judged(("more than", 12), peak=14.0), True)
        self.assertIs(self.judged(("more than", 12), peak=11.0), False)

    def test_other_failures_never_hold(self):
        for expected in (None, ("at most", 6), ("more than", 12)):
            self.assertIs(self.judged(expected, exit_code=1, limit=12), False)
            self.assertIs(self.judged(expected, exit_code=-11, limit=12), False)
        self.assertIs(self.judged(None, exit_code=4, limit=12), True)

    def test_ratios_are_of_what_ran_to_its_end(self):
        rows = [outcome("ladder", peak=6), outcome("lora keep", peak=12), outcome("lora recompute", exit_code=4)]
        self.assertEqual(run_7b.ratios(rows), [
            {"over": "ladder", "under": "lora keep", "planned_ratio": None, "peak_ratio": 0.5},
            {"over": "ladder", "under": "lora recompute", "planned_ratio": 0.25, "peak_ratio": None}])

    def test_sizes_are_those_of_the_program(self):
        found = dict()
        for name, _, layers, hidden in re.findall(r'\{"([a-z\d.-]+)", "(\w+)", (\d+), (\d+), ',
                                                       (ROOT / "src/model/shapes.cc").read_text()):
            found[name] = (int(hidden), int(layers))
        self.assertEqual(found, run_7b.SIZES)

    def test_a_folder_of_another_shape(self):
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            config.write_text('{"hidden_size": 3584, "num_hidden_layers": 28}')
            self.assertEqual(run_7b.other_shape(Path(folder), "Qwen/Qwen2.5-7B-Instruct"), "")
            self.assertIn("3584 and 28 layers; qwen2.5-0.5b", run_7b.other_shape(Path(folder), "qwen2.5-0.5b"))
            self.assertEqual(run_7b.other_shape(Path(folder), "unknown"), "")

    def test_every_expectation_and_ratio_is_of_a_method(self):
        self.assertLessEqual(set(run_7b.EXPECTATIONS), set(run_7b.METHODS))
        self.assertLessEqual({name for pair in run_7b.RATIOS for name in pair}, set(run_7b.METHODS))


def result(name="ladder", seed=1, task="banking", epochs=1, flags=("--method", "ladder"), loss=1.0, **more):
    return {"task": task, "name": name, "epochs": epochs, "flags": list(flags), "seed": seed, "vm_hwm": 200 << 20,
            "parameters": 1000000, "tokens_per_second": 500.0, "score": {"loss": loss, "accuracy": 0.5}, **more}


class CompareMethods(unittest.TestCase):
    def test_sizes(self):
        self.assertEqual(compare_methods.size("1.5 MiB"), 3 << 19)
        self.assertEqual(compare_methods.size("12 B"), 12)

    def test_report_of_a_run(self):
        text = ("1416448 parameters; ladder\ndone: 210 steps in 12.5 s, memory 1.0 MiB (planned 2.0 MiB), adapter in x\n")
        self.assertEqual(compare_methods.read_report(text),
                         {"seconds": 12.5, "vm_hwm": 1 << 20, "planned": 2 << 20, "parameters": 1416448})
        with self.assertRaises(RuntimeError):
            compare_methods.read_report("something else")

    def test_what_is_done(self):
        model, data = {"name": "a", "bytes": 1, "sha256_head": "x"}, {"train": "t", "test": "u"}
        rows = [result(model=model, data=data)]
        case = {key: rows[0][key] for key in ("task", "name", "epochs", "flags")}
        done = compare_methods.is_done
        self.assertTrue(done(rows, case, 1, model, data))
        self.assertFalse(done(rows, case, 2, model, data))
        self.assertFalse(done(rows, {**case, "epochs": 3}, 1, model, data))
        self.assertFalse(done(rows, {**case, "flags": [*case["flags"], "--rejoin", "4"]}, 1, model, data))
        self.assertFalse(done(rows, case, 1, {**model, "sha256_head": "y"}, data))
        self.assertFalse(done(rows, case, 1, model, {**data, "train": "v"}))
        self.assertTrue(done([result()], case, 1, model, data))  # neither was written down

    def test_lines_survive_a_queue_that_is_killed(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.jsonl"
            file.write_text(json.dumps(result()) + "\n" + json.dumps(result(seed=2))[:40])
            compare_methods.append(file, result(seed=3))
            with contextlib.redirect_stderr(io.StringIO()) as said:
                rows = compare_methods.read_results(file)
            self.assertEqual([row["seed"] for row in rows], [1, 3])
            self.assertIn(":2:", said.getvalue())

    def test_identity_is_of_contents(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "m.gguf"
            file.write_bytes(b"abc")
            first = compare_methods.about_model(file)
            self.assertEqual((first["name"], first["bytes"]), ("m.gguf", 3))
            file.write_bytes(b"abd")
            self.assertNotEqual(compare_methods.about_model(file)["sha256_head"], first["sha256_head"])

    def test_cases_are_whole_and_distinct(self):
        self.assertEqual(len({compare_methods.case_key(case, 1) for case in CASES}), len(CASES))
        self.assertLessEqual({case["task"] for case in CASES}, set(compare_methods.TASKS))
        self.assertEqual(len({(case["task"], case["name"]) for case in CASES}), len(CASES))


class ReportMethods(unittest.TestCase):
    def test_one_model(self):
        rows = [result(), result(seed=2, model={"name": "a"}), result(seed=3, model={"name": "b"})]
        seeds = lambda name: [row["seed"] for row in report_methods.of_model(rows, name)[0]]
        self.assertEqual(seeds(None), [1, 2])
        self.assertEqual(seeds("b"), [3])
        self.assertEqual(report_methods.of_model(rows, "b")[1], 2)

    def test_order_is_that_of_the_cases(self):
        rows = [result("unknown"), *(result(c["name"], task=c["task"], epochs=c["epochs"], flags=c["flags"]) for c in CASES[::-1])]
        names = [case[:2] for case in report_methods.group(rows, CASES)]
        self.assertEqual(names, [(c["task"], c["name"]) for c in CASES] + [("banking", "unknown")])

    def test_table_has_mean_and_spread_over_seeds(self):
        rows = [result(loss=1.0), result(seed=2, loss=2.0), result(seed=2, loss=1.2)]
        text = report_methods.table("banking", report_methods.group(rows, CASES))
        self.assertEqual(len(text.splitlines()), 3)
        self.assertIn("| ladder | 1.00 M | 1 | 1.100 ± 0.100 | 50.0 ± 0.0 | 500 ± 0 | 200 | 2 |", text)

    def test_same_name_other_flags_is_another_row(self):
        rows = [result(), result(flags=("--method", "ladder", "--rejoin", "4"))]
        self.assertEqual(len(report_methods.group(rows, CASES)), 2)

    def test_picture_is_xml(self):
        groups = report_methods.group([result("a < b & c")], CASES)
        text = report_methods.svg("banking", groups)
        self.assertIn("a < b & c", xml.etree.ElementTree.fromstring(text).itertext())
        with self.assertRaises(ValueError):
            report_methods.svg("gsm8k", groups)


if __name__ == "__main__":
    unittest.main()
