#!/usr/bin/env python3
"""Checks that the documents say what is true.

  links     every relative link leads to a file, and to a heading where it names one
  paths     every path in backticks exists
  names     every type or function named in backticks in the design documents is in src/
  commands  every `rung ...` uses verbs and options that the program has, and gives those that it requires
  words     no path of one machine, no word about how the project is run, no number left out
  runs      fenced blocks marked "sh run" are executed, in a temporary folder that sees examples/ and tests/

The program is the one named by RUNG_BINARY; without it commands and runs are skipped.
"""

import functools
import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("RUNG_BINARY", "")
SKIPPED_FOLDERS = {"build", ".cache", ".git", "runs"}
SOURCE_FOLDERS = ("bench", "cmake", "docs", "examples", "fuzz", "src", "tests", "tools")
# Documents whose backticked names are names of the source.
DESIGN = ("DESIGN.md", "GLOSSARY.md", "src/README.md", "docs/adr/")
# Documents in which a bare `--option` is one of rung's, or of ./check's.
OPTION_DOCUMENTS = ("README.md", "DESIGN.md", "CHANGELOG.md", "docs/")
SECONDS = 300  # for one block of commands, on a busy machine, with sanitizers

FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:%s)(?:/[\w.+*{},-]+)*/?" % "|".join(SOURCE_FOLDERS))
NAME = re.compile(r"(?:[A-Za-z_]\w*::)*[A-Za-z_]*[A-Z]\w*[a-z]\w*(?:::\w+)*(?:\(\w*\))?")
OPTION = re.compile(r"--[a-z][a-z-]*")
COMMAND = re.compile(r"^(?:\$ )?(?:[\w./]*/)?rung\s+(.*)$")

FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.:/$~-])/(?:work|opt|tmp|root|home|mnt)(?:/|\b)"),
    "a word about how the project is run": re.compile(r"\b(?:sessions?|issue #\d*|TODO|FIXME)\b", re.IGNORECASE),
    "a number that was not filled in": re.compile(r"@@\w*@@"),
}


def documents():
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
        found += [Path(folder) / f for f in sorted(files) if f.endswith(".md")]
    return found


def relative(path):
    return path.relative_to(ROOT).as_posix()


def prose(text):
    """The text without its fenced blocks; lines keep their numbers."""
    return FENCE.sub(lambda m: "\n" * m.group().count("\n"), text)


def slug(heading):
    """As GitHub makes anchors."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def expand(path):
    """tests/{a,b}/x as tests/a/x and tests/b/x."""
    braces = re.search(r"\{([^{}]*)\}", path)
    if not braces:
        return [path]
    alternatives = (path[: braces.start()] + part + path[braces.end():] for part in braces.group(1).split(","))
    return [p for alternative in alternatives for p in expand(alternative)]


def exists(path):
    if "*" in path:
        return any(ROOT.glob(path))
    return (ROOT / path).exists()


def source_names():
    """Every identifier of the sources."""
    files = (f for suffix in ("*.h", "*.cc") for f in (ROOT / "src").rglob(suffix))
    return set(re.findall(r"[A-Za-z_]\w*", "\n".join(f.read_text(encoding="utf-8") for f in files)))


def lines_of(block):
    """The commands of a shell block: continued lines joined, comments and empty lines left out."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        line = re.sub(r"(?:^|\s)#.*$", "", line).strip()
        if line:
            yield line


def commands_of(text):
    """The words after `rung` of every command in fenced blocks and in backticks. None in place of a mere mention."""
    for info, block in FENCE.findall(text):
        if info.strip() in ("", "sh", "sh run", "bash", "console"):
            for line in lines_of(block):
                yield from (("block", m.group(1)) for part in re.split(r"&&|\|\||;|\|", line)
                            for m in [COMMAND.match(part.strip())] if m)
    for code in CODE.findall(prose(text)):
        if m := COMMAND.match(code):
            yield "mention", m.group(1)


@functools.lru_cache(maxsize=None)
def help_of(*verb):
    return subprocess.run([BINARY, *verb, "--help"], capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def verbs_in(text):
    """The subcommands that a help text lists."""
    if "Subcommands:" not in text:
        return set()
    return set(re.findall(r"^  ([a-z]+)\s", text.split("Subcommands:")[1].split("Example:")[0], re.MULTILINE))


def options_in(text):
    return set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", text, re.MULTILINE))


def required_in(text):
    return set(re.findall(r"^  (--[a-z-]+) .*REQUIRED", text, re.MULTILINE))


def findings_of_command(kind, arguments):
    """What is wrong with the words after `rung`, one text each."""
    words = shlex.split(arguments.replace("[", " ").replace("]", " ").replace("…", " "))
    verb = []
    while words and (choices := verbs_in(help_of(*verb))):
        if words[0].startswith("-") or words[0].isupper():
            break
        if words[0] not in choices:
            yield f"{' '.join(['rung', *verb])} has no verb {words[0]}"
            return
        verb.append(words.pop(0))
    if not verb:
        return
    text = help_of(*verb)
    given = {m.group() for w in words if (m := OPTION.match(w))}
    for option in sorted(given - options_in(text)):
        yield f"rung {' '.join(verb)} has no option {option}"
    missing = required_in(text) - given
    if kind == "block" and missing and not given & {"--config", "--help"} and words:
        yield f"rung {' '.join(verb)} needs {', '.join(sorted(missing))}"


class DocumentsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.texts = {relative(p): p.read_text(encoding="utf-8") for p in documents()}

    def report(self, findings):
        if findings:
            self.fail("\n  " + "\n  ".join(sorted(set(findings))))

    def test_there_are_documents(self):
        for name in ("README.md", "DESIGN.md", "GLOSSARY.md", "CHANGELOG.md", "src/README.md", "docs/README.md"):
            self.assertIn(name, self.texts)
        self.assertIn("Apache License", (ROOT / "LICENSE").read_text())

    def test_links(self):
        findings = []
        for name, text in self.texts.items():
            for target in LINK.findall(CODE.sub("", prose(text))):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = (ROOT / name).parent / path if path else ROOT / name
                if not file.exists():
                    findings.append(f"{name}: link to {target}: there is no such file")
                elif anchor and anchor not in map(slug, re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)):
                    findings.append(f"{name}: link to {target}: there is no such heading")
        self.report(findings)

    def test_paths(self):
        findings = []
        for name, text in self.texts.items():
            for code in CODE.findall(prose(text)):
                for word in code.split():
                    if "/" in word and PATH.fullmatch(word):
                        findings += [f"{name}: {p} does not exist" for p in expand(word) if not exists(p)]
        self.report(findings)

    def test_names(self):
        known = source_names()
        findings = []
        for name, text in self.texts.items():
            if not name.startswith(DESIGN):
                continue
            for code in CODE.findall(prose(text)):
                if NAME.fullmatch(code):
                    findings += [f"{name}: `{code}`: {part} is not in src/"
                                 for part in re.findall(r"\w+", code) if part not in known]
        self.report(findings)

    def test_words(self):
        findings = []
        for name, text in self.texts.items():
            for number, line in enumerate(text.splitlines(), 1):
                for what, pattern in FORBIDDEN.items():
                    # `Session` is a type of the engine.
                    for match in pattern.finditer(CODE.sub("", line) if "word" in what else line):
                        findings.append(f"{name}:{number}: {what}: {match.group()}")
        self.report(findings)


@unittest.skipUnless(BINARY, "RUNG_BINARY names no program: commands of the documents are not checked")
class CommandsTest(unittest.TestCase):
    def test_help_is_understood(self):
        self.assertLessEqual({"train", "eval", "generate", "plan", "bench"}, verbs_in(help_of()))
        self.assertIn("step", verbs_in(help_of("bench")))
        self.assertIn("--threads", options_in(help_of("bench", "step")))
        self.assertEqual({"--model", "--data", "--out"}, required_in(help_of("train")))

    def test_commands(self):
        findings, count = [], 0
        for path in documents():
            for kind, arguments in commands_of(path.read_text(encoding="utf-8")):
                count += 1
                findings += [f"{relative(path)}: {f}" for f in findings_of_command(kind, arguments)]
        for arguments in re.findall(r"\$rung ([^\n\"'<>(]*)", (ROOT / "quickstart").read_text()):
            findings += [f"quickstart: {f}" for f in findings_of_command("mention", arguments)]
        self.assertGreater(count, 20, "the documents' commands were not found")
        if findings:
            self.fail("\n  " + "\n  ".join(sorted(set(findings))))

    def test_options(self):
        verbs = [(v, *below) for v in verbs_in(help_of()) for below in [(b,) for b in verbs_in(help_of(v))] or [()]]
        known = set().union(*(options_in(help_of(*v)) for v in verbs))
        known |= set(OPTION.findall((ROOT / "check").read_text()))
        findings = []
        for path in documents():
            if relative(path).startswith(OPTION_DOCUMENTS):
                for code in CODE.findall(prose(path.read_text(encoding="utf-8"))):
                    if (m := re.match(r"--[a-z][a-z-]*", code)) and m.group() not in known:
                        findings.append(f"{relative(path)}: no verb has the option {m.group()}")
        if findings:
            self.fail("\n  " + "\n  ".join(sorted(set(findings))))

    def test_runs(self):
        count = 0
        for path in documents():
            for info, block in FENCE.findall(path.read_text(encoding="utf-8")):
                if info.strip() != "sh run":
                    continue
                count += 1
                with self.subTest(document=relative(path)), tempfile.TemporaryDirectory() as folder:
                    here = Path(folder)
                    for name in ("examples", "tests"):
                        (here / name).symlink_to(ROOT / name)
                    (here / "bin").mkdir()
                    (here / "bin" / "rung").symlink_to(Path(BINARY).resolve())
                    environment = dict(os.environ, PATH=f"{here / 'bin'}:{os.environ['PATH']}", OMP_WAIT_POLICY="passive")
                    ran = subprocess.run(["bash", "-eux", "-c", block], cwd=here, env=environment, capture_output=True,
                                         text=True, timeout=SECONDS)
                    self.assertEqual(0, ran.returncode, f"{ran.stdout}\n{ran.stderr}")
        self.assertGreater(count, 0, "no block is marked to be run")


if __name__ == "__main__":
    unittest.main()
