#!/usr/bin/env python3
"""Writes the golden files of the weight formats: stored bytes and the f32 values they mean.

tests/data/format/<format>.bin   q8_0 q4_0 q4_1 f16 bf16, values by gguf.quants.dequantize
  char[8] "rungfmt1", string about, i64 rows, i64 cols, bytes data, f32 values[rows*cols]

tests/data/nf4/decode_single.bin, decode_double.bin   values by bitsandbytes.functional.dequantize_4bit
  char[8] "rungnf41", string about, i64 n, bytes codes, f32s absmax, bytes nested_codes, f32s map, f32 offset,
  i64 ranges, then per range: i64 begin, f32s values      (of the weights begin, begin+1, ...)
  Single: nested_codes and map are empty, offset is 0.

tests/data/nf4/encode_single.bin, encode_double.bin   codes by the rule of bitsandbytes' CUDA kernel
  char[8] "rungnf42", string about, i64 n, u32s positions, f32s weights, bytes codes, f32s absmax,
  bytes nested_codes, f32 offset
  Weights stand at the positions, all others are zero. No positions: all n weights are given.

Everything is little-endian. string and bytes: u64 count and the bytes; f32s and u32s: u64 count and the values.
"""

import struct
import warnings
from fractions import Fraction
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parent.parent / "tests" / "data"
F32 = np.float32

f32 = lambda x: struct.pack("<f", x)
i64 = lambda x: struct.pack("<q", x)
raw = lambda b: struct.pack("<Q", len(b)) + bytes(b)
u32s = lambda a: struct.pack("<Q", len(a)) + np.asarray(a, "<u4").tobytes()
f32s = lambda a: struct.pack("<Q", len(a)) + np.asarray(a, "<f4").tobytes()


def write(path, *parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))
    print(f"{path.relative_to(ROOT.parent.parent)}  {path.stat().st_size} bytes")


# f16 bit patterns of scales: zeros, the smallest and largest subnormals, the smallest normal, the largest, negatives.
EDGE_SCALES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00, 0x2E66]


def scales(rng, count):
    """f16 bits: the edges first, then such scales as weights have."""
    bits = (rng.normal(0, 0.02, count)).astype("<f2").view("<u2")
    bits[: len(EDGE_SCALES)] = EDGE_SCALES
    return bits


def blocks_with_scales(rng, count, code_bytes, scale_count):
    """(count, 2*scale_count + code_bytes) u8: scales, then codes. Of the codes of the edge blocks, some are extreme."""
    codes = rng.integers(0, 256, (count, code_bytes), dtype=np.uint8)
    for i, fill in enumerate((0x00, 0xFF, 0x80, 0x7F, 0x88, 0x0F, 0xF0)):
        codes[len(EDGE_SCALES) + i] = fill
        codes[i, : code_bytes // 2] = fill
    parts = [scales(rng, count).view(np.uint8).reshape(count, 2)]
    if scale_count == 2:  # the minimum of q4_1, the edges in another order
        parts.append(np.roll(scales(rng, count), 5).view(np.uint8).reshape(count, 2))
    return np.concatenate(parts + [codes], axis=1)


def make_gguf_formats():
    about = f"gguf {gguf_version()}, numpy {np.__version__}, tools/make_format_golden.py".encode()
    rng = np.random.default_rng(1)
    rows, cols = 3, 1024
    count = rows * cols // 32
    types = gguf.GGMLQuantizationType
    cases = {
        "q8_0": (types.Q8_0, blocks_with_scales(rng, count, 32, 1)),
        "q4_0": (types.Q4_0, blocks_with_scales(rng, count, 16, 1)),
        "q4_1": (types.Q4_1, blocks_with_scales(rng, count, 16, 2)),
    }
    for name, exponent_bits in (("f16", 0x7C00), ("bf16", 0x7F80)):
        bits = rng.integers(0, 65536, rows * cols, dtype=np.uint16)
        bits[:8] = [0, 0x8000, 1, 0x8001, exponent_bits, exponent_bits | 0x8000, exponent_bits - 1, 0x03FF]
        # Infinities stay; NaN go: whether a conversion makes a signalling NaN quiet is the machine's business.
        nan = ((bits & exponent_bits) == exponent_bits) & ((bits & ~np.uint16(exponent_bits | 0x8000)) != 0)
        bits[nan] &= np.uint16(0xBFFF)
        cases[name] = (types.F16 if name == "f16" else types.BF16, bits.view(np.uint8))
    for name, (kind, data) in cases.items():
        data = np.ascontiguousarray(data).reshape(rows, -1)
        source = data.view(np.float16) if name == "f16" else data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = gguf.quants.dequantize(source, kind).astype(F32)
        assert values.shape == (rows, cols) and not np.isnan(values).any(), name
        write(ROOT / "format" / f"{name}.bin", b"rungfmt1", raw(about), i64(rows), i64(cols), raw(data.tobytes()),
              values.astype("<f4").tobytes())


# --- NF4 ------------------------------------------------------------------------------------------------------------

def literal(text):
    """The f32 nearest to a decimal, as a compiler reads `text` with suffix f. By way of f64 would round twice."""
    near, exact = F32(text), Fraction(text)
    around = [np.nextafter(near, F32(-2)), near, np.nextafter(near, F32(2))]
    return min(around, key=lambda x: abs(Fraction(float(x)) - exact))


# What bitsandbytes' CUDA kernel compares with, ascending; four of them are one unit in the last place
# away from the midpoints of the levels, because each decimal was rounded to f64 before.
THRESHOLDS = np.array([literal(text) for text in (
    "-0.8480964004993439 -0.6106329262256622 -0.4599952697753906 -0.33967943489551544 -0.23460740596055984 "
    "-0.13791173323988914 -0.045525018125772476 0.03979014977812767 0.1202552504837513 0.2035212516784668 "
    "0.2920137718319893 0.3893125355243683 0.5016634166240692 0.6427869200706482 0.8614784178118011").split()], F32)
LEVELS = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], F32)


def nested_map():
    """The signed dynamic map: 7 decades, each with twice the points of the one below."""
    # linspace with a fused multiply-add: the product of two f32 is exact in f64, one rounding follows.
    fma = lambda a, b, c: F32(np.float64(a) * np.float64(b) + np.float64(c))
    values = [F32(0), F32(1)]
    for i in range(7):
        n = 2**i + 1
        step = F32((F32(1) - F32(0.1)) / F32(n - 1))
        b = [fma(step, F32(k), F32(0.1)) if k < n // 2 else fma(-step, F32(n - 1 - k), F32(1)) for k in range(n)]
        for lo, hi in zip(b, b[1:]):
            m = F32(F32((lo + hi) / F32(2)) * F32(10.0 ** (i - 6)))
            values += [m, -m]
    return np.sort(np.array(values, F32))


def pack(codes):
    """First code in the high nibble; an odd last one is followed by the code of a zero weight."""
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(7))
    return (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)


def encode_blocks(weights):
    """(codes (n), absmax (blocks)): x = w * (1/absmax) in f32, code = how many thresholds lie strictly below x."""
    n = len(weights)
    padded = np.zeros(-(-n // 64) * 64, F32)
    padded[:n] = weights
    blocks = padded.reshape(-1, 64)
    absmax = np.abs(blocks).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = blocks * (F32(1) / absmax)[:, None]  # an all-zero block gives NaN, above no threshold: code 0
        codes = (x[:, :, None] > THRESHOLDS).sum(axis=2).astype(np.uint8)
    return codes.reshape(-1)[:n], absmax


def encode_nested(absmax, code_map):
    """Nearest entry of the map per value, by block of 256. The caller's values must not lie on a midpoint."""
    offset = F32(absmax.astype(np.float64).mean())
    codes, second = np.zeros(len(absmax), np.uint8), []
    for begin in range(0, len(absmax), 256):
        shifted = absmax[begin : begin + 256] - offset
        second.append(np.abs(shifted).max())
        x = shifted * (F32(1) / second[-1])
        midpoints = (code_map[:-1] + code_map[1:]) * F32(0.5)
        assert not np.isin(x, midpoints).any(), "a tie: its code depends on the search"
        codes[begin : begin + 256] = (x[:, None] > midpoints).sum(axis=1)
    return offset, codes, np.array(second, F32)


def dequantize(codes, n, absmax, nested):
    """By bitsandbytes. nested: None or (nested_codes, map, offset), absmax then is the second level."""
    import torch
    from bitsandbytes import functional as bnb

    tensor = lambda a: torch.from_numpy(np.array(a))
    state = bnb.QuantState(absmax=tensor(absmax), shape=torch.Size([1, n]), code=tensor(LEVELS), blocksize=64,
                           quant_type="nf4", dtype=torch.float32)
    if nested:
        nested_codes, code_map, offset = nested
        state.state2 = bnb.QuantState(absmax=tensor(absmax), code=tensor(code_map), blocksize=256, dtype=torch.float32)
        state.absmax, state.offset, state.nested = tensor(nested_codes), torch.tensor(offset), True
    return bnb.dequantize_4bit(tensor(codes).reshape(-1, 1), state).reshape(-1).numpy()


def make_nf4_decode(about):
    rng = np.random.default_rng(2)
    n = 64 * 300 - 27  # odd, the last block is not full, and two second-level blocks
    blocks = 300
    codes = rng.integers(0, 256, (n + 1) // 2, dtype=np.uint8)
    codes[:64] = np.arange(64) * 4  # some order among the chance
    absmax = np.abs(rng.normal(0, 0.05, blocks)).astype(F32)
    absmax[:6] = [0.0, 1.0, 1e-38, 3e38, 1e-42, 0.1]
    code_map = nested_map()
    nested_codes = rng.integers(0, 256, blocks, dtype=np.uint8)
    nested_codes[:4] = [0, 127, 255, 128]
    second = np.array([0.07, 0.013], F32)
    offset = F32(0.0612)
    for name, scale, nested in (("single", absmax, None), ("double", second, (nested_codes, code_map, offset))):
        values = dequantize(codes, n, scale, nested)
        # The definition, in numpy, must give the same bits.
        per_block = scale if nested is None else code_map[nested_codes] * second[np.arange(blocks) // 256] + offset
        nibbles = np.stack([codes >> 4, codes & 15], axis=1).reshape(-1)[:n]
        expected = LEVELS[nibbles] * per_block[np.arange(n) // 64]
        # The f32 product of 1e-42 is subnormal: torch may flush it. The definition does not.
        normal = np.abs(expected) >= np.finfo(F32).tiny
        assert np.array_equal(values[normal].view(np.uint32), expected[normal].view(np.uint32)), name
        assert np.abs(values[~normal]).max() <= np.finfo(F32).tiny
        values = np.where(normal, values, expected)
        # Values of all blocks would be most of the file: the edges, the second-level border and the end are enough.
        ranges = [(0, 640), (33 * 64 - 5, 33 * 64 + 6), (255 * 64, 257 * 64), (n - 101, n)]
        write(ROOT / "nf4" / f"decode_{name}.bin", b"rungnf41", raw(about), i64(n), raw(codes.tobytes()), f32s(scale),
              raw(nested_codes.tobytes() if nested else b""), f32s(code_map if nested else []), f32(offset if nested else 0),
              i64(len(ranges)), *(i64(b) + f32s(values[b:e]) for b, e in ranges))


def tie_block(first):
    """64 weights of maximum 1, so that x = w: thresholds and levels with their neighbours."""
    w = []
    for t in THRESHOLDS[first : first + 8]:
        w += [t, np.nextafter(t, F32(2)), np.nextafter(t, F32(-2))]
    for level in LEVELS[first : first + 8]:
        w += [level, np.nextafter(level, F32(0)), -level, F32(0.0)]
    w = np.array(w + [F32(-0.0)] * 64, F32)[:63]
    return np.append(w, F32(-1.0 if first else 1.0))


def compare_with_cpu(weights, codes, absmax):
    """bitsandbytes' CPU code rounds at the midpoints: equal to the CUDA rule away from them."""
    import torch
    from bitsandbytes import functional as bnb

    n = len(weights) // 64 * 64
    packed, state = bnb.quantize_4bit(torch.from_numpy(weights[:n].reshape(1, -1).copy()), blocksize=64, quant_type="nf4",
                                      compress_statistics=False, quant_storage=torch.uint8)
    packed = packed.reshape(-1).numpy()
    theirs = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
    assert np.array_equal(state.absmax.numpy(), absmax[: n // 64])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = weights[:n] * np.repeat(F32(1) / absmax[: n // 64], 64)
    away = np.abs(x[:, None] - THRESHOLDS).min(axis=1) > 3e-7  # NaN, of all-zero blocks, compares false
    assert np.array_equal(theirs[away], codes[:n][away])
    print(f"  nf4: {n} weights, {int((~away).sum())} at thresholds or in zero blocks, "
          f"{int((theirs != codes[:n]).sum())} codes differ from bitsandbytes' CPU rule")


def make_nf4_encode(about):
    rng = np.random.default_rng(3)
    weights = rng.normal(0, 0.05, 64 * 16 + 37).astype(F32)  # the last block is not full, n is odd
    weights[:64], weights[64:128] = tie_block(0), tie_block(7)
    weights[128:192] = 0
    weights[192:256] = np.where(np.arange(64) % 2, F32(0.0), F32(-0.0))
    weights[256:320] *= F32(1e-30)
    weights[320:384] *= F32(1e30)
    weights[384:448] = F32(0.3)
    codes, absmax = encode_blocks(weights)
    compare_with_cpu(weights, codes, absmax)
    write(ROOT / "nf4" / "encode_single.bin", b"rungnf42", raw(about), i64(len(weights)), u32s([]), f32s(weights),
          raw(pack(codes).tobytes()), f32s(absmax), raw(b""), f32(0))

    # Two second-level blocks need 260 blocks: each is one weight and zeros, and only the weights are stored.
    # Maxima are multiples of 2^-16 and their sum stays below 2^24 of these: the mean is exact in any order.
    blocks = 260
    maxima = (rng.integers(640, 14400, blocks) / 65536).astype(F32)
    maxima[-1] += F32((-(maxima.astype(np.float64).sum() * 65536) % blocks) / 65536)  # the sum divides by 260
    weights = np.zeros(blocks * 64, F32)
    weights[np.arange(blocks) * 64 + rng.integers(0, 64, blocks)] = maxima * rng.choice([F32(1), F32(-1)], blocks)
    codes, absmax = encode_blocks(weights)
    assert np.array_equal(absmax, maxima)
    compare_with_cpu(weights, codes, absmax)
    offset, nested_codes, second = encode_nested(absmax, nested_map())
    assert float(offset) == maxima.astype(np.float64).mean()
    compare_nested_with_cpu(absmax, offset, nested_codes, second)
    sparse = np.flatnonzero(weights)
    write(ROOT / "nf4" / "encode_double.bin", b"rungnf42", raw(about), i64(len(weights)), u32s(sparse), f32s(weights[sparse]),
          raw(pack(codes).tobytes()), f32s(second), raw(nested_codes.tobytes()), f32(offset))


def compare_nested_with_cpu(absmax, offset, nested_codes, second):
    """The CPU code of bitsandbytes searches a table of bins: one step off at most, and never nearer."""
    import torch
    from bitsandbytes import functional as bnb

    code_map = nested_map()
    theirs_map = bnb.create_dynamic_map(signed=True).numpy()
    print(f"  nf4: nested map differs from bitsandbytes' own in {int((theirs_map != code_map).sum())} of 256 values, "
          f"by {np.abs(theirs_map - code_map).max():.1e} at most")
    assert np.abs(theirs_map - code_map).max() < 1e-7
    theirs, state = bnb.quantize_blockwise(torch.from_numpy(absmax - offset), code=torch.from_numpy(code_map), blocksize=256)
    assert np.array_equal(state.absmax.numpy(), second)
    step = theirs.numpy().astype(int) - nested_codes
    assert np.abs(step).max() <= 1, step
    x = (absmax - offset) / np.repeat(second, 256)[: len(absmax)]
    assert (np.abs(code_map[nested_codes] - x) <= np.abs(code_map[theirs.numpy()] - x) + 1e-7).all()


def gguf_version():
    from importlib.metadata import version

    return version("gguf")


def main():
    import bitsandbytes
    import torch

    make_gguf_formats()
    about = (f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
             "tools/make_format_golden.py").encode()
    make_nf4_decode(about)
    make_nf4_encode(about)


if __name__ == "__main__":
    main()
