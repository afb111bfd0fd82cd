"""`rung config schema` as jsonschema reads it: it takes the files that `rung config show` takes, and refuses what that refuses
for a key, a type, a value or a range.

Runs with the Python that RUNG_PYTHON names, else with this one; skipped (exit code 77) where that one has no jsonschema or yaml.
RUNG_BINARY names the program."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import other_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What the model and the records are is looked at later.
TRAINED = "model: tests/data/models/tinystories-656k\ndata: examples/stories/train.jsonl\nout: runs/x\n"

GOOD = [
    "",
    TRAINED + "epochs: 2.5\nlearning_rate: 1e-3\nlr_scheduler: linear\nwarmup_steps: 0\nraw: true\n",
    TRAINED + "method: lora\nlora_r: 8\nlora_targets: [q_proj, v_proj]\nlayers: \"0,1\"\n",
    TRAINED + "taps: [0, 1]\nrejoin: 0\nmemory_limit: 8GiB\ntap_cache: taps\ntap_cache_limit: 1GiB\n",
    TRAINED + "taps: every:1\nwidth: 0.5\noptimizer: adamw8bit\nload_best: false\neval_data: examples/stories/valid.jsonl\n",
    "data: [examples/stories/train.jsonl, \"examples/stories/valid.jsonl:2\"]\nvalid_fraction: 0.1\neval_limit: 5\n",
    # Names of other programs.
    TRAINED + "num_train_epochs: 1\nlr_scheduler_type: cosine\ngradient_accumulation_steps: 4\noptim: adamw_torch\n"
              "packing: true\nfp16: false\ntask_type: CAUSAL_LM\nmax_steps: -1\nsave_only_model: false\n"
              "logging_first_step: true\neval_on_start: false\n",
    TRAINED + "adapter: qlora\nload_in_4bit: true\nr: 16\ntarget_modules: all-linear\ncompletion_only_loss: true\n",
]
BAD = [
    "tokns: 64\n", "tokens: many\n", "tokens: 1\n", "tokens: 2.5\n", "tokens: true\n", "raw: 1\n", "raw: maybe\n", "epochs: 0\n",
    "epochs: [1, 2]\n", "method: full\n", "optimizer: sgd\n", "learning_rate: -1\n", "warmup_ratio: 1.5\n",
    "taps: []\n", "model: [a, b]\n", "lora: {r: 8}\n", "seed: -1\n", "lora_dropout: 1\n", "save_limit: 0\n",
    "packing: false\n", "fp16: true\n", "load_in_4bit: false\n", "lr_scheduler_type: constant\n", "micro_batch_size: 4\n",
    "save_only_model: true\n", "logging_first_step: false\n", "eval_on_start: true\n", "greater_is_better: false\n", "- tokens\n",
    "dry_run: true\n", "config: other.yaml\n",
]
# The schema knows less: what is no size, or of two keys at once, is the program's to refuse.
BEYOND = ["memory_limit: large\n", "warmup_steps: 1\nwarmup_ratio: 0.5\n", "method: lora\ntaps: [1]\n"]

READ = r"""
import json, re, sys
import jsonschema, yaml
schema = json.loads(sys.stdin.readline())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
class Loader(yaml.SafeLoader):  # of YAML 1.2, where 1e-3 is a number and yes is a text
    yaml_implicit_resolvers = {}
for tag, pattern, first in (("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"), ("int", r"[-+]?[0-9]+", "-+0123456789"),
                            ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
                            ("null", r"~|null|Null|NULL|", "~nN\0")):
    resolver = re.compile(f"^(?:{pattern})$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:" + tag, resolver, list(first) if tag != "null" else ["~", "n", "N", ""])
for line in sys.stdin:
    value = yaml.load(json.loads(line), Loader)
    errors = list(validator.iter_errors({} if value is None else value))
    print(json.dumps([error.message for error in errors]))
"""


def files_of_documents():
    """What the documents show as a file: blocks of yaml, and those that a command writes."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]:
        text = page.read_text()
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S) + re.findall(r"<<'?YAML'?\n(.*?)^YAML$", text, re.M | re.S):
            found.append((f"{page.relative_to(ROOT)}", block))
    for page in sorted((ROOT / "examples").rglob("*.y*ml")):
        found.append((str(page.relative_to(ROOT)), page.read_text()))
    return found


def main():
    import json
    python = other_python.with_modules("jsonschema", "yaml")
    rung = os.environ["RUNG_BINARY"]
    schema = json.loads(subprocess.run([rung, "config", "schema"], capture_output=True, text=True, check=True).stdout)
    documents = files_of_documents()
    assert len(documents) >= 3, documents
    # Files of documents name models and records that are not here: their keys and values alone are looked at.
    cases = [(name, text, True, False) for name, text in documents] + [("good", text, True, True) for text in GOOD] + \
            [("bad", text, False, True) for text in BAD] + [("beyond", text, True, None) for text in BEYOND]
    lines = "\n".join(json.dumps(value) for value in [schema, *(text for _, text, _, _ in cases)])
    done = subprocess.run([python, "-c", READ], input=lines, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(verdicts) == len(cases)
    for (name, text, good, shown), errors in zip(cases, verdicts):
        assert (not errors) == good, f"{name}: {text}{errors}"
        if shown is False:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "run.yaml"
            file.write_text(text)
            said = subprocess.run([rung, "config", "show", "--config", file], capture_output=True, text=True, cwd=ROOT)
        taken = good if shown else False
        assert said.returncode == (0 if taken else 2), f"{name}: {text}{said.returncode}: {said.stderr}"
    print(f"{len(documents)} files of documents, {len(GOOD)} good ones, {len(BAD)} bad ones, {len(BEYOND)} beyond the schema")
    return 0


if __name__ == "__main__":
    sys.exit(main())
