#!/usr/bin/env python3
"""Writes a training step of every ladder variant beside the tiny models: parameters, losses, gradients.

tests/data/method/<name>.safetensors; S 32, beside llama3, rungs and taps as in CASES below
  ladder_vector         gate "vector": a value for each column of the state
  ladder_plain          plain blocks, one tap projection with bias for all taps, taps not normalised
  xladder               the top two layers tapped, two free rungs above them
  ladder_grouped        rungs with two key-value heads for four query heads
  ladder_pooled         taps pooled to S columns, then projected (S,S)
  ladder_pooled_uneven  the same at S 24: the windows overlap
  rejoin_<family>       the state joins after layer 0, the frozen layers above run on the sum

  ids (N) I32, starts (3) I32, target (N) I32   packed; target is the next token, -1 where none is learned
  taps (taps) I32, rejoin (1) I32, output_scale (1) F32
  <parameter>            as below, and rungs.<j>.tap.mean, rungs.<j>.tap.inv_deviation (C) except of ladder_plain
  state (N,S)            of the last rung, before the up-projection
  loss.sum (1), loss.mean (1), loss.tokens (1) I32
  logits (tokens,V)      of the learned rows, rejoin only
  grad.<parameter>       of loss.mean
  grad_norm (1)          of all gradients together

  decoder  rungs.<j>.tap.weight (S,C), pooled (S,S); rungs.<j>.gate.alpha (S) for tapped j > 0, gate "vector" only
           rungs.<j>.block.{attn_norm,mlp_norm}.weight (S), .q.weight (heads*head_dim,S), .{k,v}.weight
           (kv_heads*head_dim,S), .o.weight (S,heads*head_dim), .{gate,up}.weight (F,S), .down.weight (S,F); up.weight (C,S)
  plain    tap.weight (S,C), tap.bias (S), rungs.<j>.block.{q,k,v}.weight (S,S), .up.weight (4S,S), .down.weight (S,4S), each
           with its .bias; up.weight (C,S), up.bias (C)

    z = H_{L-rejoin} + output_scale * (U s_last [+ b]);  logits = head(final_norm(the top `rejoin` layers of z))

H_i is the output of layer i - 1. The equations of the ladder: ladder_reference.py. The gradient of a plain block's
k.bias is zero by the equations (it moves all scores of a query alike) and is stored as zero. Computed in f64, stored as
f32. Metadata: what configures the case, how far an f32 run of the same code is from it (largest difference over the
largest gradient), and for ladder_plain zero_gradients, their names, and nearest_kink, the smallest |input| of a ReLU.
"""

import math
from unittest import mock

import torch
import transformers
from golden_file import save_golden
from ladder_reference import (DATA, Ladder, as_stored, climb, deviation, learned_losses, make_parameters, make_target,
                              plain_shapes, rise, step_tensors)
from model_reference import Rows, check_family, embed, load_golden, load_model, run_head, run_layer, theta

CASES = {
    "ladder_vector": ("llama3", Ladder([0, 2], 2, gate="vector")),
    "ladder_plain": ("llama3", Ladder([1, 2], 4, block="plain", tap_map="shared", heads=1, kv_heads=1, head_dim=32,
                                      output_scale=1.0)),
    "xladder": ("llama3", Ladder([1, 2], 4)),
    "ladder_grouped": ("llama3", Ladder([0, 2], 2, heads=4, kv_heads=2, head_dim=8)),
    "ladder_pooled": ("llama3", Ladder([0, 2], 2, tap_map="pooled")),
    "ladder_pooled_uneven": ("llama3", Ladder([0, 2], 2, tap_map="pooled", S=24, heads=3, kv_heads=3, head_dim=8)),
    "rejoin_llama3": ("llama3", Ladder([0], 2, output_scale=2.0, rejoin=2)),
    "rejoin_qwen2": ("qwen2", Ladder([0], 2, output_scale=2.0, rejoin=2)),
    "rejoin_qwen3": ("qwen3", Ladder([0], 2, output_scale=2.0, rejoin=1)),  # it has two layers
}


def forward(ladder, p, model, golden, target):
    """(state (N,S), logits of the learned rows, their losses)."""
    dtype = p["up.weight"].dtype
    rows = Rows(model, golden["starts"], dtype)
    x, hidden, L = embed(model, golden["ids"]), [], model.config.num_hidden_layers
    for layer in range(L - ladder.rejoin):
        x = run_layer(model, layer, x, rows)
        hidden.append(x)
    state = climb(ladder, p, hidden, theta(model), golden["starts"].tolist())
    z = rise(ladder, p, x, state)
    for layer in range(L - ladder.rejoin, L):
        z = run_layer(model, layer, z, rows)
    logits = run_head(model, z)
    return state, logits[target >= 0], learned_losses(logits, target)


def step(ladder, trained, fixed, family, golden, target, dtype):
    model = load_model(family, dtype)
    p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
    state, logits, losses = forward(ladder, {**p, **{k: v.to(dtype) for k, v in fixed.items()}}, model, golden, target)
    losses.mean().backward()
    return state.detach(), logits.detach(), losses.detach(), {k: v.grad for k, v in p.items()}


def nearest_kink(run):
    """The smallest |input| of any ReLU in run()."""
    relu, inputs = torch.relu, []

    def record(x):
        inputs.append(x.detach().abs().min().item())
        return relu(x)

    with mock.patch("torch.relu", record):
        run()
    return min(inputs)


def describe(ladder, family):
    """What a test needs to build the ladder, as metadata."""
    return {"family": family, "gate": ladder.gate, "block": ladder.block, "tap_map": ladder.tap_map,
            "tap_norm": "none" if ladder.tap_map == "shared" else "standardize", "rungs": str(ladder.rungs),
            "width": str(ladder.S), "inner": str(ladder.inner), "heads": str(ladder.heads),
            "kv_heads": str(ladder.kv_heads), "head_dim": str(ladder.head_dim), "rejoin": str(ladder.rejoin),
            **({"norm": ladder.norm} if ladder.norm != "rms" else {}), **({} if ladder.rotary else {"rotary": "false"})}


def make_case(name, family, ladder, seed):
    golden = load_golden(family)
    target = make_target(golden["ids"], golden["starts"], seed)
    trained, fixed = make_parameters(ladder, golden["hidden"].shape[2], seed)
    state, logits, losses, gradients = step(ladder, trained, fixed, family, golden, target, torch.float64)
    f32 = step(ladder, trained, fixed, family, golden, target, torch.float32)

    zero = [k for k in gradients if ladder.block == "plain" and k.endswith(".k.bias")]
    for k in zero:
        assert gradients[k].abs().max() < 1e-12, k
        gradients[k] = torch.zeros_like(gradients[k])
    moved = {k: g for k, g in gradients.items() if k not in zero}
    assert all(g.abs().max() > 1e-5 for g in moved.values()), "a gradient is zero"
    apart = deviation(f32[3], moved)
    assert apart < 1e-5, f"{name}: the f32 run is apart by {apart:.1e}"

    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    out = {**step_tensors(golden, target, losses, gradients), **trained, **fixed, "state": state,
           "taps": torch.tensor(ladder.taps, dtype=torch.int32), "rejoin": torch.tensor([ladder.rejoin], dtype=torch.int32),
           "output_scale": torch.tensor([ladder.output_scale]), "grad_norm": norm[None]}
    if ladder.rejoin:
        out["logits"] = logits
    about = {"made_by": "tools/make_method_golden.py", "torch": torch.__version__, "transformers": transformers.__version__,
             **describe(ladder, family), "f32_gradient_deviation": f"{apart:.1e}",
             "f32_loss_deviation": f"{(f32[2].double() - losses).abs().max():.1e}"}
    if ladder.block == "plain":
        # An input that another order of sums moves across zero would change the gradient by a jump.
        kink = nearest_kink(lambda: step(ladder, trained, fixed, family, golden, target, torch.float64))
        assert kink > 1e-5, f"{name}: a ReLU input is {kink:.1e}, f32 is off by about 2e-6"
        about.update({"zero_gradients": ",".join(zero), "nearest_kink": f"{kink:.1e}"})
    path = DATA / "method" / f"{name}.safetensors"
    save_golden(as_stored(out), path, about)
    print(f"{path.relative_to(DATA.parent.parent)} {path.stat().st_size} bytes: loss {losses.mean():.6f} on {len(losses)} "
          f"tokens, state rms {state.pow(2).mean().sqrt():.2f}, gradient norm {norm:.3f}, "
          f"smallest {min(g.abs().max() for g in moved.values()):.1e}, f32 run apart by {apart:.1e}")


def main():
    # The prototype of the method's authors: h 1536, width 128, four rungs.
    assert sum(math.prod(shape) for shape in plain_shapes(1536, 128, 4).values()) == 1_119_872
    for family in ("llama3", "qwen2", "qwen3"):
        check_family(family)
    for seed, (name, (family, ladder)) in enumerate(CASES.items()):
        make_case(name, family, ladder, 31 + seed)


if __name__ == "__main__":
    main()
