#!/usr/bin/env python3
"""What a run leaves for whoever goes on with it: the command it prints, the hash of its model, the end of a loop that resumes.
RUNG_BINARY names the program."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNG = os.environ.get("RUNG_BINARY", str(ROOT / "build/release/rung"))
TINY = "tests/data/models/tinystories-656k"
STORIES = "tests/data/models/stories260k/stories260K.gguf"
# A name for each thing that a shell may make something of.
ODD = ["with a space", "it's", 'say "so"', "$HOME `pwd` $(pwd) ${x}", "two\nlines\n", "\ttab\x1b[1m", "back\\slash\\n", "~", "-*?[a]",
       "&;|<>(){}!#", "é–\u202eabc", "%s %d", b"no\xffutf8\xc3".decode("utf-8", "surrogateescape")]


class Resume(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rung_resume_"))

    def tearDown(self):
        shutil.rmtree(self.folder)

    def command(self, out, steps, *more, model=TINY):
        return [RUNG, "train", "--model", model, "--data", "examples/stories/train.jsonl", "--out", str(out), "--tokens", "64",
                "--max-length", "64", "--max-steps", str(steps), "--progress", "plain", *more]

    def test_the_printed_command_goes_on_whatever_its_arguments_are(self):
        home = str(self.folder)
        for name in ODD:
            with self.subTest(name):
                out = f"{home}/{name}"
                # So many steps that the signal comes before the end.
                run = subprocess.Popen(self.command(out, 3000, "--save-steps", "1"), cwd=ROOT, stderr=subprocess.PIPE)
                while not run.stderr.readline().startswith(b"step "):
                    self.assertIsNone(run.poll())
                run.send_signal(signal.SIGINT)
                said = run.communicate(timeout=60)[1]
                self.assertEqual(run.returncode, 130, said)
                command = said.split(b"Go on with:\n  ", 1)[1].removesuffix(b"\n")
                # The same words, and a flag.
                words = subprocess.run(["sh", "-c", b"set -- " + command + b"\nprintf '%s\\0' \"$@\""], cwd=ROOT, check=True,
                                       capture_output=True).stdout.split(b"\0")[:-1]
                expected = [os.fsencode(word) for word in self.command(out, 3000, "--save-steps", "1")]
                self.assertEqual(words, [*expected, b"--resume"])
                # What a terminal does not show is not in it.
                self.assertNotRegex(command, rb"[\x00-\x09\x0b-\x1f\x7f]")
                shorter = command.replace(b"--max-steps 3000", b"--dry-run --max-steps 3000")
                gone_on = subprocess.run(["sh", "-c", shorter], cwd=ROOT, capture_output=True)
                self.assertEqual(gone_on.returncode, 0, gone_on.stderr)
                self.assertIn(b"would go on after step", gone_on.stdout)

    def test_a_loop_that_resumes_ends(self):
        out = self.folder / "run"
        loop = 'n=0; until "$@" --resume; do n=$((n+1)); [ $n -lt 3 ] || exit 9; done'
        for _ in range(2):
            done = subprocess.run(["sh", "-c", loop, "sh", *self.command(out, 4, "--save-steps", "2")], cwd=ROOT, capture_output=True,
                                  text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"finished: {out} holds the adapter of a whole run (4 steps)", done.stderr)
        self.assertIn("--max-steps with --resume-force", done.stderr)
        dry = subprocess.run(self.command(out, 4, "--resume", "--dry-run"), cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(dry.returncode, 0, dry.stderr)
        self.assertIn("nothing is left to do", dry.stdout)
        more = subprocess.run(self.command(out, 6, "--resume"), cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(more.returncode, 2)
        self.assertIn("steps: then 4, now 6", more.stderr)
        more = subprocess.run(self.command(out, 6, "--resume-force"), cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(more.returncode, 0, more.stderr)
        self.assertEqual(json.loads((out / "trainer_state.json").read_text())["global_step"], 6)

    def test_a_run_that_ended_early_says_what_makes_it_longer(self):
        out = self.folder / "run"

        def run(patience, *more):
            command = self.command(out, 12, "--save-steps", "1", "--eval-data", "examples/stories/valid.jsonl", "--eval-limit", "4",
                                   "--eval-steps", "1", "--samples", "0", "--learning-rate", "0.2", "--lr-scheduler", "constant",
                                   "--early-stopping-patience", str(patience), *more)
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

        self.assertEqual(run(1).returncode, 0)
        again = run(1, "--resume")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertRegex(again.stderr, r"ended early, after \d+ of 12 steps")
        self.assertIn("more --early-stopping-patience, or 0, with --resume-force", again.stderr)
        other = run(0, "--resume")
        self.assertEqual(other.returncode, 2, other.stderr)
        self.assertIn("early_stopping_patience: then 1, now none", other.stderr)
        forced = run(0, "--resume-force")
        self.assertEqual(forced.returncode, 0, forced.stderr)
        self.assertEqual(json.loads((out / "trainer_state.json").read_text())["global_step"], 12)

    def test_the_hash_of_a_model_is_that_of_its_files(self):
        for model, names in ((STORIES, [None]), (TINY, ["config.json", "model.safetensors"])):
            out = self.folder / Path(model).name
            subprocess.run(self.command(out, 2, "--raw", model=model), cwd=ROOT, check=True, capture_output=True)
            record = json.loads((out / "run.json").read_text())["model"]
            self.assertEqual([file["name"] for file in record["files"]], names)
            hashes = []
            for file in record["files"]:
                data = (ROOT / model / file["name"] if file["name"] else ROOT / model).read_bytes()
                hashes.append(hashlib.sha256(data).hexdigest())
                self.assertEqual(file, {"name": file["name"], "bytes": len(data), "sha256": hashes[-1]})
            whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(h + "\n" for h in hashes).encode()).hexdigest()
            self.assertEqual(record["sha256"], whole)


if __name__ == "__main__":
    unittest.main()
