"""Adaptive Contrastive Curriculum Learning on MMLU, managed from a terminal; `runs` and `load` read runs from Python.

The names of `accl.api` are imported when they are used, so that ``import accl`` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accl.api import Run, Runs, load, runs

__version__ = "0.1.0"
__all__ = ["Run", "Runs", "__version__", "load", "runs"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("accl.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
