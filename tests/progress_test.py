#!/usr/bin/env python3
"""What a person sees of a run: a bar in a (pseudo-)terminal, plain lines elsewhere. RUNG_BINARY names the program."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import tempfile
import termios
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNG = os.environ.get("RUNG_BINARY", str(ROOT / "build/release/rung"))
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Progress(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rung_progress_"))

    def tearDown(self):
        shutil.rmtree(self.folder)

    def command(self, steps, *more):
        return [RUNG, "train", "--model", "tests/data/models/tinystories-656k", "--data",
                "examples/stories/train.jsonl", "--out", str(self.folder / "run"), "--tokens", "128", "--max-length",
                "96", "--max-steps", str(steps), *more]

    def terminal(self, steps, *more, columns=140, resized=None, environment=()):
        """What the run writes to a terminal, which gets `resized` columns when the first step is seen."""
        master, slave = pty.openpty()
        size = lambda width: fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        size(columns)
        env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | dict(environment)
        process = subprocess.Popen(self.command(steps, *more), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=slave, env=env)
        os.close(slave)
        text = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            text += piece
            if resized and b"step 1/" in text:
                size(resized)
                resized = None
        os.close(master)
        self.assertEqual(process.wait(120), 0, text.decode())
        return text.decode()

    def bars(self, text):
        """The successive contents of the line that is drawn again and again."""
        lines = re.findall(r"\r([^\r\n]*step \d+/\d+[^\r\n]*?)\x1b\[K", text)
        self.assertTrue(lines, text)
        return [COLOUR.sub("", line) for line in lines]

    def test_a_terminal_has_a_bar_with_every_step(self):
        text = self.terminal(12)
        lines = self.bars(text)
        self.assertEqual([re.search(r"step (\d+)/12", line)[1] for line in lines], [str(s) for s in range(1, 13)])
        self.assertTrue(lines[0].startswith("[=="), lines[0])
        self.assertTrue(lines[-1].startswith("[" + "=" * 24 + "] "), lines[-1])
        self.assertRegex(text, COLOUR)
        self.assertLess(max(map(len, lines)), 140)
        # What follows the bar begins on a line of its own.
        self.assertRegex(text, r"\x1b\[K\r\n")

    def test_no_color(self):
        self.assertNotRegex(self.terminal(3, environment={"NO_COLOR": "1"}.items()), COLOUR)
        shutil.rmtree(self.folder / "run")
        self.assertRegex(self.terminal(3, environment={"NO_COLOR": ""}.items()), COLOUR)  # empty is not set

    def test_a_narrow_terminal_and_a_resized_one(self):
        # Steps enough that some come after the terminal was resized, however busy the machine.
        lines = self.bars(self.terminal(300, columns=140, resized=50))
        self.assertGreater(len(lines[0]), 50)
        self.assertLessEqual(len(lines[-1]), 49)
        shutil.rmtree(self.folder / "run")
        lines = self.bars(self.terminal(300, columns=50, resized=140))
        self.assertLessEqual(len(lines[0]), 49)
        self.assertGreater(len(lines[-1]), 50)

    def test_plain_lines_in_a_terminal_when_asked_or_dumb(self):
        for more, environment in ((("--progress", "plain"), ()), ((), {"TERM": "dumb"}.items())):
            text = self.terminal(3, *more, environment=environment)
            self.assertNotIn("\x1b", text)
            self.assertRegex(text, r"\nstep 1/3 .*\r\nstep 2/3 .*\r\nstep 3/3 ")
            shutil.rmtree(self.folder / "run")

    def test_elsewhere_plain_lines(self):
        result = subprocess.run(self.command(3), cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertNotIn("\x1b", result.stderr)
        self.assertNotIn("\r", result.stderr)
        self.assertEqual(len(re.findall(r"^step \d/3  loss", result.stderr, re.MULTILINE)), 3)

    def test_a_bar_elsewhere_when_asked_has_no_colour(self):
        result = subprocess.run(self.command(3, "--progress", "bar"), cwd=ROOT, capture_output=True, check=True)
        text = result.stderr.decode()
        self.assertEqual(len(self.bars(text)), 3)
        self.assertNotRegex(text, COLOUR)

    def test_none(self):
        result = subprocess.run(self.command(3, "--progress", "none"), cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertNotIn("step 1/3", result.stderr)


if __name__ == "__main__":
    unittest.main()
