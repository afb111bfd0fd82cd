"""The ladder in plain PyTorch, for the scripts that write golden training steps beside the tiny models.

    std(x) = (x / sqrt(mean(x^2) + 1e-5) - mean) * inv_deviation
    D_j(x) = P_j std(x)                tap map "project"
             P_j pool(std(x))          "pooled": a fixed map of C to S columns, see pool
             P x + b                   "shared": one projection for all taps, nothing normalised
    u_0    = D_0(tap_0);  a rung without a tap has u_j = s_{j-1}
    u_j    = s_{j-1} + D_j(tap_j)                          gate "sum"
             mu s_{j-1} + (1-mu) D_j(tap_j)                "interpolate", mu = sigmoid(alpha_j / 0.1), alpha_j (1)
                                                           "vector", the same with alpha_j (S)
    s_j    = Block_j(u_j)              "decoder": RMSNorm, RoPE, SwiGLU; "plain": see plain_block
    z      = x + output_scale * U s_last (+ b)

Attention and positions begin anew at each of `starts`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
EPS = 1e-5


@dataclass
class Ladder:
    taps: list  # layers whose output is tapped; tap j feeds rung j, rungs beyond them are free
    rungs: int
    gate: str = "sum"
    block: str = "decoder"
    tap_map: str = "project"
    S: int = 32
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 16
    output_scale: float = 3.0
    rejoin: int = 0  # frozen layers that run on z before the final norm
    norm: str = "rms"  # of decoder rungs: "rms" or "layer", which has a bias
    rotary: bool = True

    @property
    def inner(self):
        return int(round(self.S * 8 / 3 / 16)) * 16 if self.block == "decoder" else 4 * self.S


def rms_norm(x, gain, eps):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def rotate(x, theta):
    """x (T, heads, D), position = row: pairs (i, i + D/2) turn by position * theta^(-2i/D)."""
    T, _, D = x.shape
    angle = torch.outer(torch.arange(T, dtype=torch.float64), theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D))
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, k, v):
    """q (T, heads, D), k and v (T, kv_heads, D) of one sequence; query head h reads kv head h * kv_heads / heads."""
    T, heads, D = q.shape
    if k.shape[1] != heads:
        k, v = (x.repeat_interleave(heads // k.shape[1], 1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / D**0.5
    scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(T, -1)


def decoder_block(x, p, name, ladder, theta, starts):
    w = lambda part: p[f"{name}.{part}.weight"]
    turn = rotate if ladder.rotary else lambda x, _: x

    def norm(x, part):
        if ladder.norm == "layer":
            return F.layer_norm(x, x.shape[-1:], w(part), p[f"{name}.{part}.bias"], EPS)
        return rms_norm(x, w(part), EPS)

    normed = norm(x, "attn_norm")
    outputs = []
    for begin, end in zip(starts, starts[1:]):
        h = normed[begin:end]
        q, k, v = ((h @ w(part).T).view(end - begin, -1, ladder.head_dim) for part in "qkv")
        outputs.append(attend(turn(q, theta), turn(k, theta), v))
    x = x + torch.cat(outputs) @ w("o").T
    h = norm(x, "mlp_norm")
    return x + (F.silu(h @ w("gate").T) * (h @ w("up").T)) @ w("down").T


def plain_block(x, p, name, starts):
    """r = x + Attn(x), y = r + MLP(r): no norms, one head of width S, no positions, no output projection, ReLU."""
    apply = lambda part, h: h @ p[f"{name}.{part}.weight"].T + p[f"{name}.{part}.bias"]
    q, k, v = (apply(part, x)[:, None] for part in "qkv")
    x = x + torch.cat([attend(q[b:e], k[b:e], v[b:e]) for b, e in zip(starts, starts[1:])])
    return x + apply("down", torch.relu(apply("up", x)))


def pool(x, S):
    """(N,C) to (N,S): output s is the sum of columns floor(s C / S) to ceil((s+1) C / S) over the root of their number."""
    C = x.shape[1]
    windows = [(s * C // S, -(-(s + 1) * C // S)) for s in range(S)]
    return torch.stack([x[:, begin:end].sum(1) / (end - begin) ** 0.5 for begin, end in windows], 1)


def project_tap(ladder, p, j, tap):
    if ladder.tap_map == "shared":
        return tap @ p["tap.weight"].T + p["tap.bias"]
    tap = tap / torch.sqrt(tap.pow(2).mean(-1, keepdim=True) + EPS)
    tap = (tap - p[f"rungs.{j}.tap.mean"]) * p[f"rungs.{j}.tap.inv_deviation"]
    if ladder.tap_map == "pooled":
        tap = pool(tap, ladder.S)
    return tap @ p[f"rungs.{j}.tap.weight"].T


def climb(ladder, p, hidden, theta, starts):
    """The last state (N,S); hidden[l] is the output of layer l."""
    state = None
    for j in range(ladder.rungs):
        u = state
        if j < len(ladder.taps):
            projected = project_tap(ladder, p, j, hidden[ladder.taps[j]])
            if state is None:
                u = projected
            elif ladder.gate != "sum":
                mu = torch.sigmoid(p[f"rungs.{j}.gate.alpha"] / 0.1)
                u = mu * state + (1 - mu) * projected
            else:
                u = state + projected
        name = f"rungs.{j}.block"
        if ladder.block == "plain":
            state = plain_block(u, p, name, starts)
        else:
            state = decoder_block(u, p, name, ladder, theta, starts)
    return state


def rise(ladder, p, x, state):
    """z, where the ladder joins the residual stream."""
    up = state @ p["up.weight"].T
    return x + ladder.output_scale * (up + p["up.bias"] if "up.bias" in p else up)


def learned_losses(logits, target):
    learned = target >= 0
    return F.cross_entropy(logits[learned], target[learned].long(), reduction="none")


def plain_shapes(C, S, rungs):
    """Every parameter of a ladder of plain blocks with a shared tap projection."""
    shapes = OrderedDict({"tap.weight": (S, C), "tap.bias": (S,)})
    for j in range(rungs):
        for part, out, inner in [("q", S, S), ("k", S, S), ("v", S, S), ("up", 4 * S, S), ("down", S, 4 * S)]:
            shapes[f"rungs.{j}.block.{part}.weight"] = (out, inner)
            shapes[f"rungs.{j}.block.{part}.bias"] = (out,)
    shapes["up.weight"], shapes["up.bias"] = (C, S), (C,)
    return shapes


def make_parameters(ladder, C, seed):
    """(trained, fixed), f32."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda *shape: torch.randn(*shape, generator=generator)
    matrix = lambda out, inner: noise(out, inner) / inner**0.5
    trained, fixed, S = {}, {}, ladder.S
    if ladder.block == "plain":
        # Without norms the state grows from rung to rung: at unit gain four of them saturate the softmax.
        for name, shape in plain_shapes(C, S, ladder.rungs).items():
            trained[name] = 0.5 * matrix(*shape) if len(shape) == 2 else 0.1 * noise(*shape)
        return trained, fixed
    q_width, kv_width = ladder.heads * ladder.head_dim, ladder.kv_heads * ladder.head_dim
    for j in range(ladder.rungs):
        if j < len(ladder.taps):
            trained[f"rungs.{j}.tap.weight"] = matrix(S, S if ladder.tap_map == "pooled" else C)
            fixed[f"rungs.{j}.tap.mean"] = 0.3 * noise(C)
            fixed[f"rungs.{j}.tap.inv_deviation"] = 0.5 + noise(C).abs()
            if ladder.gate != "sum" and j > 0:
                trained[f"rungs.{j}.gate.alpha"] = 0.05 * noise(S if ladder.gate == "vector" else 1)
        name = f"rungs.{j}.block"
        for norm in ("attn_norm", "mlp_norm"):
            trained[f"{name}.{norm}.weight"] = 1 + 0.2 * noise(S)
            if ladder.norm == "layer":
                trained[f"{name}.{norm}.bias"] = 0.2 * noise(S)
        for part, out, inner in [("q", q_width, S), ("k", kv_width, S), ("v", kv_width, S), ("o", S, q_width)]:
            trained[f"{name}.{part}.weight"] = matrix(out, inner)
        trained[f"{name}.gate.weight"], trained[f"{name}.up.weight"] = matrix(ladder.inner, S), matrix(ladder.inner, S)
        trained[f"{name}.down.weight"] = matrix(S, ladder.inner)
    trained["up.weight"] = 0.1 * matrix(C, S)  # not zero, so that every gradient is not
    return trained, fixed


def make_target(ids, starts, seed):
    """The next token where it is learned, -1 elsewhere; one stretch of the second sequence is not learned."""
    N, starts = len(ids), starts.tolist()
    learn = torch.rand(N, generator=torch.Generator().manual_seed(seed)) < 0.6
    learn[starts[1] + 1 : starts[1] + 6] = False
    target = torch.full((N,), -1, dtype=torch.int32)
    for begin, end in zip(starts, starts[1:]):  # the last row of a sequence has no next token
        following = ids[begin + 1 : end]
        target[begin : end - 1] = torch.where(learn[begin + 1 : end], following, torch.tensor(-1, dtype=torch.int32))
    return target


def deviation(gradients, exact):
    """Largest difference over the largest value, the worst of all tensors."""
    return max(((gradients[k].double() - exact[k]).abs().max() / exact[k].abs().max()).item() for k in exact)


def step_tensors(golden, target, losses, gradients):
    """What every golden step holds: the batch, the losses and grad.<parameter>."""
    return {"ids": golden["ids"], "starts": golden["starts"], "target": target, "loss.sum": losses.sum()[None],
            "loss.mean": losses.mean()[None], "loss.tokens": torch.tensor([len(losses)], dtype=torch.int32),
            **{f"grad.{k}": g for k, g in gradients.items()}}


def as_stored(tensors):
    """f32 and i32, contiguous."""
    return {k: (v if v.dtype == torch.int32 else v.float()).contiguous() for k, v in tensors.items()}
