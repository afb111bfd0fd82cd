#!/usr/bin/env python3
"""Writes ladders that begin as pruned blocks of the tiny models: what is selected, the rungs, a training step of them.

tests/data/prune/<name>.safetensors; all taps are projected and standardised, gate "sum"
  llama3_32, llama3_8, qwen2_32, qwen2_12   importance |w|; the number is the width S. At 8 and 12 the heads are
                                            narrower than the model's
  qwen2_fisher                              S 32, importance: Fisher information, see fisher()

  channels (S), rope_pairs (head_dim/2) I32     one set for the ladder
  <i>.{q_rows,k_rows,v_rows,o_cols,neurons} I32 of the i-th tap's layer, in the order of the rung's rows and columns
  fisher.<m> of qwen2_fisher                    of the first tap's layer, m of q, k, v, o, gate, up, down, as its weight
  the rest: as make_method_golden.py writes it. The parameters of the blocks and taps are those that training begins
  with; up.weight is not zero, so that every gradient is not

The shapes and the selection are written here from their description in src/model/prune.h, in f64. Metadata as of the
other golden steps, rope_pairs among it.
"""

import math
from unittest import mock

import ladder_reference
import numpy as np
import torch
import transformers
from golden_file import save_golden
from ladder_reference import DATA, Ladder, as_stored, climb, deviation, learned_losses, make_target, rise, step_tensors
from model_reference import Rows, check_family, embed, frequencies, load_golden, load_model, run_head, run_layer, run_model

# name: family, width, taps, rungs, importance
CASES = {
    "llama3_32": ("llama3", 32, [0, 2], 2, "magnitude"),
    "llama3_8": ("llama3", 8, [1, 2], 3, "magnitude"),
    "qwen2_32": ("qwen2", 32, [0, 2], 2, "magnitude"),
    "qwen2_12": ("qwen2", 12, [1], 2, "magnitude"),
    "qwen2_fisher": ("qwen2", 32, [1], 1, "fisher"),
}
PARTS = ("q", "k", "v", "o", "gate", "up", "down")


def matrix(model, layer, part):
    block = model.model.layers[layer]
    return getattr(block.self_attn if part in "qkvo" else block.mlp, f"{part}_proj").weight


def shape(config, S):
    """(heads, kv_heads, head_dim, F) of a rung."""
    nearest = lambda x: math.floor(x + 0.5)
    C, Hq, Hkv = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    D = getattr(config, "head_dim", None) or C // Hq
    d = min(D, S)
    share = S * D / (C * d)
    kv = min(max(1, nearest(Hkv * share)), Hkv)
    group = min(max(1, nearest(Hq * share / kv)), Hq // Hkv)
    inner = min(max(1, nearest(config.intermediate_size * S / C / 16)) * 16, config.intermediate_size)
    return kv * group, kv, d, inner


def largest(scores, count):
    """Indices, ascending; of equal scores the lower ones. Refuses a choice that rounding could turn."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if count < len(order):
        last, next_one = scores[order[count - 1]], scores[order[count]]
        assert last - next_one > 1e-6 * last, f"too near: {last} and {next_one}"
    return np.array(sorted(order[:count]))


def select(config, importance, S):
    """importance: for each source layer {part: f64 array}. As prune.h describes it."""
    heads, kv_heads, d, inner = shape(config, S)
    C, Hq, Hkv = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    D = importance[0]["q"].shape[0] // Hq
    R = largest(sum(sum(I[p].sum(0) for p in ("q", "k", "v", "gate", "up")) + I["o"].sum(1) + I["down"].sum(1)
                    for I in importance), S)
    per_row = [{**{p: I[p][:, R].sum(1) for p in ("q", "k", "v", "gate", "up")},
                **{p: I[p][R].sum(0) for p in ("o", "down")}} for I in importance]
    turned = sum(r["q"].reshape(Hq, 2, D // 2).sum((0, 1)) + r["k"].reshape(Hkv, 2, D // 2).sum((0, 1)) for r in per_row)
    pairs = largest(turned, d // 2)
    rows_of_pairs = np.concatenate([pairs, pairs + D // 2])
    layers = []
    for r in per_row:
        of_head = {p: r[p].reshape(-1, D) for p in ("q", "k", "v", "o")}
        query = of_head["q"].sum(1) + of_head["o"].sum(1)
        kept_kv = largest(of_head["k"].sum(1) + of_head["v"].sum(1) + query.reshape(Hkv, -1).sum(1), kv_heads)
        chosen = {part: [] for part in ("q_rows", "k_rows", "v_rows", "o_cols")}
        for h in kept_kv:
            group = Hq // Hkv
            queries = h * group + largest(query[h * group : (h + 1) * group], heads // kv_heads)
            dims = largest(of_head["v"][h] + of_head["o"][queries].sum(0), d)
            chosen["k_rows"].append(h * D + rows_of_pairs)
            chosen["v_rows"].append(h * D + dims)
            chosen["q_rows"] += [g * D + rows_of_pairs for g in queries]
            chosen["o_cols"] += [g * D + dims for g in queries]
        layer = {part: np.concatenate(rows) for part, rows in chosen.items()}
        layer["neurons"] = largest(r["gate"] + r["up"] + r["down"], inner)
        layers.append(layer)
    return R, pairs, layers


def fisher(family, golden, target, layers):
    """Squared gradients of the mean loss of each sequence, summed: for each layer {part: f64}."""
    model = load_model(family, torch.float64)
    weights = {(l, p): matrix(model, l, p).requires_grad_(True) for l in layers for p in PARTS}
    sums = {key: torch.zeros_like(w) for key, w in weights.items()}
    starts = golden["starts"].tolist()
    for begin, end in zip(starts, starts[1:]):
        ids, wanted = golden["ids"][begin:end], target[begin:end]
        _, logits = run_model(model, ids, Rows(model, torch.tensor([0, end - begin]), torch.float64))
        loss = learned_losses(logits, wanted).mean()
        for key, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values()))):
            sums[key] += gradient**2
    return [{p: sums[l, p].numpy() for p in PARTS} for l in layers]


def parameters(model, ladder, R, chosen, seed):
    """(trained, fixed): rung j from the layer of tap j mod taps; f64 tensors of values that f32 holds."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda *size: torch.randn(*size, generator=generator).double()
    C, S, trained, fixed = model.config.hidden_size, len(R), {}, {}
    for j in range(ladder.rungs):
        source = j % len(ladder.taps)
        layer, pick = ladder.taps[source], chosen[source]
        if j < len(ladder.taps):
            trained[f"rungs.{j}.tap.weight"] = torch.eye(C, dtype=torch.float64)[R]
            fixed[f"rungs.{j}.tap.mean"] = 0.3 * noise(C)
            fixed[f"rungs.{j}.tap.inv_deviation"] = 0.5 + noise(C).abs()
        block, name = model.model.layers[layer], f"rungs.{j}.block"
        trained[f"{name}.attn_norm.weight"] = block.input_layernorm.weight[R]
        trained[f"{name}.mlp_norm.weight"] = block.post_attention_layernorm.weight[R]
        for part, rows, cols in [("q", pick["q_rows"], R), ("k", pick["k_rows"], R), ("v", pick["v_rows"], R),
                                 ("o", R, pick["o_cols"]), ("gate", pick["neurons"], R), ("up", pick["neurons"], R),
                                 ("down", R, pick["neurons"])]:
            trained[f"{name}.{part}.weight"] = matrix(model, layer, part)[rows][:, cols]
    trained["up.weight"] = 0.1 * noise(C, S) / S**0.5
    return {k: v.detach().float() for k, v in trained.items()}, {k: v.float() for k, v in fixed.items()}


def turn(x, frequency):
    """ladder_reference.rotate with the frequencies themselves, one for each pair."""
    T, _, D = x.shape
    angle = torch.outer(torch.arange(T, dtype=torch.float64), frequency)
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def step(ladder, trained, fixed, pairs, family, golden, target, dtype):
    """(state, losses, gradients) of the mean loss."""
    model = load_model(family, dtype)
    p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
    with torch.no_grad():
        hidden, _ = run_model(model, golden["ids"], Rows(model, golden["starts"], dtype))
    with mock.patch.object(ladder_reference, "rotate", turn):
        state = climb(ladder, {**p, **{k: v.to(dtype) for k, v in fixed.items()}}, hidden, frequencies(model.config)[pairs],
                      golden["starts"].tolist())
    losses = learned_losses(run_head(model, rise(ladder, p, hidden[-1], state)), target)
    losses.mean().backward()
    return state.detach(), losses.detach(), {k: v.grad for k, v in p.items()}


def make_case(name, family, S, taps, rungs, importance, seed):
    golden, model = load_golden(family), load_model(family, torch.float64)
    target = make_target(golden["ids"], golden["starts"], seed)
    if importance == "fisher":
        measured = fisher(family, golden, target, taps)
    else:
        measured = [{p: matrix(model, layer, p).abs().numpy() for p in PARTS} for layer in taps]
    R, pairs, chosen = select(model.config, measured, S)
    heads, kv_heads, head_dim, inner = shape(model.config, S)
    ladder = Ladder(taps, rungs, S=S, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    trained, fixed = parameters(model, ladder, R, chosen, seed)
    state, losses, gradients = step(ladder, trained, fixed, pairs, family, golden, target, torch.float64)
    f32 = step(ladder, trained, fixed, pairs, family, golden, target, torch.float32)
    assert all(g.abs().max() > 1e-6 for g in gradients.values()), "a gradient is zero"
    apart = deviation(f32[2], gradients)
    assert apart < 1e-5, f"{name}: the f32 run is apart by {apart:.1e}"

    whole = lambda values: torch.tensor(np.asarray(values), dtype=torch.int32)
    out = {**step_tensors(golden, target, losses, gradients), **trained, **fixed, "state": state, "taps": whole(taps),
           "output_scale": torch.tensor([ladder.output_scale]), "channels": whole(R), "rope_pairs": whole(pairs),
           **{f"{i}.{part}": whole(indices) for i, layer in enumerate(chosen) for part, indices in layer.items()}}
    if importance == "fisher":
        out.update({f"fisher.{p}": torch.from_numpy(measured[0][p]) for p in PARTS})
    about = {"made_by": "tools/make_prune_golden.py", "torch": torch.__version__, "transformers": transformers.__version__,
             "family": family, "importance": importance, "gate": "sum", "block": "decoder", "tap_map": "project",
             "tap_norm": "standardize", "rungs": str(rungs), "width": str(S), "inner": str(inner), "heads": str(heads),
             "kv_heads": str(kv_heads), "head_dim": str(head_dim), "rejoin": "0",
             "rope_pairs": ",".join(map(str, pairs)), "f32_gradient_deviation": f"{apart:.1e}"}
    path = DATA / "prune" / f"{name}.safetensors"
    save_golden(as_stored(out), path, about)
    print(f"{path.relative_to(DATA.parent.parent)} {path.stat().st_size} bytes: {heads} heads on {kv_heads} of {head_dim}, "
          f"mlp {inner}, pairs {pairs.tolist()}, loss {losses.mean():.6f}, f32 run apart by {apart:.1e}")


def main():
    for family in ("llama3", "qwen2"):
        check_family(family)
    for seed, (name, case) in enumerate(CASES.items()):
        make_case(name, *case, 61 + seed)


if __name__ == "__main__":
    main()
