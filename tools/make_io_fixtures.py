#!/usr/bin/env python3
"""Makes tests/data/io/ with the reference packages `gguf` and `safetensors` (pip install gguf safetensors numpy).

The files are committed; run this only to change them: tools/make_io_fixtures.py tests/data/io
"""

import json
import pathlib
import sys

import gguf
import numpy as np
import safetensors


def ramp(*shape, dtype=np.float32):
    """0, 1, 2, ... in the given shape: a value names its position."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def make_gguf(path, alignment):
    w = gguf.GGUFWriter(path, "llama")
    if alignment != 32:
        w.add_custom_alignment(alignment)
    w.add_uint8("v.u8", 200)
    w.add_int8("v.i8", -100)
    w.add_uint16("v.u16", 60000)
    w.add_int16("v.i16", -30000)
    w.add_uint32("v.u32", 4000000000)
    w.add_int32("v.i32", -2000000000)
    w.add_float32("v.f32", 0.5)
    w.add_bool("v.bool", True)
    w.add_string("v.string", "h\u00e4 \U0001f980")
    w.add_uint64("v.u64", 2**64 - 1)
    w.add_int64("v.i64", -(2**63))
    w.add_float64("v.f64", 0.1)
    w.add_array("a.ints", [1, -2, 3])
    w.add_array("a.floats", [0.25, -1.5])
    w.add_array("a.bools", [True, False, True])
    # Tokens are bytes, not text: the middle one is no UTF-8.
    w.add_token_list([b"a", b"\xff\xfe", "\u2581the".encode()])
    w.add_tensor("f32", ramp(3, 5))
    w.add_tensor("f16", ramp(2, 3, 4).astype(np.float16))
    for name in ("Q8_0", "Q4_0", "Q4_1"):
        kind = gguf.GGMLQuantizationType[name]
        w.add_tensor(name.lower(), gguf.quants.quantize(ramp(2, 64) - 60, kind), raw_dtype=kind)
    # K blocks of arbitrary bytes: only their size matters to a reader.
    w.add_tensor("q4_k", ramp(3, 144, dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    w.add_tensor("q6_k", ramp(1, 420, dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    w.add_tensor("i32", ramp(7, dtype=np.int32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_split(folder):
    """Five tensors in three files, as the package cuts them."""
    folder.mkdir(exist_ok=True)
    w = gguf.GGUFWriter(folder / "split.gguf", "llama", split_max_tensors=2)
    w.add_uint32("v.u32", 7)
    for i in range(5):
        w.add_tensor(f"t{i}", ramp(2, 3) + 10 * i)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_type_table(path):
    """number, name, numbers in a block, bytes of a block."""
    rows = [f"{int(t)} {t.name.lower()} {gguf.GGML_QUANT_SIZES[t][0]} {gguf.GGML_QUANT_SIZES[t][1]}"
            for t in gguf.GGMLQuantizationType]
    path.write_text("\n".join(rows) + "\n")


def write_safetensors(path, tensors):
    """tensors: name -> array, or (dtype, array of the same bytes) for dtypes that numpy lacks."""
    arrays = {}  # holds the memory that the specs point to
    specs = {}
    for name, tensor in tensors.items():
        dtype, array = tensor if isinstance(tensor, tuple) else (tensor.dtype.name, tensor)
        arrays[name] = array = np.require(array, requirements="C")
        specs[name] = safetensors.TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data,
                                             data_len=array.nbytes)
    safetensors.serialize_file(specs, path, metadata={"format": "pt"})


def make_safetensors(path):
    bf16 = (ramp(3, 3).view(np.uint32) >> 16).astype(np.uint16)  # small integers are exact in bf16
    write_safetensors(path, {
        "f32": ramp(2, 3),
        "f16": ramp(5).astype(np.float16),
        "bf16": ("bfloat16", bf16),
        "i64": ramp(2, dtype=np.int64),
        "u8": ramp(3, dtype=np.uint8),
        "scalar": np.float32(7.5).reshape(()),
        "empty": np.zeros((0, 4), np.float32),
        "\u00fcml\"aut": np.array([True, False]),
    })


def make_shards(folder):
    folder.mkdir(exist_ok=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_safetensors(folder / names[0], {"a": ramp(4), "b": ramp(3, dtype=np.uint8)})
    write_safetensors(folder / names[1], {"c": ramp(2, 2) + 10})
    index = {"metadata": {"total_size": 35}, "weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    make_gguf(out / "tiny.gguf", 32)
    make_gguf(out / "aligned64.gguf", 64)
    make_split(out / "split")
    make_type_table(out / "ggml_types.txt")
    make_safetensors(out / "tiny.safetensors")
    make_shards(out / "sharded")


if __name__ == "__main__":
    main()
