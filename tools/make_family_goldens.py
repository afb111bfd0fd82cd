#!/usr/bin/env python3
"""Writes a tiny random model of each family and what transformers computes with it in f32.

tests/data/families/<name>/config.json, model.safetensors   as on Hugging Face
tests/data/families/<name>/golden.safetensors
  ids     (N)      I32   two sequences, packed
  starts  (3)      I32   where they start, and N: attention and positions begin anew at each
  hidden  (L,N,C)  F32   the residual stream after each layer; the last one is before the final norm
  logits  (N,V)    F32
tests/data/families/<name>.gguf   some of them as llama.cpp's converter would write them (no tokenizer)

Weights are random but not small, so that every part of a layer moves the logits; they are exact in the
type that the file stores. Metadata of golden.safetensors names the versions.
"""

import json
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from golden_file import save_golden
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent / "tests" / "data" / "families"
LENGTHS = (13, 40)
ABOUT = {"made_by": "tools/make_family_goldens.py", "transformers": transformers.__version__,
         "torch": torch.__version__, "gguf": version("gguf")}

COMMON = {"hidden_act": "silu", "initializer_range": 0.02, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2}


def llama(**more):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
            **COMMON, **more}


# (config.json, stored type). Keys as published checkpoints of the family have them.
FAMILIES = {
    "llama2": (llama(hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=4, vocab_size=160, max_position_embeddings=4096, rms_norm_eps=1e-5,
                     rope_scaling=None, tie_word_embeddings=False, torch_dtype="bfloat16"), torch.bfloat16),
    # original_max_position_embeddings is small so that 40 positions see all three zones of the frequency scaling.
    "llama3": (llama(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16, vocab_size=160, max_position_embeddings=512,
                     rms_norm_eps=1e-5, rope_theta=500000.0,
                     rope_scaling={"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                   "original_max_position_embeddings": 64, "rope_type": "llama3"},
                     tie_word_embeddings=True, torch_dtype="bfloat16"), torch.bfloat16),
    # The spelling of transformers 5: rope_parameters and dtype.
    "mistral": ({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 64,
                 "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1,
                 "head_dim": 16, "vocab_size": 160, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
                 "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "sliding_window": None,
                 "attention_dropout": 0.0, "tie_word_embeddings": False, "dtype": "float16", **COMMON}, torch.float16),
    "qwen2": ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
               "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
               "vocab_size": 192, "max_position_embeddings": 32768, "max_window_layers": 3, "rms_norm_eps": 1e-6,
               "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": False, "attention_dropout": 0.0,
               "tie_word_embeddings": True, "torch_dtype": "bfloat16", **COMMON}, torch.bfloat16),
    "qwen3": ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
               "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
               "head_dim": 32, "vocab_size": 160, "max_position_embeddings": 40960, "max_window_layers": 2,
               "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None, "sliding_window": None,
               "use_sliding_window": False, "attention_bias": False, "attention_dropout": 0.0,
               "tie_word_embeddings": True, "torch_dtype": "bfloat16", **COMMON}, torch.bfloat16),
    # Three key-value heads and widths that no block of 32 or 64 divides.
    "smollm2": (llama(hidden_size=48, intermediate_size=112, num_hidden_layers=2, num_attention_heads=6,
                      num_key_value_heads=3, vocab_size=160, max_position_embeddings=8192, rms_norm_eps=1e-5,
                      rope_theta=100000, rope_scaling=None, rope_interleaved=False, tie_word_embeddings=True,
                      torch_dtype="float32"), torch.float32),
}
GGUF = ("llama3", "qwen2", "qwen3", "smollm2")


def randomise(model, stored, seed):
    """Matrices of unit gain, norms and biases of their own; rounded to what the file can hold."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.2 * noise
        elif p.dim() == 1:
            value = 0.5 * noise
        elif "embed" in name:
            # As a tied head it would saturate the softmax at unit size.
            value = noise * (0.25 if model.config.tie_word_embeddings else 1.0)
        else:
            value = noise / p.shape[1] ** 0.5
        p.data.copy_(value.to(stored).float())


def run(model, sequences):
    """(hidden (L,N,C), logits (N,V)) of the packed sequences. Hooks: transformers' own last hidden state is normed."""
    hidden, logits = [], []
    for ids in sequences:
        layers = []
        hooks = [layer.register_forward_hook(lambda _, __, out: layers.append(out[0] if isinstance(out, tuple) else out))
                 for layer in model.model.layers]
        with torch.no_grad():
            logits.append(model(ids[None]).logits[0])
        for hook in hooks:
            hook.remove()
        hidden.append(torch.stack([h.reshape(len(ids), -1) for h in layers]))
    return torch.cat(hidden, dim=1), torch.cat(logits)


def make_family(name, seed):
    config_json, stored = FAMILIES[name]
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json, indent=2) + "\n")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomise(model, stored, seed)
    model.tie_weights()
    state = {k: v.to(stored).contiguous() for k, v in model.state_dict().items()
             if not (config.tie_word_embeddings and k == "lm_head.weight")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    # What was written, not what is in memory.
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    for key, value in state.items():
        assert torch.equal(model.state_dict()[key], value.float()), key
    rng = np.random.default_rng(seed)
    sequences = [torch.from_numpy(rng.integers(0, config.vocab_size, n)) for n in LENGTHS]
    hidden, logits = run(model, sequences)
    golden = {"ids": torch.cat(sequences).int(), "starts": torch.tensor([0, LENGTHS[0], sum(LENGTHS)], dtype=torch.int32),
              "hidden": hidden.contiguous(), "logits": logits.contiguous()}
    save_golden(golden, folder / "golden.safetensors", ABOUT)
    print(f"{name}: model {(folder / 'model.safetensors').stat().st_size} bytes, golden "
          f"{(folder / 'golden.safetensors').stat().st_size} bytes, logits std {logits.std():.2f}, "
          f"hidden rms {hidden.pow(2).mean().sqrt():.2f}")
    if name in GGUF:
        write_gguf(name, config, {k: v.float().numpy() for k, v in state.items()}, stored)


def interleave(w, heads):
    """Rows of a q or k matrix in the order of llama.cpp's `llama` rotation: pairs (2i, 2i+1) instead of (i, i + D/2)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(config):
    """rope_freqs.weight: what each frequency is divided by."""
    scaling = config.rope_parameters
    wavelength = 2 * np.pi * scaling["rope_theta"] ** (np.arange(0, config.head_dim, 2) / config.head_dim)
    original, low, high = (scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    if name.startswith("model.layers."):
        layer, rest = name[len("model.layers."):].split(".", 1)
        part, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight"}[name]


def write_gguf(name, config, state, stored):
    arch = config.model_type
    path = ROOT / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny random {name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if arch == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if arch == "llama":
        writer.add_rope_dimension_count(head_dim)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    bf16 = gguf.GGMLQuantizationType.BF16
    for key, value in state.items():
        if arch == "llama" and ("q_proj" in key or "k_proj" in key):
            value = interleave(value, config.num_attention_heads if "q_proj" in key else config.num_key_value_heads)
        if value.ndim > 1 and stored == torch.bfloat16:  # vectors stay f32 there
            writer.add_tensor(gguf_name(key), gguf.quants.quantize(np.ascontiguousarray(value), bf16), raw_dtype=bf16)
        else:
            writer.add_tensor(gguf_name(key), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_gguf(path, config, state)
    print(f"  {path.name} {path.stat().st_size} bytes")


def check_gguf(path, config, state):
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for key, value in state.items():
        t = tensors.pop(gguf_name(key))
        got = gguf.quants.dequantize(t.data, t.tensor_type).reshape(value.shape)
        if config.model_type == "llama" and ("q_proj" in key or "k_proj" in key):
            assert not np.array_equal(got, value)
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            got = got.reshape(heads, got.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        assert np.array_equal(got, value), key
    assert set(tensors) <= {"rope_freqs.weight"}
    if tensors:
        # The factors must give the frequencies that transformers uses.
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        dim = config.head_dim
        plain = 1.0 / config.rope_parameters["rope_theta"] ** (np.arange(0, dim, 2) / dim)
        np.testing.assert_allclose(plain / tensors["rope_freqs.weight"].data, rotary.inv_freq.numpy(), rtol=1e-6)


def main():
    for seed, name in enumerate(FAMILIES):
        make_family(name, 100 + seed)


if __name__ == "__main__":
    main()
