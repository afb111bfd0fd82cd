"""transformers' own tiny models on packed sequences, in the type of their weights throughout.

As published, norms, softmax and rotations of these models run in f32 even when the weights are f64: those three are
replaced. What comes out is checked against golden.safetensors, where the unchanged model ran each sequence by itself.
"""

import math

import torch
import transformers
from ladder_reference import DATA
from safetensors.torch import load_file
from transformers.modeling_utils import AttentionInterface


def attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """The eager attention without a cast: (B, heads, T, D)."""
    key, value = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (key, value))
    weights = (query @ key.transpose(2, 3) * scaling + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


torch.set_num_threads(1)  # sums in one order: the bytes of a file do not depend on the machine's cores
transformers.utils.logging.disable_progress_bar()
AttentionInterface.register("uncast", attention)


def norm_forward(norm):
    return lambda x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight


def load_stock(family, dtype=torch.float32):
    """The model as transformers runs it, frozen."""
    model = transformers.AutoModelForCausalLM.from_pretrained(DATA / "families" / family, attn_implementation="eager",
                                                              dtype=torch.float32)
    return model.to(dtype).eval().requires_grad_(False)


def load_model(family, dtype):
    model = load_stock(family, dtype)
    model.config._attn_implementation = "uncast"
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm_forward(module)
    return model


def load_golden(family):
    return load_file(DATA / "families" / family / "golden.safetensors")


def frequencies(config):
    """Radians per position (D/2), f64."""
    rope = config.rope_parameters
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = rope["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if rope["rope_type"] == "default":
        return plain
    assert rope["rope_type"] == "llama3"
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * plain / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * plain / rope["factor"] + smooth * plain


def theta(model):
    return model.config.rope_parameters["rope_theta"]


class Rows:
    """Positions and mask of packed sequences, for one model."""

    def __init__(self, model, starts, dtype):
        starts = starts.tolist()
        sequence = torch.cat([torch.full((e - b,), i) for i, (b, e) in enumerate(zip(starts, starts[1:]))])
        self.position = torch.cat([torch.arange(e - b) for b, e in zip(starts, starts[1:])])[None]
        seen = (sequence[:, None] == sequence[None]) & torch.ones(starts[-1], starts[-1]).tril().bool()
        self.mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, float("-inf"))[None, None]
        exact = frequencies(model.config)
        torch.testing.assert_close(exact.float(), model.model.rotary_emb.inv_freq.float(), rtol=1e-6, atol=0)
        angle = self.position[..., None].double() * torch.cat([exact, exact])
        self.rope = angle.cos().to(dtype), angle.sin().to(dtype)


def run_layer(model, layer, x, rows):
    """The residual stream (N,C) after a layer."""
    out = model.model.layers[layer](x[None], attention_mask=rows.mask, position_ids=rows.position,
                                    position_embeddings=rows.rope)
    return (out[0] if isinstance(out, tuple) else out).reshape(x.shape)


def embed(model, ids):
    return model.model.embed_tokens(ids.long())


def run_head(model, x):
    return model.lm_head(model.model.norm(x))


def run_model(model, ids, rows):
    """(hidden (L,N,C), logits (N,V))."""
    hidden = [embed(model, ids)]
    for layer in range(model.config.num_hidden_layers):
        hidden.append(run_layer(model, layer, hidden[-1], rows))
    return torch.stack(hidden[1:]), run_head(model, hidden[-1])


def assert_near(got, want, what):
    """`want` is f32: equal to a few of its roundings, relative to the largest value."""
    apart = ((got.double() - want.double()).abs().max() / want.double().abs().max()).item()
    assert apart < 5e-6, f"{what}: apart by {apart:.1e}"


def check_family(family):
    """The packed f64 run against the unchanged model on the sequences one by one."""
    model, golden = load_model(family, torch.float64), load_golden(family)
    with torch.no_grad():
        hidden, logits = run_model(model, golden["ids"], Rows(model, golden["starts"], torch.float64))
    for layer, (got, want) in enumerate(zip(hidden, golden["hidden"], strict=True)):
        assert_near(got, want, f"{family}, layer {layer}")
    assert_near(logits, golden["logits"], f"{family}, logits")


def run_separately(model, ids, starts):
    """Logits (N,V) of an unchanged model, each sequence by itself."""
    starts = starts.tolist()
    with torch.no_grad():
        return torch.cat([model(ids[None, b:e].long()).logits[0] for b, e in zip(starts, starts[1:])])
