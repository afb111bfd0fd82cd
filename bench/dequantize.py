#!/usr/bin/env python3
"""A GGUF file of a llama model as a Hugging Face folder of bf16 weights, for programs that read no GGUF.

    bench/dequantize.py MODEL.gguf FOLDER [--tokenizer tests/data/text/smollm2/tokenizer.json]

FOLDER gets config.json, model.safetensors and, with a tokenizer.json given, the tokenizer. The weights are the GGUF's
rounded to bf16: the numbers that a peer computes with are the engine's, to that rounding.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

LAYER_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}
NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def hf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"


def weights(reader, heads, kv_heads):
    state = {}
    for t in reader.tensors:
        value = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        value = value.reshape([int(n) for n in reversed(t.shape)])
        if ".attn_q." in t.name or ".attn_k." in t.name:  # pairs (2i, 2i+1) of a head back to (i, i + D/2)
            h = heads if ".attn_q." in t.name else kv_heads
            value = value.reshape(h, value.shape[0] // h // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        state[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(value)).to(torch.bfloat16)
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of the same vocabulary, copied")
    arguments = parser.parse_args()

    reader = gguf.GGUFReader(arguments.gguf)
    field = lambda key, default=None: reader.fields[key].contents() if key in reader.fields else default
    if field("general.architecture") != "llama":
        raise SystemExit(f"{arguments.gguf}: architecture {field('general.architecture')}, only llama is written")
    get = lambda key: field(f"llama.{key}")
    heads, kv_heads = get("attention.head_count"), get("attention.head_count_kv")
    state = weights(reader, heads, kv_heads)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "vocab_size": state["model.embed_tokens.weight"].shape[0], "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"), "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": get("context_length"), "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base"), "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in state,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"), "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, arguments.folder / "model.safetensors", metadata={"format": "pt"})
    if arguments.tokenizer:
        shutil.copyfile(arguments.tokenizer, arguments.folder / "tokenizer.json")
        tokens = field("tokenizer.ggml.tokens")
        tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokens[config["eos_token_id"]],
                            "bos_token": tokens[config["bos_token_id"]],
                            "chat_template": field("tokenizer.chat_template")}
        text = json.dumps({k: v for k, v in tokenizer_config.items() if v is not None}, indent=2)
        (arguments.folder / "tokenizer_config.json").write_text(text + "\n")
    print(f"{arguments.folder}: {len(state)} tensors")


if __name__ == "__main__":
    main()
