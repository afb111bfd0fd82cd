"""safetensors files whose bytes depend on the values alone: the library writes metadata in a random order."""

import json
import os
import struct

from safetensors.torch import save


def save_golden(tensors, path, metadata):
    """Tensors with the metadata sorted by key."""
    data = save(tensors)
    (length,) = struct.unpack_from("<Q", data)
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    os.chmod(path, 0o644)
