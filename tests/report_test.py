#!/usr/bin/env python3
"""The page of `rung report`: its elements as Python's parser sees them, and in headless Chromium where there is one: the
script ran, the picture has the curves, nothing was asked of the network. RUNG_BINARY names the program.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import unittest
import zlib
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNG = os.environ.get("RUNG_BINARY", str(ROOT / "build/release/rung"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "br", "img", "link", "input", "hr"}
EVIL = '</script><script>document.title="owned"</script><img src=http://example.com/x onerror=alert(1)>'


class Page(HTMLParser):
    """Elements with their attributes, the text of each id, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.faults, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        self.faults += [f"never closed: {name}" for name, _ in self.open]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes.get("id")))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"closed without being open: {tag} at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data):
        for _, name in self.open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read_png(path):
    """Width, height, and the pixels as rows of (r, g, b)."""
    data = path.read_bytes()
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            packed += body
        at += size + 12
    assert depth == 8 and colour in (2, 6) and not interlaced
    n = 3 if colour == 2 else 4
    raw, rows, before = zlib.decompress(packed), [], bytearray(width * n)
    for y in range(height):
        start = y * (width * n + 1)
        how, line = raw[start], bytearray(raw[start + 1:start + 1 + width * n])
        for i in range(len(line)):
            a, b, c = (line[i - n] if i >= n else 0), before[i], (before[i - n] if i >= n else 0)
            if how == 1:
                line[i] = (line[i] + a) & 255
            elif how == 2:
                line[i] = (line[i] + b) & 255
            elif how == 3:
                line[i] = (line[i] + (a + b) // 2) & 255
            elif how == 4:
                p = a + b - c
                nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                line[i] = (line[i] + nearest) & 255
        rows.append([tuple(line[i:i + 3]) for i in range(0, len(line), n)])
        before = line
    return width, height, rows


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="rung_report_"))
        for name, rate in (("first", "3e-3"), ("second", "1e-3")):
            subprocess.run([RUNG, "train", "--model", "tests/data/models/tinystories-656k", "--data",
                            "examples/stories/train.jsonl", "--eval-data", "examples/stories/valid.jsonl", "--out",
                            cls.folder / name, "--tokens", "128", "--max-length", "96", "--max-steps", "40",
                            "--eval-steps", "10", "--learning-rate", rate, "--progress", "none"],
                           cwd=ROOT, check=True, capture_output=True)
        with open(cls.folder / "second/train_log.jsonl", "a") as log:
            log.write(json.dumps({"event": "note", "step": 40, "text": EVIL}) + "\n")
        with open(cls.folder / "second/samples.jsonl", "a") as samples:
            for stage in ("before", "after"):
                line = {"stage": stage, "step": 0, "prompt": EVIL, "expected": "yes", "answer": EVIL}
                samples.write(json.dumps(line) + "\n")
        cls.path = cls.folder / "report.html"
        subprocess.run([RUNG, "report", cls.folder / "first", cls.folder / "second", "--out", cls.path], cwd=ROOT,
                       check=True, capture_output=True)
        cls.text = cls.path.read_text()
        cls.page = Page(cls.text)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_elements_are_closed_and_ids_are_unique(self):
        self.assertEqual(self.page.faults, [])
        ids = [a["id"] for _, a in self.page.elements if "id" in a]
        self.assertEqual(len(ids), len(set(ids)))

    def test_nothing_from_elsewhere(self):
        for _, attributes in self.page.elements:
            for name in ("src", "href", "srcset", "action", "data"):
                self.assertNotIn(name, attributes)
            self.assertFalse([name for name in attributes if name.startswith("on")], attributes)
        self.assertEqual(len(self.page.all("script")), 1)
        self.assertEqual(self.page.all("img"), [])
        self.assertNotIn("@import", self.text)
        self.assertNotRegex(self.text, r"url\((?!#)")
        policy = [a["content"] for a in self.page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy[0])

    def test_charts_have_titles_axes_and_data(self):
        charts = {a["id"]: a for a in self.page.all("svg")}
        for name in ("loss", "accuracy", "learning-rate", "grad-norm", "throughput", "waiting", "resident"):
            self.assertIn(name, charts)
            self.assertEqual(charts[name]["role"], "img")
            self.assertIn(charts[name]["aria-labelledby"], self.page.texts)
        loss = json.loads(charts["loss"]["data-chart"])
        names = [line["name"] for line in loss["lines"]]
        self.assertEqual(names, [f"{run}: {what}" for run in ("first", "second")
                                 for what in ("step", "smoothed", "evaluation")])
        log = [json.loads(line) for line in (self.folder / "first/train_log.jsonl").read_text().splitlines()]
        steps = [line for line in log if "loss" in line]
        self.assertEqual(loss["lines"][0]["x"], [line["step"] for line in steps])
        for value, line in zip(loss["lines"][0]["y"], steps):
            self.assertAlmostEqual(value, line["loss"], delta=1e-4)
        self.assertEqual(loss["lines"][2]["x"], [10, 20, 30, 40])

    def test_tables_say_what_the_record_says(self):
        log = [json.loads(line) for line in (self.folder / "first/train_log.jsonl").read_text().splitlines()]
        last = [line for line in log if "eval_loss" in line][-1]
        self.assertIn(f"{last['eval_loss']:.4f}", self.page.texts["numbers"])
        self.assertIn("finished", self.page.texts["numbers"])
        self.assertIn("weights", self.page.texts["memory"])
        self.assertIn("measured", self.page.texts["memory"])
        self.assertIn("options.learning_rate", self.page.texts["difference"])
        self.assertNotIn("options.tokens", self.page.texts["difference"])
        self.assertIn("options.tokens", self.page.texts["settings"])
        self.assertIn(EVIL, self.page.texts["samples"])

    def chromium(self, *arguments, page=None):
        """Runs the page; the profile and everything it writes is in a folder of its own."""
        if not CHROMIUM:
            self.skipTest("no chromium on this machine")
        profile = tempfile.mkdtemp(dir=self.folder)
        result = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--virtual-time-budget=3000",
             "--enable-logging=stderr", *arguments, (page or self.path).as_uri()],
            capture_output=True, text=True, timeout=240)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def test_in_chromium_the_script_says_values_and_nothing_is_asked(self):
        probe = self.folder / "probe.html"
        probe.write_text(self.text.replace("</body>", """<script>
            const svg = document.getElementById("loss"), box = svg.getBoundingClientRect();
            svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 60}));
            const seen = document.createElement("output"); seen.id = "seen";
            seen.textContent = document.getElementById("tip").textContent + "|" + performance.getEntriesByType("resource").length;
            document.body.appendChild(seen);</script></body>"""))
        net = self.folder / "net.json"
        result = self.chromium("--dump-dom", f"--log-net-log={net}", page=probe)
        page = Page(result.stdout)
        seen, resources = page.texts["seen"].split("|")
        self.assertRegex(seen, r"^step\d+first: step[\d.]+first: smoothed[\d.]+")
        self.assertIn("second: smoothed", seen)
        self.assertEqual(resources, "0")
        self.assertIn("<title>2 runs", result.stdout)  # and not what a note tried
        self.assertNotRegex(result.stderr, r"CONSOLE.*(Error|Refused)")
        self.assertEqual(self.asked(net), [])
        # The same on a page that does ask: the log would show it. No name is resolved, so nothing leaves.
        control = self.folder / "control.html"
        control.write_text("<!DOCTYPE html><title>x</title><img src=http://example.com/x.png>")
        self.chromium("--dump-dom", f"--log-net-log={net}", page=control)
        self.assertIn("http://example.com/x.png", self.asked(net))

    def asked(self, net_log):
        """What pages from files asked for: their cache keys begin with file://. The browser's own requests do not count."""
        return re.findall(r'"key":"[^"]*file://[^"]* (https?://[^"]+)"', net_log.read_text())

    def test_in_chromium_the_picture_has_the_curves(self):
        picture = self.folder / "picture.png"
        self.chromium(f"--screenshot={picture}", "--window-size=1280,1400", "--hide-scrollbars")
        width, height, rows = read_png(picture)
        self.assertEqual((width, height), (1280, 1400))
        counts = {}
        for row in rows:
            for pixel in row:
                counts[pixel] = counts.get(pixel, 0) + 1
        for name in ("--c0", "--c1"):  # the runs' colours, in the light or the dark scheme
            colours = [tuple(bytes.fromhex(c)) for c in re.findall(name + r": #([0-9a-f]{6})", self.text)]
            self.assertGreater(sum(counts.get(c, 0) for c in colours), 500, name)


if __name__ == "__main__":
    unittest.main()
