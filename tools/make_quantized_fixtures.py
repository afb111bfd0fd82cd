#!/usr/bin/env python3
"""Makes tests/data/quantized/: one tiny Llama checkpoint for each way in which folders are quantised, with what
its matrices stand for and the logits of a float model that has them.

Needs torch, transformers, bitsandbytes, safetensors, numpy. bitsandbytes packs its own formats. GPTQ's and AWQ's
codes are packed here from the published definition of their layouts (docs/formats/int4.md), since their programs
need a GPU: the packing goes forwards from codes, the reader goes backwards, and expected matrices come from the
codes before they are packed.

The files are committed; run this only to change them:
tools/make_quantized_fixtures.py tests/data/quantized fuzz/corpus/quantized
"""

import json
import pathlib
import sys

import bitsandbytes.functional as bnb
import numpy as np
import torch
import transformers
from golden_file import save_golden

VOCABULARY = 32
GROUP = 16  # columns of a group
IDS = [3, 1, 4, 15, 9, 2, 6, 5]
AWQ_NIBBLE = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds column AWQ_NIBBLE[i] of its eight


class Shape:
    def __init__(self, hidden, inner, heads, kv_heads, shown):
        self.hidden, self.inner, self.heads, self.kv_heads = hidden, inner, heads, kv_heads
        self.shown = shown  # the layer whose expected weights are kept
        kv = hidden // heads * kv_heads
        self.linears = {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
        }


SMALL = Shape(32, 64, 2, 2, "mlp.down_proj")
# bitsandbytes on a CPU unpacks only rows that are whole blocks of 64.
WHOLE_BLOCKS = Shape(64, 64, 4, 1, "self_attn.k_proj")


def pack(codes, order):
    """uint codes (n, 8 m) -> int32 words (n, m): nibble i of a word is code order[i] of its eight."""
    eights = codes.astype(np.uint32).reshape(codes.shape[0], -1, 8)
    words = np.zeros(eights.shape[:2], np.uint32)
    for nibble, place in enumerate(order):
        words |= eights[:, :, place] << np.uint32(4 * nibble)
    return words.view(np.int32)


def random_int4(rng, rows, cols, symmetric):
    """Codes (rows, cols), and f16 scales and zero points (rows, groups)."""
    groups = cols // GROUP
    codes = rng.integers(0, 16, (rows, cols))
    scales = rng.uniform(0.01, 0.05, (rows, groups)).astype(np.float16)
    zeros = np.full((rows, groups), 8) if symmetric else rng.integers(0, 16, (rows, groups))
    return codes, scales, zeros


def dequantised(codes, scales, zeros, group_of):
    """In f32: one product of exact factors."""
    return scales.astype(np.float32)[:, group_of] * (codes - zeros[:, group_of]).astype(np.float32)


def gptq(act_order, symmetric, version):
    def make(rng, rows, cols):
        codes, scales, zeros = random_int4(rng, rows, cols, symmetric)
        group_of = np.arange(cols) // GROUP
        if act_order:
            group_of = rng.permutation(group_of)
        stored = zeros if version == 2 else (zeros - 1) % 16
        straight = range(8)
        tensors = {
            "qweight": torch.from_numpy(pack(codes, straight).T.copy()),  # eight columns of one row to a word
            "qzeros": torch.from_numpy(pack(stored.T.copy(), straight)),  # eight rows of one group to a word
            "scales": torch.from_numpy(scales.T.copy()),
            "g_idx": torch.from_numpy(group_of.astype(np.int32)),
        }
        return tensors, dequantised(codes, scales, zeros, group_of)

    config = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": act_order, "sym": symmetric,
              "damp_percent": 0.01, "static_groups": False, "true_sequential": True}
    if version == 2:
        config["checkpoint_format"] = "gptq_v2"
    return make, config


def awq():
    def make(rng, rows, cols):
        codes, scales, zeros = random_int4(rng, rows, cols, False)
        tensors = {
            "qweight": torch.from_numpy(pack(codes.T.copy(), AWQ_NIBBLE)),
            "qzeros": torch.from_numpy(pack(zeros.T.copy(), AWQ_NIBBLE)),
            "scales": torch.from_numpy(scales.T.copy()),
        }
        return tensors, dequantised(codes, scales, zeros, np.arange(cols) // GROUP)

    return make, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}


def four_bit(kind, double):
    def make(rng, rows, cols):
        weight = torch.from_numpy(rng.standard_normal((rows, cols)).astype(np.float32) * 0.1)
        codes, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind)
        tensors = {"weight": codes}
        for name, tensor in state.as_dict(packed=True).items():
            tensors[f"weight.{name}"] = tensor
        return tensors, bnb.dequantize_4bit(codes, state).numpy()

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
              "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double, "bnb_4bit_compute_dtype": "float32",
              "bnb_4bit_quant_storage": "uint8"}
    return make, config


def float8(scales_of, name, config):
    """scales_of(rows, cols): the tile of a scale."""
    def make(rng, rows, cols):
        weight = torch.from_numpy(rng.standard_normal((rows, cols)).astype(np.float32) * 60)
        codes = weight.to(torch.float8_e4m3fn)
        tile_rows, tile_cols = scales_of(rows, cols)
        shape = (-(-rows // tile_rows), -(-cols // tile_cols))
        scales = torch.from_numpy(rng.uniform(0.001, 0.002, shape).astype(np.float32))
        wide = scales.repeat_interleave(tile_rows, 0)[:rows].repeat_interleave(tile_cols, 1)[:, :cols]
        if name == "weight_scale" and shape == (1, 1):
            scales = scales.reshape(())
        return {"weight": codes, name: scales}, (codes.to(torch.float32) * wide).numpy()

    return make, config


def compressed(strategy):
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}


KINDS = {
    "gptq": gptq(True, False, 1),
    "gptq_sym": gptq(False, True, 1),
    "gptq_v2": gptq(False, False, 2),
    "awq": awq(),
    "nf4": four_bit("nf4", False),
    "nf4_double": four_bit("nf4", True),
    "fp4": four_bit("fp4", False),
    "fp4_double": four_bit("fp4", True),
    # 24 does not divide the extents: tiles at the edges are cut.
    "fp8_tiles": float8(lambda rows, cols: (24, 24), "weight_scale_inv",
                        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [24, 24],
                         "activation_scheme": "dynamic"}),
    "fp8_rows": float8(lambda rows, cols: (1, cols), "weight_scale", compressed("channel")),
    "fp8_tensor": float8(lambda rows, cols: (rows, cols), "weight_scale", compressed("tensor")),
}


def make_checkpoint(folder, corpus, make, quantization, seed):
    shape = WHOLE_BLOCKS if quantization["quant_method"] == "bitsandbytes" else SMALL
    rng = np.random.default_rng(seed)
    config = transformers.LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=1, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, vocab_size=VOCABULARY, max_position_embeddings=64, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config).to(torch.float32).eval()
    ends = {"model.embed_tokens.weight": (VOCABULARY, shape.hidden)}
    norms = ["model.norm.weight", "model.layers.0.input_layernorm.weight",
             "model.layers.0.post_attention_layernorm.weight"]
    tensors, state = {}, {}
    for name, extents in ends.items():
        tensors[name] = torch.from_numpy(rng.standard_normal(extents).astype(np.float32)).to(torch.bfloat16)
        state[name] = tensors[name].to(torch.float32)
    for name in norms:
        tensors[name] = torch.from_numpy(rng.uniform(0.5, 1.5, shape.hidden).astype(np.float32)).to(torch.bfloat16)
        state[name] = tensors[name].to(torch.float32)
    expected = {}
    for name, (rows, cols) in shape.linears.items():
        module = f"model.layers.0.{name}"
        parts, wanted = make(rng, rows, cols)
        tensors.update({f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        state[f"{module}.weight"] = torch.from_numpy(wanted)
        if name == shape.shown:
            expected[module] = torch.from_numpy(wanted.copy())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    with torch.no_grad():
        expected["logits"] = model(torch.tensor([IDS])).logits[0]
    shown = f"model.layers.0.{shape.shown}."
    seed_tensors = {name[len(shown) - 2:]: tensor for name, tensor in tensors.items() if name.startswith(shown)}
    expected["ids"] = torch.tensor(IDS, dtype=torch.int32)
    folder.mkdir(parents=True, exist_ok=True)
    save_golden(tensors, folder / "model.safetensors", {"format": "pt"})
    save_golden(expected, folder / "expected.safetensors", {})
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": 1, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": VOCABULARY, "max_position_embeddings": 64, "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "float16",
        "quantization_config": quantization,
    }
    (folder / "config.json").write_text(json.dumps(fields, indent=1) + "\n")
    # A seed for the fuzzer: the configuration, a zero byte, the one matrix.
    scratch = corpus / (folder.name + ".tmp")
    save_golden(seed_tensors, scratch, {})
    config_text = json.dumps({"quantization_config": quantization}).encode()
    (corpus / folder.name).write_bytes(config_text + b"\0" + scratch.read_bytes())
    scratch.unlink()


def main():
    out, corpus = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    for seed, (name, (make, quantization)) in enumerate(KINDS.items()):
        make_checkpoint(out / name, corpus, make, quantization, seed)
    print(sum(p.stat().st_size for p in out.rglob("*.*") if p.is_file()), "bytes")


if __name__ == "__main__":
    main()
