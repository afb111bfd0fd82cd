#!/usr/bin/env python3
"""Writes tests/data/smollm2/golden.json: what transformers computes with the dequantised weights of the SmolLM2 GGUF, in f32.

    make_smollm2_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

{"about": {...versions, sha256 of the file},
 "prompts": [{"text", "ids": [...],
              "positions": [{"position", "lse", "top": [[id, logit], ...20, largest first]}],
              "greedy": {"ids": up to 40, ending with the end token if it came, "margin": [logit of first - second]}}]}

`lse` is log(sum(exp(logits))). A greedy step of small margin may go the other way in another arithmetic.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
import transformers

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "smollm2" / "golden.json"
PROMPTS = [
    "The capital of France is",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhy is the sky blue? Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n",
    "A train leaves at 14:35 and arrives at 17:05. The journey is 240 km long, so its mean speed is 96 km/h.\n\n"
    "def mean_speed(distance_km, hours):\n    return distance_km / hours\n\nprint(mean_speed(240, 2.5))  # 96.0\n\n"
    "Once the train had left the station, the old man",
]
HF_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}


def field(reader, key):
    return reader.fields[key].contents()


def hf_name(name):
    if name.startswith("blk."):
        _, layer, part, kind = name.split(".")
        return f"model.layers.{layer}.{HF_NAMES[part]}.{kind}"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight"}[name]


def load_model(reader):
    get = lambda key: field(reader, f"llama.{key}")
    heads, kv_heads = get("attention.head_count"), get("attention.head_count_kv")
    state = {}
    for t in reader.tensors:
        value = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        value = value.reshape([int(n) for n in reversed(t.shape)])
        if ".attn_q." in t.name or ".attn_k." in t.name:  # pairs (2i, 2i+1) back to (i, i + D/2)
            h = heads if ".attn_q." in t.name else kv_heads
            value = value.reshape(h, value.shape[0] // h // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        state[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(value))
    config = transformers.LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=get("embedding_length"),
        intermediate_size=get("feed_forward_length"), num_hidden_layers=get("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=get("context_length"),
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in state)
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    model.tie_weights()
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model


def load_tokenizer(reader):
    tokens, merges = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.merges")
    vocabulary = {t: i for i, t in enumerate(tokens)}
    bpe = tokenizers.models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges])
    tokenizer = tokenizers.Tokenizer(bpe)
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, field(reader, "tokenizer.ggml.token_type")) if kind == 3]
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer


def prompt_golden(model, tokenizer, text, end):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
        positions = []
        for position in sorted({0, 1, len(ids) // 2, len(ids) - 2, len(ids) - 1}):
            top = logits[position].topk(20)
            positions.append({"position": position, "lse": round(logits[position].double().logsumexp(0).item(), 5),
                              "top": [[i, round(v, 5)] for i, v in zip(top.indices.tolist(), top.values.tolist())]})
        greedy, margin, cache = [], [], None
        while len(greedy) < 40 and (not greedy or greedy[-1] != end):
            out = model(torch.tensor([greedy[-1:] or ids]), past_key_values=cache, use_cache=True)
            cache, best = out.past_key_values, out.logits[0, -1].topk(2)
            greedy.append(best.indices[0].item())
            margin.append(round((best.values[0] - best.values[1]).item(), 4))
    print(repr(tokenizer.decode(greedy, skip_special_tokens=False)), f"smallest margin {min(margin)}")
    return {"text": text, "ids": ids, "positions": positions, "greedy": {"ids": greedy, "margin": margin}}


def main():
    path = Path(sys.argv[1])
    reader = gguf.GGUFReader(path)
    model, tokenizer = load_model(reader), load_tokenizer(reader)
    end = field(reader, "tokenizer.ggml.eos_token_id")
    about = {"made_by": "tools/make_smollm2_golden.py", "file": path.name,
             "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "torch": torch.__version__,
             "transformers": transformers.__version__, "gguf": version("gguf"), "tokenizers": tokenizers.__version__}
    golden = {"about": about, "prompts": [prompt_golden(model, tokenizer, text, end) for text in PROMPTS]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    # One prompt a line: small, and a difference shows where it is.
    lines = ",\n".join(json.dumps(p, separators=(",", ":")) for p in golden["prompts"])
    OUT.write_text(f'{{"about": {json.dumps(about)},\n"prompts": [\n{lines}\n]}}\n')
    print(f"{OUT.relative_to(OUT.parents[3])} {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
