"""What `rung train --method lora` writes, read by peft: tools/check_peft.py on fixtures of every kind of linear layer.

Runs with the Python that RUNG_PYTHON names, else with this one; skipped (exit code 77) where that one has no peft,
torch and transformers."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("RUNG_PYTHON", sys.executable)
SKIPPED = 77
# Of tests/data/families: grouped queries; fused q, k, v and gate and up; layers stored transposed; interleaved q, k, v;
# learned positions; soft caps.
FAMILIES = ["llama3", "phi3", "gpt2", "gpt_neox", "opt", "gemma2"]


def main():
    needed = "import peft, torch, transformers"
    if subprocess.run([PYTHON, "-c", needed], capture_output=True).returncode != 0:
        print(f"skipped: {PYTHON} lacks one of peft, torch, transformers; RUNG_PYTHON names another")
        return SKIPPED
    rung = os.environ["RUNG_BINARY"]
    for family in FAMILIES:
        done = subprocess.run([PYTHON, "tools/check_peft.py", "--rung", rung, "--records", "3", "--model",
                               f"tests/data/families/{family}"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{family}:\n{done.stdout}{done.stderr}"
        print(f"{family}: {done.stdout.splitlines()[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
