"""What `rung train --method lora` writes, read by peft: tools/check_peft.py on fixtures of every kind of linear layer.

  peft_test.py [all]

Runs with the Python that RUNG_PYTHON names, else with this one; skipped (exit code 77) where that one has no peft,
torch and transformers. `all`: every folder of tests/data/families."""

import os
import pathlib
import subprocess
import sys

import other_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "data" / "families"
# Grouped queries; fused q, k, v and gate and up; layers stored transposed; interleaved q, k, v; learned positions; soft
# caps.
FAMILIES = ["llama3", "phi3", "gpt2", "gpt_neox", "opt", "gemma2"]
IMAGES = "gemma3_images"  # transformers' class of it is another


def main():
    python = other_python.with_modules("peft", "torch", "transformers")
    rung = os.environ["RUNG_BINARY"]
    every = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir() and path.name != IMAGES)
    for family in every if sys.argv[1:] == ["all"] else FAMILIES:
        done = subprocess.run([python, "tools/check_peft.py", "--rung", rung, "--records", "3", "--tolerance", "1e-5", "--model",
                               FIXTURES / family], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{family}:\n{done.stdout}{done.stderr}"
        print(f"{family}: {done.stdout.splitlines()[-1]}")


if __name__ == "__main__":
    main()
