#!/usr/bin/env python3
"""Writes training steps of LoRA on the tiny models as peft runs it: adapters, losses, gradients.

tests/data/lora/lora_<family>.safetensors    llama3, qwen2, qwen3: all seven linears of all layers, r 8, alpha 16, rslora
tests/data/lora/lora_top1.safetensors        llama3: q and v of the last layer, r 4, alpha 8, plain scaling
tests/data/lora/combined_llama3.safetensors  q and down of the top two layers, r 4, alpha 8, together with a ladder of one
                                             rung that taps layer 0 and rejoins after it
tests/data/lora/peft_llama3, peft_top1       lora_llama3 and lora_top1 as peft saves them

  ids (N) I32, starts (3) I32, target (N) I32   packed; target is the next token, -1 where none is learned
  base_model.model.model.layers.<l>.{self_attn,mlp}.<linear>.lora_A.weight (r,K), .lora_B.weight (O,r)
  logits (N,V)                                  with the adapter, all rows
  loss.sum (1), loss.mean (1), loss.tokens (1) I32
  grad.<parameter>                              of loss.mean
  grad_norm (1)                                 of all gradients together
  scaling (1) F32                               what B A is multiplied by: alpha / r, with rslora alpha / sqrt(r)

combined_llama3 also holds the ladder's parameters, state, taps, rejoin and output_scale as tests/data/method/rejoin_*
does; its logits are of the learned rows. B is not zero, so that every gradient is not. Computed in f64, stored as f32;
peft_* hold the same f32 values. Metadata: what configures the case (layers and target_modules comma-separated), and how
far an f32 run of the same code is from it (largest difference over the largest gradient).

Checked here: the packed run against peft on the unchanged model, sequence by sequence and from the saved folder; the
merged model against the unmerged.
"""

import json
import os
import shutil
from dataclasses import dataclass

import peft
import torch
import transformers
from golden_file import save_golden
from ladder_reference import DATA, Ladder, as_stored, deviation, learned_losses, make_parameters, make_target, step_tensors
from make_method_golden import describe, forward
from model_reference import (Rows, assert_near, check_family, load_golden, load_model, load_stock, run_model,
                             run_separately)

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Lora:
    family: str
    modules: list
    rank: int
    alpha: int
    rslora: bool = False
    layers: list | None = None  # None: all
    saved_as: str | None = None

    @property
    def scaling(self):
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def config(self):
        return peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, use_rslora=self.rslora, target_modules=self.modules,
                               layers_to_transform=self.layers, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")


CASES = {
    "lora_llama3": Lora("llama3", ALL, 8, 16, rslora=True, saved_as="peft_llama3"),
    "lora_qwen2": Lora("qwen2", ALL, 8, 16, rslora=True),
    "lora_qwen3": Lora("qwen3", ALL, 8, 16, rslora=True),
    "lora_top1": Lora("llama3", ["q_proj", "v_proj"], 4, 8, layers=[2], saved_as="peft_top1"),
}
COMBINED = Lora("llama3", ["q_proj", "down_proj"], 4, 8, layers=[1, 2]), Ladder([0], 1, output_scale=2.0, rejoin=2)


def adapt(model, lora, values):
    """`model` with the adapter of these values, as peft wraps it; its own weights stay frozen."""
    dtype = model.dtype
    wrapped = peft.get_peft_model(model, lora.config()).to(dtype)
    result = peft.set_peft_model_state_dict(wrapped, values)
    assert not result.unexpected_keys
    for k, v in peft.get_peft_model_state_dict(wrapped).items():
        assert v.dtype == dtype and torch.equal(v, values[k].to(dtype)), k
    return wrapped.eval()


def make_adapter(lora, seed):
    """Values by their names in adapter_model.safetensors, f32: at an input of unit size B A x adds about a half."""
    wrapped = peft.get_peft_model(load_stock(lora.family), lora.config())
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for k, v in sorted(peft.get_peft_model_state_dict(wrapped).items()):
        gain = v.shape[1] ** -0.5 if "lora_A" in k else 0.5 / (lora.scaling * lora.rank**0.5)
        values[k] = gain * torch.randn(v.shape, generator=generator)
    layers = len(lora.layers) if lora.layers else wrapped.config.num_hidden_layers
    assert len(values) == 2 * layers * len(lora.modules)
    return values


def gradients_of(wrapped):
    return {k.replace(".default", ""): p.grad for k, p in wrapped.named_parameters() if p.requires_grad}


def step(lora, values, golden, target, dtype):
    """Logits of all rows, losses, gradients of the mean loss."""
    wrapped = adapt(load_model(lora.family, dtype), lora, values)
    model = wrapped.base_model.model
    _, logits = run_model(model, golden["ids"], Rows(model, golden["starts"], dtype))
    losses = learned_losses(logits, target)
    losses.mean().backward()
    return logits.detach(), losses.detach(), gradients_of(wrapped)


def check_merged(lora, values, golden, logits):
    model = adapt(load_model(lora.family, torch.float64), lora, values).merge_and_unload()
    with torch.no_grad():
        _, merged = run_model(model, golden["ids"], Rows(model, golden["starts"], torch.float64))
    torch.testing.assert_close(merged, logits, rtol=1e-10, atol=1e-10)


def save_adapter(lora, values):
    """Both files as peft writes them; lists that come from a set are sorted."""
    folder, family = DATA / "lora" / lora.saved_as, f"tests/data/families/{lora.family}"
    wrapped = adapt(load_stock(lora.family), lora, values)
    wrapped.peft_config["default"].base_model_name_or_path = family
    shutil.rmtree(folder, ignore_errors=True)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].sort()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    assert str(DATA.parent.parent) not in (folder / "adapter_config.json").read_text()
    for file in folder.iterdir():
        os.chmod(file, 0o644)
    return folder


def check_gradients(name, gradients, f32):
    assert gradients.keys() == f32.keys()
    assert all(g.abs().max() > 1e-5 for g in gradients.values()), "a gradient is zero"
    apart = deviation(f32, gradients)
    assert apart < 1e-5, f"{name}: the f32 run is apart by {apart:.1e}"
    return apart


def write(name, lora, tensors, gradients, losses, f32_losses, apart, about):
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    tensors = {**tensors, "scaling": torch.tensor([lora.scaling]), "grad_norm": norm[None]}
    about = {"made_by": "tools/make_lora_golden.py", "torch": torch.__version__, "transformers": transformers.__version__,
             "peft": peft.__version__, "family": lora.family, "r": str(lora.rank), "lora_alpha": str(lora.alpha),
             "use_rslora": str(lora.rslora).lower(), "target_modules": ",".join(lora.modules),
             "layers": ",".join(map(str, lora.layers)) if lora.layers else "all",
             "f32_gradient_deviation": f"{apart:.1e}",
             "f32_loss_deviation": f"{(f32_losses.double() - losses).abs().max():.1e}", **about}
    path = DATA / "lora" / f"{name}.safetensors"
    save_golden(as_stored(tensors), path, about)
    print(f"{path.relative_to(DATA.parent.parent)} {path.stat().st_size} bytes: loss {losses.mean():.6f} on {len(losses)} "
          f"tokens, {len(gradients)} gradients of norm {norm:.3f}, smallest "
          f"{min(g.abs().max() for g in gradients.values()):.1e}, f32 run apart by {apart:.1e}")


def make_case(name, lora, seed):
    golden, values = load_golden(lora.family), make_adapter(lora, seed)
    target = make_target(golden["ids"], golden["starts"], seed)
    logits, losses, gradients = step(lora, values, golden, target, torch.float64)
    _, f32_losses, f32 = step(lora, values, golden, target, torch.float32)
    apart = check_gradients(name, gradients, f32)

    assert (logits - golden["logits"]).abs().max() > 0.1, "the adapter changes nothing"
    stock = adapt(load_stock(lora.family), lora, values)
    assert_near(run_separately(stock, golden["ids"], golden["starts"]), logits.float(), name)
    check_merged(lora, values, golden, logits)
    if lora.saved_as:
        folder = save_adapter(lora, values)
        stock = peft.PeftModel.from_pretrained(load_stock(lora.family), folder)
        assert_near(run_separately(stock, golden["ids"], golden["starts"]), logits.float(), folder.name)

    tensors = {**step_tensors(golden, target, losses, gradients), **values, "logits": logits}
    write(name, lora, tensors, gradients, losses, f32_losses, apart, {})


def make_combined(name, lora, ladder, seed):
    golden, values = load_golden(lora.family), make_adapter(lora, seed)
    target = make_target(golden["ids"], golden["starts"], seed)
    trained, fixed = make_parameters(ladder, golden["hidden"].shape[2], seed)
    runs = {}
    for dtype in (torch.float64, torch.float32):
        wrapped = adapt(load_model(lora.family, dtype), lora, values)
        p = {k: v.to(dtype, copy=True).requires_grad_(True) for k, v in trained.items()}
        together = {**p, **{k: v.to(dtype) for k, v in fixed.items()}}
        state, logits, losses = forward(ladder, together, wrapped.base_model.model, golden, target)
        losses.mean().backward()
        gradients = {**{k: v.grad for k, v in p.items()}, **gradients_of(wrapped)}
        runs[dtype] = state.detach(), logits.detach(), losses.detach(), gradients
    state, logits, losses, gradients = runs[torch.float64]
    apart = check_gradients(name, gradients, runs[torch.float32][3])
    tensors = {**step_tensors(golden, target, losses, gradients), **values, **trained, **fixed, "state": state,
               "logits": logits, "taps": torch.tensor(ladder.taps, dtype=torch.int32),
               "rejoin": torch.tensor([ladder.rejoin], dtype=torch.int32),
               "output_scale": torch.tensor([ladder.output_scale])}
    write(name, lora, tensors, gradients, losses, runs[torch.float32][2], apart, describe(ladder, lora.family))


def main():
    for family in ("llama3", "qwen2", "qwen3"):
        check_family(family)
    for seed, (name, lora) in enumerate(CASES.items()):
        make_case(name, lora, 51 + seed)
    make_combined("combined_llama3", *COMBINED, 61)


if __name__ == "__main__":
    main()
