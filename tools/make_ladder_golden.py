#!/usr/bin/env python3
"""Writes ladder training steps beside the tiny llama3 model: parameters, loss, gradients, one AdamW update.

tests/data/ladder/step_sum.safetensors           taps 0 and 2, a rung each, gate sum
tests/data/ladder/step_interpolate.safetensors   the same, gate interpolate
tests/data/ladder/step_free.safetensors          taps 1 and 2, three rungs: the last one is free; gate sum

  ids (N) I32, starts (3) I32, target (N) I32   packed; target is the next token, -1 where none is learned
  taps (taps) I32, output_scale (1) F32
  <parameter>            as below, and rungs.<j>.tap.mean, rungs.<j>.tap.inv_deviation (C)
  state (N,S)            s_l, before the up-projection
  loss.sum (1), loss.mean (1), loss.tokens (1) I32
  grad.<parameter>       of loss.mean
  grad_norm (1)          of all gradients together, before clipping
  adamw.<parameter>      after one step from zero moments, for some: gradients clipped to norm 1, lr 1e-3,
                         betas 0.9 and 0.999, eps 1e-8, decay 0.01 on every parameter

  rungs.<j>.tap.weight (S,C), rungs.<j>.gate.alpha (1) for j > 0, rungs.<j>.block.{attn_norm,mlp_norm}.weight (S),
  rungs.<j>.block.{q,k,v,o}.weight (S,S), .{gate,up}.weight (F,S), .down.weight (S,F), up.weight (C,S)

Taps and the last residual stream are `hidden` of tests/data/families/llama3/golden.safetensors, the final norm and
the head those of the model beside it. Computed in f64, stored as f32. Metadata: versions, F, how far an f32 run of the
same code is from it (largest difference over the largest gradient).

The equations of the ladder: ladder_reference.py. z = hidden_last + output_scale * U s_last;  logits = head(final_norm(z))
"""

import json

import torch
from golden_file import save_golden
from ladder_reference import (DATA, Ladder, as_stored, climb, deviation, learned_losses, make_parameters, make_target,
                              rise, rms_norm, step_tensors)
from safetensors.torch import load_file


def forward(ladder, p, frozen, batch, dtype):
    """(state (N,S), loss per learned row)."""
    hidden = frozen["hidden"].to(dtype)
    state = climb(ladder, p, hidden, frozen["theta"], batch["starts"])
    z = rise(ladder, p, hidden[-1], state)
    logits = rms_norm(z, frozen["norm"].to(dtype), frozen["eps"]) @ frozen["head"].to(dtype).T
    return state, learned_losses(logits, batch["target"])


def step(ladder, trained, fixed, frozen, batch, dtype):
    """State, losses, gradients of the mean loss, and the parameters after AdamW."""
    p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
    state, losses = forward(ladder, {**p, **{k: v.to(dtype) for k, v in fixed.items()}}, frozen, batch, dtype)
    losses.mean().backward()
    gradients = {k: v.grad.clone() for k, v in p.items()}
    norm = torch.nn.utils.clip_grad_norm_(p.values(), 1e30)
    for v in p.values():
        v.grad.mul_(min(1.0, 1.0 / norm.item()))
    torch.optim.AdamW(p.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, foreach=False).step()
    return state.detach(), losses.detach(), gradients, norm, {k: v.detach() for k, v in p.items()}


def make_step(name, ladder, golden, frozen, seed):
    batch = {"starts": golden["starts"].tolist(), "target": make_target(golden["ids"], golden["starts"], seed)}
    trained, fixed = make_parameters(ladder, golden["hidden"].shape[2], seed)

    state, losses, gradients, norm, updated = step(ladder, trained, fixed, frozen, batch, torch.float64)
    f32 = step(ladder, trained, fixed, frozen, batch, torch.float32)
    assert all(g.abs().max() > 1e-5 for g in gradients.values()), "a gradient is zero"
    assert norm > 1.0, "the step would not clip"
    apart = deviation(f32[2], gradients)

    out = {**step_tensors(golden, batch["target"], losses, gradients), **trained, **fixed, "state": state,
           "taps": torch.tensor(ladder.taps, dtype=torch.int32), "output_scale": torch.tensor([ladder.output_scale]),
           "grad_norm": norm[None]}
    chosen = ["rungs.0.tap.weight", "rungs.1.block.q.weight", "rungs.1.block.attn_norm.weight", "up.weight"]
    chosen += ["rungs.1.gate.alpha"] if ladder.gate == "interpolate" else []
    out.update({f"adamw.{k}": updated[k] for k in chosen})
    about = {"made_by": "tools/make_ladder_golden.py", "torch": torch.__version__, "inner": str(ladder.inner),
             "head_dim": str(ladder.head_dim), "gate": ladder.gate, "rungs": str(ladder.rungs),
             "f32_gradient_deviation": f"{apart:.1e}", "f32_loss_deviation": f"{(f32[1].double() - losses).abs().max():.1e}"}
    path = DATA / "ladder" / f"{name}.safetensors"
    save_golden(as_stored(out), path, about)
    print(f"{path.relative_to(DATA.parent.parent)} {path.stat().st_size} bytes: loss {losses.mean():.6f} on {len(losses)} "
          f"tokens, gradient norm {norm:.3f}, f32 run apart by {apart:.1e}")


def main():
    model = DATA / "families" / "llama3"
    config, weights = json.loads((model / "config.json").read_text()), load_file(model / "model.safetensors")
    golden = load_file(model / "golden.safetensors")
    frozen = {"hidden": golden["hidden"], "norm": weights["model.norm.weight"], "head": weights["model.embed_tokens.weight"],
              "eps": config["rms_norm_eps"], "theta": config["rope_theta"]}
    # The frozen end, checked where the ladder adds nothing: it must give the model's own logits.
    logits = rms_norm(frozen["hidden"][-1], frozen["norm"].float(), frozen["eps"]) @ frozen["head"].float().T
    torch.testing.assert_close(logits, golden["logits"], rtol=1e-5, atol=1e-4)
    make_step("step_sum", Ladder([0, 2], 2), golden, frozen, 11)
    make_step("step_interpolate", Ladder([0, 2], 2, "interpolate"), golden, frozen, 12)
    make_step("step_free", Ladder([1, 2], 3), golden, frozen, 13)


if __name__ == "__main__":
    main()
