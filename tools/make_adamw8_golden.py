#!/usr/bin/env python3
"""Writes what bitsandbytes' AdamW8bit does on the CPU to recorded gradients, and its dynamic maps.

tests/data/optimizer/adamw8.bin
  char[8] "rungadm8", string about, f32s signed_map, f32s unsigned_map, i64 cases, then per case:
    i64 n, i64 steps, f32s (learning_rate, beta1, beta2, epsilon, decay), u16s weight (bf16 bits), then per step:
      u16s gradient (bf16 bits), f32s weight, bytes m, bytes v, f32s m_absmax, f32s v_absmax   (after the step)

Everything is little-endian. string and bytes: u64 count and the bytes; f32s and u16s: u64 count and the values.

Gradients span many magnitudes, so that all decades of the maps are used. Blocks 1 and 2 (of 256) hold zeros
always, and in the second step only; blocks 3 and 4 are tiny and huge. The CPU code of bitsandbytes 0.50 finds
codes on a grid of 2/65535, other than its CUDA code: a reader must not expect exact codes next to a border.
"""

import struct
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import bitsandbytes as bnb
import numpy as np
import torch

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "optimizer" / "adamw8.bin"

i64 = lambda x: struct.pack("<q", x)
raw = lambda b: struct.pack("<Q", len(b)) + bytes(b)
f32s = lambda a: struct.pack("<Q", len(a)) + np.asarray(a, "<f4").tobytes()
u16s = lambda t: struct.pack("<Q", t.numel()) + t.to(torch.bfloat16).view(torch.int16).numpy().astype("<i2").tobytes()
bf16 = lambda a: torch.from_numpy(a.astype(np.float32)).to(torch.bfloat16)

# n, steps, learning rate, beta1, beta2, epsilon, decay. 4396 ends with a block of 44.
CASES = [(4396, 3, 1e-2, 0.9, 0.999, 1e-8, 0.1), (4096, 2, 1e-3, 0.8, 0.95, 1e-6, 0.0)]


def gradient(rng, n, step):
    g = rng.normal(0, 1, n) * 10.0 ** rng.uniform(-4, 0, n)
    g[rng.integers(0, n, n // 16)] = 0.0
    g[256:512] = 0.0
    if step == 1:
        g[512:768] = 0.0
    g[768:1024] *= 1e-12
    g[1024:1280] *= 1e6
    return bf16(g)


def case(rng, n, steps, rate, beta1, beta2, epsilon, decay):
    start = bf16(rng.normal(0, 1, n))
    weight = torch.nn.Parameter(start.float())
    optimizer = bnb.optim.AdamW8bit([weight], lr=rate, betas=(beta1, beta2), eps=epsilon, weight_decay=decay)
    parts = [i64(n), i64(steps), f32s([rate, beta1, beta2, epsilon, decay]), u16s(start)]
    for step in range(steps):
        g = gradient(rng, n, step)
        weight.grad = g.float()
        optimizer.step()
        state = optimizer.state[weight]
        assert state["state1"].dtype == torch.uint8 and torch.isfinite(weight).all()
        parts += [u16s(g), f32s(weight.detach().numpy())]
        parts += [raw(state[key].numpy().tobytes()) for key in ("state1", "state2")]
        parts += [f32s(state[key].numpy()) for key in ("absmax1", "absmax2")]
    return b"".join(parts)


def main():
    rng = np.random.default_rng(8)
    about = f"made by tools/make_adamw8_golden.py, bitsandbytes {bnb.__version__}, torch {torch.__version__}"
    maps = [f32s(bnb.functional.create_dynamic_map(signed).numpy()) for signed in (True, False)]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_bytes(b"rungadm8" + raw(about.encode()) + b"".join(maps) + i64(len(CASES)) +
                     b"".join(case(rng, *c) for c in CASES))
    print(f"{FILE.relative_to(FILE.parents[3])}  {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
