"""What a result depends on: code, packages, machine, data and model."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("accl", "torch", "transformers", "tokenizers", "sentencepiece", "numpy", "duckdb", "safetensors")


def environment() -> dict[str, Any]:
    """Interpreter, operating system and the versions of the packages that numbers depend on."""
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
