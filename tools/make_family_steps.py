#!/usr/bin/env python3
"""Writes a training step of LoRA and one of a ladder for the tiny models of the later families.

tests/data/lora/lora_<family>.safetensors      every linear layer of a block, as peft names them, r 2, alpha 4
tests/data/method/rejoin_<family>.safetensors  one rung of width 16 that taps the lowest layer and rejoins below the top
                                               layers, so that the gradient crosses them; the rung has the norms
                                               and positions of the family

Tensors and metadata as in make_lora_golden.py and make_method_golden.py, without logits and states. Here the models of
transformers run unchanged, each sequence by itself: hooks take the taps and put the joined stream in. They cast to f32
inside; in the f64 run those casts are to f64.
"""

import contextlib
from unittest import mock

import peft
import torch
import transformers
from golden_file import save_golden
from ladder_reference import (DATA, Ladder, as_stored, climb, deviation, learned_losses, make_parameters, make_target, rise,
                              step_tensors)
from make_family_goldens import layers_of
from make_lora_golden import Lora, adapt, check_gradients, gradients_of, make_adapter, write
from make_method_golden import describe
from model_reference import assert_near, load_golden, load_stock

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OPT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
NEOX = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
PHI = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# family: (linear layers, how many layers the ladder rejoins below the top; 0: no ladder)
FAMILIES = {
    "opt": (OPT, 1), "opt_350m": (OPT, 1), "gpt2": (["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], 1),
    "gpt_neox": (NEOX, 1), "gpt_neox_serial": (NEOX, 0), "gemma": (LLAMA, 1), "gemma2": (LLAMA, 2), "gemma3": (LLAMA, 2),
    "phi3": (PHI, 1), "phi3_long": (PHI, 1), "olmo2": (LLAMA, 1), "granite": (LLAMA, 1), "smollm3": (LLAMA, 2),
    "mistral_window": (LLAMA, 1), "qwen3_yarn": (LLAMA, 1),
}


@contextlib.contextmanager
def precision(dtype):
    """Casts to f32 inside of a model become casts to `dtype`."""
    to, softmax = torch.Tensor.to, torch.nn.functional.softmax
    other = lambda value: dtype if value is torch.float32 else value

    def cast_to(self, *args, **kwargs):
        return to(self, *map(other, args), **{k: other(v) for k, v in kwargs.items()})

    def cast_softmax(x, dim=None, dtype=None, **kwargs):
        return softmax(x, dim=dim, dtype=other(dtype), **kwargs)

    if dtype == torch.float32:
        yield
        return
    with (mock.patch.object(torch.Tensor, "to", cast_to), mock.patch.object(torch.nn.functional, "softmax", cast_softmax),
          mock.patch.object(torch.Tensor, "float", lambda self: to(self, dtype))):
        yield


def split(golden):
    starts = golden["starts"].tolist()
    return [golden["ids"][b:e].long() for b, e in zip(starts, starts[1:])]


def run(model, golden):
    return torch.cat([model(input_ids=ids[None]).logits[0] for ids in split(golden)])


def theta_of(config):
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get("full_attention", rope).get("rope_theta", 10000.0)


def run_ladder(model, ladder, p, golden):
    """Logits (N,V): the stream below the top `rejoin` layers is replaced by the joined one."""
    layers, theta = layers_of(model), theta_of(model.config)
    hidden = []

    def keep(_, __, out):
        hidden.append((out[0] if isinstance(out, tuple) else out).reshape(-1, model.config.hidden_size))

    def join(_, args):
        x = args[0].reshape(-1, model.config.hidden_size)
        state = climb(ladder, p, hidden, theta, [0, len(x)])
        return (rise(ladder, p, x, state).reshape(args[0].shape), *args[1:])

    crossed = len(layers) - ladder.rejoin
    hooks = [layer.register_forward_hook(keep) for layer in layers[:crossed]]
    hooks.append(layers[crossed].register_forward_pre_hook(join))
    logits = []
    for ids in split(golden):
        hidden.clear()
        logits.append(model(input_ids=ids[None]).logits[0])
    for hook in hooks:
        hook.remove()
    return torch.cat(logits)


def make_lora(family, modules, golden, target, seed):
    lora = Lora(family, modules, 2, 4)
    values = make_adapter(lora, seed)
    results = {}
    for dtype in (torch.float64, torch.float32):
        with precision(dtype):
            wrapped = adapt(load_stock(family, dtype), lora, values)
            logits = run(wrapped, golden)
            losses = learned_losses(logits, target)
            losses.mean().backward()
            results[dtype] = losses.detach(), gradients_of(wrapped)
    losses, gradients = results[torch.float64]
    apart = check_gradients(family, gradients, results[torch.float32][1])
    tensors = {**step_tensors(golden, target, losses, gradients), **values}
    write(f"lora_{family}", lora, tensors, gradients, losses, results[torch.float32][0], apart,
          {"made_by": "tools/make_family_steps.py"})


def make_ladder(family, rejoin, golden, target, seed):
    config = load_stock(family).config
    positions = not config.model_type in ("opt", "gpt2")
    layer_norm = config.model_type in ("opt", "gpt2", "gpt_neox")
    ladder = Ladder([0], 1, S=16, heads=2, kv_heads=2, head_dim=8, output_scale=2.0, rejoin=rejoin,
                    norm="layer" if layer_norm else "rms", rotary=positions)
    trained, fixed = make_parameters(ladder, golden["hidden"].shape[2], seed)
    results = {}
    for dtype in (torch.float64, torch.float32):
        p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
        together = {**p, **{k: v.to(dtype) for k, v in fixed.items()}}
        with precision(dtype):
            logits = run_ladder(load_stock(family, dtype), ladder, together, golden)
            losses = learned_losses(logits, target)
            losses.mean().backward()
        results[dtype] = losses.detach(), {k: v.grad for k, v in p.items()}
    losses, gradients = results[torch.float64]
    apart = check_gradients(family, gradients, results[torch.float32][1])
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    out = {**step_tensors(golden, target, losses, gradients), **trained, **fixed, "grad_norm": norm[None],
           "taps": torch.tensor(ladder.taps, dtype=torch.int32), "rejoin": torch.tensor([rejoin], dtype=torch.int32),
           "output_scale": torch.tensor([ladder.output_scale])}
    about = {"made_by": "tools/make_family_steps.py", "torch": torch.__version__,
             "transformers": transformers.__version__, **describe(ladder, family), "f32_gradient_deviation": f"{apart:.1e}"}
    save_golden(as_stored(out), DATA / "method" / f"rejoin_{family}.safetensors", about)
    print(f"rejoin_{family}: loss {losses.mean():.6f}, gradient norm {norm:.3f}, f32 run apart by {apart:.1e}")


def check_family(family, golden):
    """The f64 run against the f32 run that made the golden file."""
    with torch.no_grad(), precision(torch.float64):
        logits = run(load_stock(family, torch.float64), golden)
    assert_near(logits, golden["logits"], family)
    assert deviation({"logits": golden["logits"]}, {"logits": logits}) > 0, "the f64 run is the f32 run"


def main():
    for seed, (family, (modules, rejoin)) in enumerate(FAMILIES.items()):
        golden = load_golden(family)
        check_family(family, golden)
        target = make_target(golden["ids"], golden["starts"], 71 + seed)
        make_lora(family, modules, golden, target, 71 + seed)
        if rejoin:
            make_ladder(family, rejoin, golden, target, 171 + seed)


if __name__ == "__main__":
    main()
