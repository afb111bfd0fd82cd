#!/usr/bin/env python3
"""Checks that includes point down only.

The order of the rooms is src/layers.txt, lowest first. A file of a room may include headers of its own
room and of earlier rooms. Some libraries may be included in a few rooms only (LIBRARY_RULES).

Prints one line per finding and exits with 1 when there is any.
"""

import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}

# (what, pattern of the included name, allowed folders or None, forbidden folders)
# A folder is relative to src/; "kernels/cpu" covers everything below it.
LIBRARY_RULES = [
    ("oneDNN", re.compile(r"(dnnl|oneapi/dnnl)"), ("kernels/cpu", "exec"), ()),
    ("CUDA", re.compile(r"(cuda|cublas|cub/|cooperative_groups)"), ("kernels/cuda", "exec"), ()),
    ("JSON and YAML", re.compile(r"(nlohmann/|yaml-cpp/)"), None, ("tensor", "kernels", "exec", "ops", "nn")),
]


def read_layers(path):
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def inside(folder, prefixes):
    return any(folder == p or folder.startswith(p + "/") for p in prefixes)


def check_file(path, src, order):
    """Yields "file:line: message" for each include that breaks a rule."""
    relative = path.relative_to(src)
    folder = relative.parent.as_posix()
    room = relative.parts[0] if len(relative.parts) > 1 else None
    text = path.read_text(errors="replace")
    for match in INCLUDE.finditer(text):
        # `^\s*` may start on an earlier, empty line: count up to the "#".
        line = text.count("\n", 0, text.index("#", match.start())) + 1
        at = f"src/{relative.as_posix()}:{line}"
        quoted, name = match.group(1) == '"', match.group(2)
        if quoted and room in order:
            target = name.split("/")[0]
            if "/" not in name:
                yield f'{at}: "{name}" names no room: write "{folder}/{name}"'
            elif target in order and order[target] > order[room]:
                yield f'{at}: {room} may not include "{name}": {target} is above it in layers.txt'
            elif target not in order and (src / target).is_dir():
                yield f'{at}: room {target} of "{name}" is not in layers.txt'
        for what, pattern, allowed, forbidden in LIBRARY_RULES:
            # Quoted names are our own headers: "kernels/cuda/…" is no CUDA header.
            if quoted or not pattern.match(name):
                continue
            if allowed is not None and not inside(folder, allowed):
                yield f"{at}: {what} headers (<{name}>) belong under {' and '.join(allowed)} only"
            if inside(folder, forbidden):
                yield f"{at}: {what} headers (<{name}>) do not belong into {room}"


def check(root):
    src = root / "src"
    # `ref` holds textbook references for tests: it may see every room and no product file may see it.
    order = {room: i for i, room in enumerate(read_layers(src / "layers.txt"))}
    findings = []
    for path in sorted(src.rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        findings += check_file(path, src, order)
        relative = path.relative_to(src)
        room = relative.parts[0]
        if len(relative.parts) > 1 and room not in order and room != "ref":
            findings.append(f"src/{relative.as_posix()}: room {room} is not in layers.txt")
        if room != "ref" and not path.stem.endswith("_test"):
            for match in INCLUDE.finditer(path.read_text(errors="replace")):
                if match.group(2).startswith("ref/"):
                    findings.append(f'src/{relative.as_posix()}: only tests may include "{match.group(2)}"')
    return findings


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    findings = check(root)
    for finding in findings:
        print(finding)
    if not findings:
        print("layers: all includes point down")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
