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

    std(x) = (x / sqrt(mean(x^2) + 1e-5) - mean) * inv_deviation
    u_j = s_{j-1} + P_j std(tap_j), or mu s_{j-1} + (1-mu) P_j std(tap_j), mu = sigmoid(alpha_j / 0.1); u_0 = P_0 std(tap_0)
    s_j = Block_j(u_j);  z = hidden_last + output_scale * U s_last;  logits = head(final_norm(z))
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from golden_file import save_golden
from safetensors.torch import load_file

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
S, HEAD, EPS = 32, 16, 1e-5
INNER = int(round(S * 8 / 3 / 16)) * 16
OUTPUT_SCALE = 3.0


def rms_norm(x, gain, eps):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def rotate(x, theta):
    """x (T, heads, D), position = row: pairs (i, i + D/2) turn by position * theta^(-2i/D)."""
    T, _, D = x.shape
    angle = torch.outer(torch.arange(T, dtype=torch.float64), theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D))
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def block(x, p, name, theta, starts):
    w = lambda part: p[f"{name}.{part}.weight"]
    normed = rms_norm(x, w("attn_norm"), EPS)
    outputs = []
    for begin, end in zip(starts, starts[1:]):
        h = normed[begin:end]
        q, k, v = ((h @ w(part).T).view(end - begin, -1, HEAD) for part in "qkv")
        q, k = rotate(q, theta), rotate(k, theta)
        scores = torch.einsum("ihd,jhd->hij", q, k) / HEAD**0.5
        scores = scores.masked_fill(torch.ones(end - begin, end - begin).triu(1).bool(), float("-inf"))
        outputs.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(end - begin, -1))
    x = x + torch.cat(outputs) @ w("o").T
    h = rms_norm(x, w("mlp_norm"), EPS)
    return x + (F.silu(h @ w("gate").T) * (h @ w("up").T)) @ w("down").T


def forward(case, p, frozen, dtype):
    """(state (N,S), loss per learned row)."""
    hidden = frozen["hidden"].to(dtype)
    state = None
    for j in range(case["rungs"]):
        u = state
        if j < len(case["taps"]):
            tap = hidden[case["taps"][j]]
            tap = tap / torch.sqrt(tap.pow(2).mean(-1, keepdim=True) + EPS)
            tap = (tap - p[f"rungs.{j}.tap.mean"]) * p[f"rungs.{j}.tap.inv_deviation"]
            projected = tap @ p[f"rungs.{j}.tap.weight"].T
            if state is None:
                u = projected
            elif case["interpolate"]:
                mu = torch.sigmoid(p[f"rungs.{j}.gate.alpha"] / 0.1)
                u = mu * state + (1 - mu) * projected
            else:
                u = state + projected
        state = block(u, p, f"rungs.{j}.block", frozen["theta"], case["starts"])
    z = hidden[-1] + OUTPUT_SCALE * (state @ p["up.weight"].T)
    logits = rms_norm(z, frozen["norm"].to(dtype), frozen["eps"]) @ frozen["head"].to(dtype).T
    learned = case["target"] >= 0
    return state, F.cross_entropy(logits[learned], case["target"][learned].long(), reduction="none")


def make_parameters(case, C, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = lambda *shape: torch.randn(*shape, generator=generator)
    matrix = lambda out, inner: noise(out, inner) / inner**0.5
    trained, fixed = {}, {}
    for j in range(case["rungs"]):
        if j < len(case["taps"]):
            trained[f"rungs.{j}.tap.weight"] = matrix(S, C)
            fixed[f"rungs.{j}.tap.mean"] = 0.3 * noise(C)
            fixed[f"rungs.{j}.tap.inv_deviation"] = 0.5 + noise(C).abs()
            if case["interpolate"] and j > 0:
                trained[f"rungs.{j}.gate.alpha"] = 0.05 * noise(1)
        name = f"rungs.{j}.block"
        for norm in ("attn_norm", "mlp_norm"):
            trained[f"{name}.{norm}.weight"] = 1 + 0.2 * noise(S)
        for part in "qkvo":
            trained[f"{name}.{part}.weight"] = matrix(S, S)
        trained[f"{name}.gate.weight"], trained[f"{name}.up.weight"] = matrix(INNER, S), matrix(INNER, S)
        trained[f"{name}.down.weight"] = matrix(S, INNER)
    trained["up.weight"] = 0.1 * matrix(C, S)  # not zero, so that every gradient is not
    return trained, fixed


def step(case, trained, fixed, frozen, dtype):
    """State, losses, gradients of the mean loss, and the parameters after AdamW."""
    p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
    state, losses = forward(case, {**p, **{k: v.to(dtype) for k, v in fixed.items()}}, frozen, dtype)
    losses.mean().backward()
    gradients = {k: v.grad.clone() for k, v in p.items()}
    norm = torch.nn.utils.clip_grad_norm_(p.values(), 1e30)
    for v in p.values():
        v.grad.mul_(min(1.0, 1.0 / norm.item()))
    torch.optim.AdamW(p.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, foreach=False).step()
    return state.detach(), losses.detach(), gradients, norm, {k: v.detach() for k, v in p.items()}


def deviation(gradients, exact):
    return max(((gradients[k].double() - exact[k]).abs().max() / exact[k].abs().max()).item() for k in exact)


def make_step(name, taps, rungs, interpolate, golden, frozen, seed):
    N, starts = len(golden["ids"]), golden["starts"].tolist()
    learn = torch.rand(N, generator=torch.Generator().manual_seed(seed)) < 0.6
    learn[starts[1] + 1 : starts[1] + 6] = False
    target = torch.full((N,), -1, dtype=torch.int32)
    for begin, end in zip(starts, starts[1:]):  # the last row of a sequence has no next token
        following = golden["ids"][begin + 1 : end]
        target[begin : end - 1] = torch.where(learn[begin + 1 : end], following, torch.tensor(-1, dtype=torch.int32))
    case = {"taps": taps, "rungs": rungs, "interpolate": interpolate, "starts": starts, "target": target}
    trained, fixed = make_parameters(case, golden["hidden"].shape[2], seed)

    state, losses, gradients, norm, updated = step(case, trained, fixed, frozen, torch.float64)
    f32 = step(case, trained, fixed, frozen, torch.float32)
    assert all(g.abs().max() > 1e-5 for g in gradients.values()), "a gradient is zero"
    assert norm > 1.0, "the step would not clip"
    apart = deviation(f32[2], gradients)

    out = {"ids": golden["ids"], "starts": golden["starts"], "target": target, "taps": torch.tensor(taps, dtype=torch.int32),
           "output_scale": torch.tensor([OUTPUT_SCALE]), **trained, **fixed, "state": state,
           "loss.sum": losses.sum()[None], "loss.mean": losses.mean()[None],
           "loss.tokens": torch.tensor([len(losses)], dtype=torch.int32), "grad_norm": norm[None]}
    out.update({f"grad.{k}": g for k, g in gradients.items()})
    chosen = ["rungs.0.tap.weight", "rungs.1.block.q.weight", "rungs.1.block.attn_norm.weight", "up.weight"]
    chosen += ["rungs.1.gate.alpha"] if interpolate else []
    out.update({f"adamw.{k}": updated[k] for k in chosen})
    out = {k: (v if v.dtype == torch.int32 else v.float()).contiguous() for k, v in out.items()}
    about = {"made_by": "tools/make_ladder_golden.py", "torch": torch.__version__, "inner": str(INNER),
             "head_dim": str(HEAD), "gate": "interpolate" if interpolate else "sum", "rungs": str(rungs),
             "f32_gradient_deviation": f"{apart:.1e}", "f32_loss_deviation": f"{(f32[1].double() - losses).abs().max():.1e}"}
    path = DATA / "ladder" / f"{name}.safetensors"
    save_golden(out, path, about)
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
    make_step("step_sum", [0, 2], 2, False, golden, frozen, 11)
    make_step("step_interpolate", [0, 2], 2, True, golden, frozen, 12)
    make_step("step_free", [1, 2], 3, False, golden, frozen, 13)


if __name__ == "__main__":
    main()
