#!/usr/bin/env python3
"""Checks what `rung quantize` made with the programs that will read it.

    tools/check_converted.py SOURCE RESULT [--tolerance T]

SOURCE is the Hugging Face folder that was converted, RESULT the .gguf file or folder that came of it.

- A .gguf file: every tensor is read by the gguf package and compared with the tensor of the source that it stands
  for, as llama.cpp's order of rows has it; where llama-cpp-python is installed and the file has a vocabulary, its
  logits are compared too; where transformers reads the architecture, those of from_pretrained(gguf_file=...).
- A folder: logits of transformers for both.

Prints one line a check and ends with 1 when one fails. Needs gguf, safetensors, torch and transformers.
"""

import argparse
import pathlib
import sys

import numpy as np

# Typical size of what rounding changes, relative to the largest weight of a block.
STEP = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 127, "Q5_0": 1 / 15, "Q5_1": 1 / 31, "Q4_0": 1 / 7,
        "Q4_1": 1 / 15, "MXFP4": 1 / 4}
IDS = [1, 80, 47, 101, 82, 57, 33, 12, 200, 5]
# What a reader may leave out of a config; then its logits say nothing of the file.
READ = ("rope_parameters", "sliding_window", "head_dim", "final_logit_softcapping", "attn_logit_softcapping",
        "query_pre_attn_scalar", "layer_types", "rms_norm_eps", "max_position_embeddings")
failed = []


def report(what, good, text):
    print(f"{'ok' if good else 'FAILED':<7} {what:<14} {text}")
    if not good:
        failed.append(what)


def relative(got, want):
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))


def load_source(folder):
    from safetensors import safe_open

    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name == "golden.safetensors":
            continue
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                tensors[name] = opened.get_tensor(name).float().numpy()
    return tensors


def check_tensors(source, result, config):
    """By shape and contents: the source tensor's numbers, rows perhaps elsewhere, are those of the result."""
    import gguf

    reader = gguf.GGUFReader(result)
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[reader.fields["general.architecture"].contents()],
        config.num_hidden_layers)
    tensors = {}
    for name, value in load_source(source).items():
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped:
            tensors.setdefault(mapped, value)
    found, apart = 0, 0.0
    for tensor in reader.tensors:
        got = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        want = tensors.get(tensor.name)
        if want is None and tensor.name == "token_embd.weight":
            want = tensors.get("output.weight")
        if want is None:
            report(tensor.name, tensor.name.startswith("rope_"), "no tensor of the source has this name")
            continue
        if want.shape != got.shape and want.T.shape == got.shape:
            want = want.T
        if "gemma" in config.model_type and tensor.name.endswith("norm.weight"):
            want = want + 1
        if want.shape != got.shape:
            report(tensor.name, False, f"{got.shape}, the source has {want.shape}")
            continue
        # Rows may stand in another order (RoPE's pairs, fused layers): as sets they are the same.
        step = STEP.get(tensor.tensor_type.name, 0.5)
        a, b = (x.reshape(len(x), -1) for x in (got, want))
        if not np.allclose(a, b, atol=step * np.abs(b).max() + 1e-6):
            key = lambda x: x[np.argsort(x @ np.linspace(1, 2, x.shape[1], dtype=np.float64), kind="stable")]
            a, b = key(a), key(b)
            if step > 0:  # rounding may turn the order of two rows that are nearly one
                a, b = np.sort(a.ravel()), np.sort(b.ravel())
        worst = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
        found, apart = found + 1, max(apart, worst)
        if worst > step + 1e-6:
            report(tensor.name, False, f"{worst:.3g} apart as {tensor.tensor_type.name}")
    report("tensors", found > 0, f"{found} dequantised by the gguf package, at most {apart:.3g} of the largest apart")


def logits_of(folder, dtype="float32", **options):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **options).eval()
    ids = torch.tensor([[i % model.config.vocab_size for i in IDS]])
    with torch.no_grad():
        return model(ids).logits[0].float().numpy(), model.config


def unread(got, want):
    """Parts of the config that a reader made otherwise; a GGUF file's numbers are f32."""
    def same(a, b):
        if isinstance(a, float) and isinstance(b, float):
            return abs(a - b) <= 1e-6 * abs(b)
        return a == b

    return [key for key in READ if not same(getattr(got, key, None), getattr(want, key, None))]


def check_llama_cpp(result, config, want, tolerance):
    try:
        import llama_cpp
    except ImportError:
        return print("skipped llama.cpp      llama-cpp-python is not installed")
    try:
        model = llama_cpp.Llama(str(result), n_ctx=64, logits_all=True, verbose=False, n_threads=2)
    except ValueError as error:
        return report("llama.cpp", False, str(error))
    model.eval([i % model.n_vocab() for i in IDS])
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if rope.get("rope_type") == "longrope" and len(IDS) <= original < model.n_ctx():
        return print("skipped llama.cpp      takes the factors of long texts for the whole of its context")
    # llama.cpp has no window in these architectures.
    window = getattr(config, "sliding_window", None) if config.model_type in ("mistral", "phi3") else None
    count = min(len(IDS), window or len(IDS))
    apart = relative(np.array(model.scores[:count]), want[:count])
    report("llama.cpp", apart <= tolerance, f"logits of {count} tokens {apart:.3g} of the largest apart")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=0.02, help="of logits, relative to the largest")
    arguments = parser.parse_args()
    want, config = logits_of(arguments.source)
    if arguments.result.suffix != ".gguf":
        apart = relative(logits_of(arguments.result)[0], want)
        report("transformers", apart <= arguments.tolerance, f"logits {apart:.3g} of the largest apart")
        return bool(failed)
    check_tensors(arguments.source, arguments.result, config)
    check_llama_cpp(arguments.result, config, want, arguments.tolerance)
    try:
        got, read = logits_of(arguments.result.parent, gguf_file=arguments.result.name)
    except (ValueError, KeyError, NotImplementedError, OSError, RuntimeError, AssertionError) as error:
        print(f"skipped transformers   reads no such file: {str(error)[:100]}")
        return bool(failed)
    if left_out := unread(read, config):
        print(f"skipped transformers   reads the file's config without: {', '.join(left_out)}")
    else:
        apart = relative(got, want)
        report("transformers", apart <= arguments.tolerance, f"logits {apart:.3g} of the largest apart")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
