"""Writing safetensors files: synced to disk, and with the checksum of what was written.

The library's own writer copies all tensors first, leaves the hashing to a second pass over the file, and says that a
disk is full in prose. The format is its 8-byte length, a JSON header, and the tensors one after another
(https://huggingface.co/docs/safetensors); reading stays the library's, which checks all of that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accl.store.manifest import Entry

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Entry:
    """Write tensors of any device, one at a time, and sync the file.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    # Widest first, as the format wants it: every tensor then lies at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = (_bytes(tensor) for _, tensor in ordered)
    return write_synced(path, chain([len(text).to_bytes(8, "little"), text], values))


class HostCopies:
    """Copies of tensors in the host's memory, which is used anew for each set: from a GPU at the speed of its bus."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Tensor] = {}

    def take(self, files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return copies of the tensors of some files, in the place of those that were taken before."""
        copies = {
            file: {name: self._copy((file, name), tensor.detach()) for name, tensor in tensors.items()}
            for file, tensors in files.items()
        }
        if any(tensor.is_cuda for tensors in files.values() for tensor in tensors.values()):
            torch.cuda.current_stream().synchronize()
        return copies

    def _copy(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        held = self._held.get(key)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            # Only into pinned memory is a copy asynchronous.
            held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._held[key] = held
        return held.copy_(tensor, non_blocking=True)


def write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> Entry:
    """Write bytes to a new file and sync it to disk.

    Raises:
        OSError: the file exists or cannot be written, as on a full disk.
    """
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
        return Entry(file.tell(), digest.hexdigest())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
