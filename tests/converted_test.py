"""What `rung quantize` makes, read by the programs it is made for: tools/check_converted.py on converted fixtures.

Runs with the Python that RUNG_PYTHON names, else with this one; skipped (exit code 77) where that one has no gguf,
safetensors, torch and transformers."""

import os
import pathlib
import subprocess
import tempfile

import other_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
# (folder of tests/data/families, formats one after the other): a .gguf file, or a folder, of the last one's.
CASES = [("llama3", ["f16.gguf"]), ("gemma2", ["q8_0.gguf"]), ("gpt2", ["mxfp4.gguf"]),
         ("mistral_window", ["f32.gguf", "f32"])]
TOLERANCES = {"f32": 1e-4, "f16": 5e-3, "q8_0": 0.1, "mxfp4": 1.0}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def main():
    python = other_python.with_modules("gguf", "safetensors", "torch", "transformers")
    rung = os.environ["RUNG_BINARY"]
    for family, steps in CASES:
        source = ROOT / "tests" / "data" / "families" / family
        with tempfile.TemporaryDirectory() as folder:
            made = source
            for step in steps:
                out = pathlib.Path(folder) / step
                run(rung, "quantize", "--model", made, "--out", out, "--format", step.split(".")[0],
                    "--quantize-embeddings", "--progress", "none")
                made = out
            said = run(python, "tools/check_converted.py", source, made, "--tolerance", TOLERANCES[step.split(".")[0]])
            print(f"{family} {' '.join(steps)}\n{said}")
            # At least one reader took the numbers.
            assert "\nok" in "\n" + said, said


if __name__ == "__main__":
    main()
