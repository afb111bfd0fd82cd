#!/usr/bin/env python3
"""Compares an adapter folder that rung wrote with peft: loads it beside its model and compares logits.

  check_peft.py MODEL ADAPTER EXPECTED [--tolerance 1e-3]

MODEL is a Hugging Face folder, ADAPTER a folder with adapter_config.json, EXPECTED a JSON object of rung's making:
  {"ids": [1, 80, ...], "logits": [[...], ...]}   one sequence; a row of logits for every id
Prints the largest difference over the largest magnitude, with and without the adapter. Fails when the first is above
the tolerance, when the adapter changes nothing, or when peft warns.
"""

import argparse
import json
import sys
import warnings

import peft
import torch
import transformers


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def apart(got, want):
    return ((got - want).abs().max() / want.abs().max()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("expected")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    options = parser.parse_args()

    with open(options.expected) as file:
        expected = json.load(file)
    want = torch.tensor(expected["logits"])
    base = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    without = logits_of(base, expected["ids"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of peft about what it read
        wrapped = peft.PeftModel.from_pretrained(base, options.adapter).eval()
    got = logits_of(wrapped, expected["ids"])

    error, change = apart(got, want), apart(without, want)
    print(f"with the adapter apart by {error:.1e}, without it by {change:.1e}")
    if not error <= options.tolerance:
        sys.exit(f"more than {options.tolerance:.1e}")
    if change < 1e-2:
        sys.exit("the adapter changes too little to tell")


if __name__ == "__main__":
    main()
