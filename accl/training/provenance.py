"""Record what a result depends on: code, packages, machine, data and model."""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("accl", "torch", "transformers", "tokenizers", "sentencepiece", "numpy", "duckdb", "safetensors")


@dataclass(frozen=True)
class DataProvenance:
    """Where the questions come from.

    Attributes:
        folder: absolute path of local questions; empty elsewhere.
        fingerprint: hash of all questions. parts: questions of each part of the source. splits: of each split made.
        tasks: number of tasks K. tokens: hash of all questions in the order in which they are split, as token ids.
    """

    source: str
    folder: str
    revision: str
    fingerprint: str
    parts: dict[str, int]
    splits: dict[str, int]
    tasks: int
    tokens: str


@dataclass(frozen=True)
class ModelProvenance:
    """Which network is trained.

    Attributes:
        parameters: number of them, encoder and heads. shapes: hash of their names and shapes.
        encoder: settings of the encoder that change what it computes. tokenizer: fingerprint of the tokenizer.
    """

    name: str
    revision: str
    description: str
    pretrained: bool
    parameters: int
    shapes: str
    encoder: dict[str, Any]
    tokenizer: str


@dataclass(frozen=True)
class Provenance:
    """Data, model, fixed task weights (their hash) and device of a run, as they stand in ``provenance.json``."""

    data: DataProvenance
    model: ModelProvenance
    curriculum: dict[str, str]
    device: dict[str, str | int]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, for ``provenance.json``."""
        return asdict(self)


def digest(*parts: bytes) -> str:
    """Return 16 hex digits that equal bytes share."""
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def environment() -> dict[str, Any]:
    """Return interpreter, operating system and the versions of the packages that numbers depend on."""
    packages: dict[str, str] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # a copy of the source tree that was not installed
            packages[name] = ""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "packages": packages,
    }
