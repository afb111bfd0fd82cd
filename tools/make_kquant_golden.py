#!/usr/bin/env python3
"""Writes a tiny GGUF model in the mixture of Q4_K_M and what transformers computes with its dequantised weights.

tests/data/kquants/model.gguf   llama: q4_k, but v, down and the embedding (tied head) q6_k, norms f32
tests/data/kquants/golden.safetensors   ids, starts, hidden, logits as tools/make_family_goldens.py has them

Blocks are random bytes with scales of weights' size: no encoder is needed, and every code and scale occurs. What they
mean is said by gguf.quants.dequantize.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from golden_file import save_golden
from make_family_goldens import ABOUT, convert, gguf_name, run

ROOT = Path(__file__).resolve().parent.parent / "tests" / "data" / "kquants"
TYPES = gguf.GGMLQuantizationType
CONFIG = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
          "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 64, "max_position_embeddings": 128,
          "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
LENGTHS = (9, 22)


def blocks(rng, kind, shape):
    """(rows, bytes) u8 of a matrix."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    # q4_k: w = d * scale * code - dmin * min, each scale and min of 6 bits. q6_k: w = d * scale * (code - 32).
    places = ((0, 1.6e-4), (2, 8e-5 * 15)) if kind == TYPES.Q4_K else ((208, 4e-5),)
    for at, typical in places:
        d = (typical * rng.uniform(0.5, 1.5, len(data))).astype("<f2")
        data[:, at : at + 2] = d.view(np.uint8).reshape(-1, 2)
    return data.reshape(shape[0], -1)


def inverse(config, key, value):
    """A folder's order of rows from GGUF's: what convert undoes."""
    place = convert(config, key, np.arange(value.shape[0], dtype=np.float32)[:, None])
    folder = np.empty_like(value)
    folder[place[:, 0].astype(int)] = value
    return folder


def main():
    rng = np.random.default_rng(7)
    config = transformers.LlamaConfig(**CONFIG)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    ROOT.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(ROOT / "model.gguf", "llama")
    writer.add_name("tiny random in the mixture of Q4_K_M")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    for key, p in model.named_parameters():
        name = gguf_name(config, key)
        if p.dim() == 1:
            value = (1 + 0.2 * rng.standard_normal(p.shape)).astype(np.float32)
            writer.add_tensor(name, value)
        else:
            kind = TYPES.Q6_K if any(part in key for part in ("v_proj", "down_proj", "embed")) else TYPES.Q4_K
            data = blocks(rng, kind, p.shape)
            writer.add_tensor(name, data, raw_dtype=kind)
            value = inverse(config, key, gguf.quants.dequantize(data, kind).astype(np.float32))
            print(f"{name} {kind.name} std {value.std():.3f} mean {value.mean():.3f}")
        p.data.copy_(torch.from_numpy(value))
    model.tie_weights()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sequences = [torch.from_numpy(rng.integers(0, config.vocab_size, n)) for n in LENGTHS]
    hidden, logits = run(model, sequences)
    starts = torch.tensor([0, LENGTHS[0], sum(LENGTHS)], dtype=torch.int32)
    save_golden({"ids": torch.cat(sequences).int(), "starts": starts, "hidden": hidden.contiguous(),
                 "logits": logits.contiguous()}, ROOT / "golden.safetensors",
                {**ABOUT, "made_by": "tools/make_kquant_golden.py"})
    print(f"logits std {logits.std():.2f}, model {(ROOT / 'model.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main()
