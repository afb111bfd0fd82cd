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
SHORT = (9, 22)  # of the families that came later: windows and original contexts are made for it
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


def later(model_class, model_type, hidden=32, inner=48, layers=2, heads=4, kv_heads=2, vocab=96, **more):
    return {"architectures": [model_class], "model_type": model_type, "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "vocab_size": vocab, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 0, "torch_dtype": "bfloat16", **more}


def gemma(model_class, model_type, **more):
    # 64 wide: its root is the same number in every type.
    more = {"hidden": 64, "inner": 32, "heads": 2, "kv_heads": 1, **more}
    return later(model_class, model_type, head_dim=16, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh", **more)


GEMMA3 = {"sliding_window": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
          "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "attn_logit_softcapping": None,
          "final_logit_softcapping": None}
LATER = {
    "mistral_window": later("MistralForCausalLM", "mistral", head_dim=8, sliding_window=7, rms_norm_eps=1e-5,
                            rope_theta=10000.0, tie_word_embeddings=False, hidden_act="silu"),
    # All three zones of the ramp: pairs kept, between, and stretched.
    "qwen2_yarn": later("Qwen2ForCausalLM", "qwen2", hidden=48, heads=3, kv_heads=1, rms_norm_eps=1e-6,
                        rope_theta=10000.0, sliding_window=None, use_sliding_window=False, tie_word_embeddings=True,
                        rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "qwen3_yarn": later("Qwen3ForCausalLM", "qwen3", head_dim=16, rms_norm_eps=1e-6, sliding_window=5,
                        use_sliding_window=True, max_window_layers=1, tie_word_embeddings=False,
                        rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 2.0, "beta_fast": 4.0,
                                         "beta_slow": 1.0, "attention_factor": 1.25, "truncate": False,
                                         "original_max_position_embeddings": 64}),
    "smollm3": later("SmolLM3ForCausalLM", "smollm3", layers=4, rms_norm_eps=1e-6, rope_theta=2000000.0,
                     no_rope_layers=[1, 1, 1, 0], tie_word_embeddings=True, hidden_act="silu"),
    "granite": later("GraniteForCausalLM", "granite", rms_norm_eps=1e-5, rope_theta=10000.0, embedding_multiplier=12.0,
                     attention_multiplier=0.25, residual_multiplier=0.22, logits_scaling=8.0, tie_word_embeddings=True,
                     hidden_act="silu"),
    "olmo2": later("Olmo2ForCausalLM", "olmo2", rms_norm_eps=1e-6, rope_theta=500000.0, tie_word_embeddings=False,
                   hidden_act="silu"),
    "phi3": later("Phi3ForCausalLM", "phi3", rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=8,
                  tie_word_embeddings=False, hidden_act="silu", max_position_embeddings=512,
                  original_max_position_embeddings=128,
                  rope_scaling={"type": "longrope", "short_factor": [1.0, 1.1, 1.25, 1.5],
                                "long_factor": [1.5, 3.0, 8.0, 20.0]}),
    "phi3_long": later("Phi3ForCausalLM", "phi3", heads=2, kv_heads=1, rms_norm_eps=1e-5, rope_theta=10000.0,
                       sliding_window=None, tie_word_embeddings=True, hidden_act="silu", partial_rotary_factor=0.75,
                       original_max_position_embeddings=8,
                       rope_scaling={"type": "longrope", "short_factor": [1.0] * 6,
                                     "long_factor": [1.0, 1.3, 1.7, 2.5, 4.0, 6.5]}),
    "gemma": gemma("GemmaForCausalLM", "gemma", hidden_act="gelu", rope_theta=10000.0),
    "gemma2": gemma("Gemma2ForCausalLM", "gemma2", layers=3, sliding_window=6, query_pre_attn_scalar=16,
                    attn_logit_softcapping=5.0, final_logit_softcapping=4.0, rope_theta=10000.0),
    "gemma3": gemma("Gemma3ForCausalLM", "gemma3_text", layers=6, query_pre_attn_scalar=16, **GEMMA3),
    "gemma3_images": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "mm_tokens_per_image": 4,
        "image_token_index": 95, "boi_token_index": 94, "eoi_token_index": 93, "torch_dtype": "bfloat16",
        "text_config": gemma("Gemma3ForCausalLM", "gemma3_text", layers=3, sliding_window_pattern=3,
                             query_pre_attn_scalar=24, **GEMMA3),
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "image_size": 8,
                          "patch_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "vision_use_head": False}},
    "opt": {"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32,
            "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
            "max_position_embeddings": 128, "activation_function": "relu", "do_layer_norm_before": True,
            "_remove_final_layer_norm": False, "dropout": 0.1, "attention_dropout": 0.0, "layerdrop": 0.0,
            "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "torch_dtype": "float16"},
    "opt_350m": {"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 16,
                 "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 96,
                 "max_position_embeddings": 128, "activation_function": "relu", "do_layer_norm_before": False,
                 "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "torch_dtype": "float16"},
    "gpt2": {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2,
             "n_positions": 128, "n_ctx": 128, "vocab_size": 96, "activation_function": "gelu_new",
             "layer_norm_epsilon": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"},
    "gpt_neox": {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_size": 32,
                 "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 96,
                 "max_position_embeddings": 128, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.25,
                 "rotary_emb_base": 10000, "use_parallel_residual": True, "tie_word_embeddings": False,
                 "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float16"},
    "gpt_neox_serial": {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_size": 32,
                        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 96,
                        "max_position_embeddings": 128, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 1.0,
                        "rotary_emb_base": 10000, "use_parallel_residual": False, "tie_word_embeddings": False,
                        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float16"},
}
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
FAMILIES.update({name: (config, TYPES[config["torch_dtype"]]) for name, config in LATER.items()})
GGUF += ("qwen2_yarn", "smollm3", "granite", "olmo2", "phi3", "phi3_long", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox")


def is_norm(name):
    return "norm" in name or ".ln_" in name


def fan_in(name, p):
    conv1d = any(part in name for part in ("c_attn", "c_proj", "c_fc"))
    return p.shape[0] if conv1d else p[0].numel()


def randomise(model, stored, seed):
    """Matrices of unit gain, norms and biases of their own; rounded to what the file can hold."""
    generator = torch.Generator().manual_seed(seed)
    less_one = model.config.model_type.startswith("gemma")
    tied = model.config.tie_word_embeddings
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if is_norm(name):
            value = (0 if less_one or name.endswith(".bias") else 1) + 0.2 * noise
        elif p.dim() == 1:
            value = 0.5 * noise
        elif "embed_positions" in name or "wpe" in name:
            value = 0.5 * noise
        elif "embed" in name or "wte" in name:
            # As a tied head it would saturate the softmax at unit size.
            value = noise * (0.25 if tied else 1.0)
        else:
            value = noise / fan_in(name, p) ** 0.5
        p.data.copy_(value.to(stored).float())


def layers_of(model):
    for path in ("model.layers", "model.language_model.layers", "model.decoder.layers", "transformer.h", "gpt_neox.layers"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise AssertionError("no layers")


def run(model, sequences):
    """(hidden (L,N,C), logits (N,V)) of the packed sequences. Hooks: transformers' own last hidden state is normed."""
    hidden, logits = [], []
    for ids in sequences:
        layers = []
        hooks = [layer.register_forward_hook(lambda _, __, out: layers.append(out[0] if isinstance(out, tuple) else out))
                 for layer in layers_of(model)]
        with torch.no_grad():
            logits.append(model(input_ids=ids[None]).logits[0])
        for hook in hooks:
            hook.remove()
        hidden.append(torch.stack([h.reshape(len(ids), -1) for h in layers]))
    return torch.cat(hidden, dim=1), torch.cat(logits)


def load(folder_or_config):
    auto = transformers.AutoModelForCausalLM
    if isinstance(folder_or_config, Path):
        if json.loads((folder_or_config / "config.json").read_text())["model_type"] == "gemma3":
            auto = transformers.Gemma3ForConditionalGeneration
        return auto.from_pretrained(folder_or_config, attn_implementation="eager", dtype=torch.float32).eval()
    if folder_or_config.model_type == "gemma3":
        auto = transformers.AutoModelForImageTextToText
    return auto.from_config(folder_or_config, attn_implementation="eager", dtype=torch.float32).eval()


def file_name(name, key):
    """Of a tensor of the module `key`, as files on Hugging Face have it."""
    if name == "gpt2":
        return key.removeprefix("transformer.")
    if name.startswith("gpt_neox"):
        return key.replace("lm_head.", "embed_out.")
    if name == "gemma3_images":
        return key.replace("model.language_model.", "language_model.model.").replace("model.vision", "vision").replace(
            "model.multi", "multi")
    return key


def make_family(name, seed):
    config_json, stored = FAMILIES[name]
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json, indent=2) + "\n")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = load(config)
    randomise(model, stored, seed)
    model.tie_weights()
    text = config.get_text_config()
    state = {k: v.to(stored).contiguous() for k, v in model.state_dict().items()
             if not (text.tie_word_embeddings and k == "lm_head.weight")}
    save_file({file_name(name, k): v for k, v in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})

    # What was written, not what is in memory.
    model = load(folder)
    for key, value in state.items():
        assert torch.equal(model.state_dict()[key], value.float()), key
    rng = np.random.default_rng(seed)
    lengths = SHORT if name in LATER else LENGTHS
    sequences = [torch.from_numpy(rng.integers(0, text.vocab_size - (3 if name == "gemma3_images" else 0), n))
                 for n in lengths]
    hidden, logits = run(model, sequences)
    golden = {"ids": torch.cat(sequences).int(), "starts": torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32),
              "hidden": hidden.contiguous(), "logits": logits.contiguous()}
    save_golden(golden, folder / "golden.safetensors", ABOUT)
    print(f"{name}: model {(folder / 'model.safetensors').stat().st_size} bytes, golden "
          f"{(folder / 'golden.safetensors').stat().st_size} bytes, logits std {logits.std():.2f}, "
          f"hidden rms {hidden.pow(2).mean().sqrt():.2f}")
    if name in GGUF:
        write_gguf(name, text, {k: v.float().numpy() for k, v in state.items()}, stored)


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


# model_type: llama.cpp's architecture, where it is another word.
ARCHITECTURES = {"gpt_neox": "gptneox", "gemma3_text": "gemma3"}
PAIRED = ("llama", "smollm3", "granite")


def convert(config, key, value):
    """What llama.cpp's converter does to a tensor."""
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if config.model_type in PAIRED and ("q_proj" in key or "k_proj" in key):
        return interleave(value, heads if "q_proj" in key else kv_heads)
    if config.model_type.startswith("gemma") and key.endswith("norm.weight"):
        return value + 1
    if config.model_type == "gpt2" and value.ndim == 2 and any(p in key for p in ("c_attn", "c_proj", "c_fc")):
        return value.T
    if config.model_type == "gpt_neox" and "query_key_value" in key:
        by_head = value.reshape(heads, 3, value.shape[0] // heads // 3, *value.shape[1:])
        return by_head.swapaxes(0, 1).reshape(value.shape)
    return value


def gguf_name(config, key):
    """By the gguf package's own table."""
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    if config.model_type == "gpt_neox":
        key = key.replace("lm_head.", "embed_out.")
    found = table.get_name(key, try_suffixes=(".weight", ".bias"))
    assert found, key
    return found


def write_rope(writer, config, head_dim):
    rope = config.rope_parameters
    full = rope.get("full_attention", rope)
    if config.model_type in (*PAIRED, "phi3", "gpt_neox"):
        writer.add_rope_dimension_count(int(head_dim * full.get("partial_rotary_factor", 1.0)))
    if full["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    elif full["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(full["factor"])
        writer.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
    elif full["rope_type"] == "longrope":
        original = config.original_max_position_embeddings
        stretch = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(
            1.0 if stretch <= 1 else float(np.sqrt(1 + np.log(stretch) / np.log(original))))
        writer.add_tensor("rope_factors_long.weight", np.array(full["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(full["short_factor"], dtype=np.float32))
    elif full["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))


def write_metadata(writer, name, config):
    arch = config.model_type
    writer.add_name(f"tiny random {name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size if arch == "gpt2" else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if arch not in ("gpt2", "gpt_neox"):
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_epsilon if arch == "gpt2" else config.layer_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None)
    if rope:
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if arch == "qwen3" or arch.startswith("gemma"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope:
        write_rope(writer, config, head_dim)
    if arch in ("gemma2", "gemma3_text", "phi3"):
        writer.add_sliding_window(config.sliding_window or 0)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "gpt_neox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if arch == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def write_gguf(name, config, state, stored):
    path = ROOT / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, ARCHITECTURES.get(config.model_type, config.model_type))
    write_metadata(writer, name, config)
    bf16 = gguf.GGMLQuantizationType.BF16
    for key, value in state.items():
        value = np.ascontiguousarray(convert(config, key, value))
        if value.ndim > 1 and stored == torch.bfloat16:  # vectors stay f32 there
            writer.add_tensor(gguf_name(config, key), gguf.quants.quantize(value, bf16), raw_dtype=bf16)
        elif value.ndim > 1 and stored == torch.float16 and name in LATER:
            writer.add_tensor(gguf_name(config, key), value.astype(np.float16))
        else:
            writer.add_tensor(gguf_name(config, key), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_gguf(path, config, state)
    print(f"  {path.name} {path.stat().st_size} bytes")


def check_gguf(path, config, state):
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for key, value in state.items():
        t = tensors.pop(gguf_name(config, key))
        got = gguf.quants.dequantize(t.data, t.tensor_type)
        if config.model_type in PAIRED and ("q_proj" in key or "k_proj" in key):
            got = got.reshape(value.shape)
            assert not np.array_equal(got, value)
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            got = got.reshape(heads, got.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        else:
            value = convert(config, key, value)
            got = got.reshape(value.shape)
        assert np.array_equal(got, value), key
    assert set(tensors) <= {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
    if "rope_freqs.weight" in tensors:
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
