#!/usr/bin/env python3
"""Writes the golden files of the weight formats: stored bytes and the f32 values they mean.

tests/data/format/<format>.bin   GGUF's formats except f32, values by gguf.quants.dequantize
  char[8] "rungfmt1", string about, i64 rows, i64 cols, bytes data, f32 values[rows*cols]

tests/data/format/encode.bin   bytes by gguf.quants.quantize
  char[8] "rungfmt2", string about, i64 groups, then per group: f32s weights, i64 formats, then per format:
  string name, bytes data

tests/data/format/tiles.bin   f8_e4m3 by torch.float8_e4m3fn, int4 by numpy
  char[8] "rungfmt3", string about, i64 cases, then per case: string format, i64 rows, i64 cols, bytes data,
  i64 tile_rows, i64 tile_cols, i64 groups, f32s scale, bytes zero, u32s index, f32 values[rows*cols]
  Without scales, zeros or an index these are empty.

tests/data/nf4/decode_single.bin, decode_double.bin   values by bitsandbytes.functional.dequantize_4bit
tests/data/nf4/fp4_single.bin, fp4_double.bin         the same of fp4
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


def superblocks(rng, count, block_bytes, scale_at):
    """(count, block_bytes) u8 by chance, with f16 scales at the given bytes."""
    data = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    data[0], data[1], data[2] = 0x00, 0xFF, 0x80
    for turn, at in enumerate(scale_at):
        data[:, at : at + 2] = np.roll(scales(rng, count), 5 * turn).view(np.uint8).reshape(count, 2)
    return data


def mxfp4_blocks(rng, count):
    data = rng.integers(0, 256, (count, 17), dtype=np.uint8)
    data[:, 0] = rng.integers(110, 130, count)
    data[:8, 0] = [0, 1, 2, 3, 127, 253, 254, 255]
    data[:8, 1:] = np.arange(16) * 17
    return data


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
    cases["q5_0"] = types.Q5_0, blocks_with_scales(rng, count, 20, 1)
    cases["q5_1"] = types.Q5_1, blocks_with_scales(rng, count, 20, 2)
    cases["iq4_nl"] = types.IQ4_NL, blocks_with_scales(rng, count, 16, 1)
    cases["mxfp4"] = types.MXFP4, mxfp4_blocks(rng, count)
    for name, block_bytes, scale_at in (("q2_k", 84, (80, 82)), ("q3_k", 110, (108,)), ("q4_k", 144, (0, 2)),
                                        ("q5_k", 176, (0, 2)), ("q6_k", 210, (208,)), ("iq4_xs", 136, (0,))):
        kind = types[name.upper()]
        assert gguf.GGML_QUANT_SIZES[kind] == (256, block_bytes)
        cases[name] = kind, superblocks(rng, 18, block_bytes, scale_at)
    for name, (kind, data) in cases.items():
        data = np.ascontiguousarray(data).reshape(rows, -1)
        source = data.view(np.float16) if name == "f16" else data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = gguf.quants.dequantize(source, kind).astype(F32)
        assert values.shape[0] == rows and not np.isnan(values).any(), name
        write(ROOT / "format" / f"{name}.bin", b"rungfmt1", raw(about), i64(rows), i64(values.shape[1]), raw(data.tobytes()),
              values.astype("<f4").tobytes())


def encode_weights(rng):
    """Blocks of 32 for all encoders, the special ones first. No block has zeros of both signs as its least."""
    blocks = rng.normal(0, 0.02, (64, 32)).astype(F32)
    k = np.arange(32, dtype=F32)
    blocks[0], blocks[1], blocks[2] = 0.0, -0.0, 0.3
    blocks[3], blocks[3, 7] = 0.0, -1.5
    blocks[4, 3], blocks[4, 20] = 1.0, -1.0  # two of largest magnitude: the first counts
    blocks[5, 3], blocks[5, 20] = -1.0, 1.0
    blocks[6] = np.append(k[:31] * 4 - 61.5, F32(127))  # halves of q8_0
    blocks[7] = -np.append(k[:31] * 4 - 61.5, F32(127))
    blocks[8] = np.append(k[:31] / 2 - 7.5, F32(-8))  # halves of q4_0
    blocks[9] = np.append(k[:31] / 2 - 7.5, F32(8))
    blocks[10] = np.append(k[:31] - 15.5, F32(-16))  # of q5_0
    blocks[11] = np.minimum(k / 2, F32(15)) + 1  # of q4_1
    blocks[12] = np.append(k[:31] + 0.5, F32(0)) - 0.25  # of q5_1
    blocks[13] = np.append([F32(m) for m in (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)] * 4, [F32(x) for x in (6, 4, 7.9, -5)])
    blocks[14] = -blocks[13]
    blocks[15], blocks[16] = blocks[13] * F32(2.0**-130), blocks[13] * F32(2.0**100)
    for i, power in enumerate((-100, -20, -5, -1, 0, 1, 5, 20)):  # about powers of two, and down from them
        blocks[17 + i] = rng.normal(0, 0.2, 32).clip(-0.9, 0.9) * 2.0**power
        blocks[17 + i, 5] = np.nextafter(F32(2.0**power), F32(0 if i % 2 else 1e38))
    for i, size in enumerate((1e-4, 1e-6, 1e-8, 1e-30, 1e-37, 1e-38, 1e-40, 1e-44, 1e3, 6e4)):
        blocks[25 + i] = rng.uniform(-size, size, 32).astype(F32)
    blocks[35], blocks[36] = np.abs(blocks[35]), -np.abs(blocks[36])
    blocks[37, 0] = 65504
    return blocks.reshape(-1)


def make_encoders():
    about = f"gguf {gguf_version()}, numpy {np.__version__}, tools/make_format_golden.py".encode()
    rng = np.random.default_rng(4)
    general = encode_weights(rng)
    bits = rng.integers(0, 2**32, 1024, dtype=np.uint32)
    bits[:512] = (bits[:512] & np.uint32(0x8FFFFFFF)) | np.uint32(0x30000000)  # in reach of f16
    bits[:256] = (bits[:256] & np.uint32(0xFFFFE000)) | np.uint32(0x1000)  # midpoints of f16
    bits[600:700] = (bits[600:700] & np.uint32(0xFFFF0000)) | np.uint32(0x8000)  # of bf16
    plain = bits.view(F32)
    plain = np.where(np.isnan(plain), F32(np.inf), plain)
    plain[1000:1010] = [0, -0.0, np.inf, -np.inf, 65519.996, 65520, -65520, 3.4e38, 2.0**-25, 1.5 * 2.0**-24]
    nan = np.array([0x7F800001, 0xFF800001, 0x7FC00000, 0x7FFFFFFF, 0xFFFF8000, 0x7F80FFFF], np.uint32).view(F32)
    groups = [(general, ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "mxfp4"]),
              (plain, ["f32", "f16", "bf16"]), (nan, ["f32", "bf16"])]
    parts = [b"rungfmt2", raw(about), i64(len(groups))]
    for weights, names in groups:
        parts += [f32s(weights), i64(len(names))]
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = gguf.quants.quantize(weights.reshape(1, -1), gguf.GGMLQuantizationType[name.upper()])
            parts += [raw(name.encode()), raw(data.tobytes())]
    write(ROOT / "format" / "encode.bin", *parts)


def make_tiles():
    import torch

    about = f"torch {torch.__version__}, numpy {np.__version__}, tools/make_format_golden.py".encode()
    rng = np.random.default_rng(5)
    cases = []

    def add(name, data, values, tile=(1, 0, 0), scale=(), zero=b"", index=()):
        rows, cols = values.shape
        cases.append(raw(name.encode()) + i64(rows) + i64(cols) + raw(data.tobytes()) + b"".join(map(i64, tile)) +
                     f32s(np.asarray(scale, F32).reshape(-1)) + raw(zero) + u32s(index) + values.astype("<f4").tobytes())

    def f8(codes):
        return torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float32).numpy()

    every = np.arange(256, dtype=np.uint8).reshape(4, 64)
    add("f8_e4m3", every, f8(every))
    codes = rng.integers(0, 256, (11, 72), dtype=np.uint8)
    codes[(codes & 0x7F) == 0x7F] ^= 1
    # One scale, one a row, and tiles that the edges cut.
    for tile in ((11, 72), (1, 72), (4, 32)):
        groups = -(-72 // tile[1])
        scale = rng.uniform(1e-4, 1e-2, (-(-11 // tile[0]), groups)).astype(F32)
        spread = np.repeat(np.repeat(scale, tile[0], 0)[:11], tile[1], 1)[:, :72]
        add("f8_e4m3", codes, spread * f8(codes), (*tile, groups), scale)

    rows, cols = 7, 96
    codes = rng.integers(0, 16, (rows, cols), dtype=np.uint8)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    for width, with_zero, with_index in ((32, True, False), (40, False, False), (32, True, True), (96, True, False)):
        groups = -(-cols // width)
        scale = (rng.uniform(1e-4, 1e-2, (rows, groups)) * rng.choice([1, -1], (rows, groups))).astype(F32)
        zero = rng.integers(0, 17, (rows, groups), dtype=np.uint8) if with_zero else np.zeros((rows, groups), np.uint8)
        index = rng.permutation(np.arange(cols) // width) if with_index else np.arange(cols) // width
        values = scale[:, index] * (codes.astype(np.int32) - zero[:, index]).astype(F32)
        add("int4", packed, values, (1, width, groups), scale, zero.tobytes() if with_zero else b"",
            index if with_index else ())
    write(ROOT / "format" / "tiles.bin", b"rungfmt3", raw(about), i64(len(cases)), *cases)


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
# E2M1 with its largest at 1, in the order of the codes; code 8 is +0.
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], F32) / F32(12)
LEVELS_OF = {"nf4": LEVELS, "fp4": np.concatenate([FP4, [F32(0)], -FP4[1:]])}


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


def dequantize(kind, codes, n, absmax, nested):
    """By bitsandbytes. kind: "nf4" or "fp4". nested: None or (nested_codes, map, offset), absmax then is the second level."""
    import torch
    from bitsandbytes import functional as bnb

    tensor = lambda a: torch.from_numpy(np.array(a))
    state = bnb.QuantState(absmax=tensor(absmax), shape=torch.Size([1, n]), code=tensor(LEVELS_OF[kind]), blocksize=64,
                           quant_type=kind, dtype=torch.float32)
    if nested:
        nested_codes, code_map, offset = nested
        state.state2 = bnb.QuantState(absmax=tensor(absmax), code=tensor(code_map), blocksize=256, dtype=torch.float32)
        state.absmax, state.offset, state.nested = tensor(nested_codes), torch.tensor(offset), True
    return bnb.dequantize_4bit(tensor(codes).reshape(-1, 1), state).reshape(-1).numpy()


def make_nf4_decode(about, kind, prefix, seed):
    rng = np.random.default_rng(seed)
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
        values = dequantize(kind, codes, n, scale, nested)
        # The definition, in numpy, must give the same bits.
        per_block = scale if nested is None else code_map[nested_codes] * second[np.arange(blocks) // 256] + offset
        nibbles = np.stack([codes >> 4, codes & 15], axis=1).reshape(-1)[:n]
        expected = LEVELS_OF[kind][nibbles] * per_block[np.arange(n) // 64]
        # The f32 product of 1e-42 is subnormal: torch may flush it. The definition does not.
        normal = np.abs(expected) >= np.finfo(F32).tiny
        assert np.array_equal(values[normal].view(np.uint32), expected[normal].view(np.uint32)), name
        assert np.abs(values[~normal]).max() <= np.finfo(F32).tiny
        values = np.where(normal, values, expected)
        # Values of all blocks would be most of the file: the edges, the second-level border and the end are enough.
        ranges = [(0, 640), (33 * 64 - 5, 33 * 64 + 6), (255 * 64, 257 * 64), (n - 101, n)]
        write(ROOT / "nf4" / f"{prefix}_{name}.bin", b"rungnf41", raw(about), i64(n), raw(codes.tobytes()), f32s(scale),
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
    make_encoders()
    make_tiles()
    about = (f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
             "tools/make_format_golden.py").encode()
    make_nf4_decode(about, "nf4", "decode", 2)
    make_nf4_decode(about, "fp4", "fp4", 6)
    make_nf4_encode(about)


if __name__ == "__main__":
    main()
