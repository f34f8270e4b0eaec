"""Which way a run computes its steps, and why not a faster one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.data import hub
from accl.data.sampler import Draw
from accl.errors import ConfigError
from accl.kernels.cpu import native, rows
from accl.method.model import ModelOutput
from accl.training.backends.cpu import RowsPath
from accl.training.backends.cudagraph import GraphedPath, UncapturableError
from accl.training.backends.reference import EagerPath
from accl.training.setup import Workbench

NO_GPU = "it needs an NVIDIA GPU"


class StepPath(Protocol):
    """A way to compute optimizer steps; `EagerPath` documents each member."""

    name: str
    optimizer: torch.optim.Optimizer

    def warm_up(self, progress: Callable[[int, int], None]) -> None: ...

    def settle(self) -> None: ...

    def refresh(self) -> None: ...

    def step(self, step: int, draw: Draw, rate: float) -> Tensor: ...

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput: ...


def choose(bench: Workbench, progress: Callable[[int, int], None]) -> tuple[StepPath, str]:
    """The path that ``train.backend`` names, or the fastest that can be taken, warmed up; and why not a faster one.

    Args:
        progress: told how much of how much of the warm-up is done.

    Raises:
        ConfigError: the path named cannot be taken.
    """
    wanted = bench.config.train.backend
    why: list[str] = []
    # A captured step keeps the mode that it was captured in, and transformers loads encoders with dropout off.
    bench.model.train()
    for name, (obstacle, make) in PATHS.items():
        if wanted not in ("auto", name):
            continue
        reason = obstacle(bench)
        if reason is None:
            try:
                path = make(bench)
                path.warm_up(progress)
            except UncapturableError as error:
                reason = str(error)
            else:
                return path, "as asked for by train.backend" if wanted != "auto" else "; ".join(why)
        if wanted != "auto":
            raise ConfigError(f"train.backend={wanted} cannot be taken: {reason}.", "Try: --set train.backend=auto")
        why.append(f"not {name}: {reason}")
    raise AssertionError("reference is always there")


def _fast(bench: Workbench) -> StepPath:
    from accl.training.backends.packed import FastPath

    return FastPath(bench)


def _why_not_fast(bench: Workbench) -> str | None:
    config: Any = bench.model.encoder.config
    if (reason := _why_not_graphed(bench)) is not None:
        return reason
    if config.model_type != "deberta-v2":
        return f"its layers are DeBERTa-v2's and -v3's, and the encoder is {config.model_type}"
    # Triton comes with torch's builds for GPUs only.
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    from accl.kernels.triton.parameters import unsupported

    return unsupported(config)


def _why_not_graphed(bench: Workbench) -> str | None:
    if bench.placement.device.type != "cuda":
        return NO_GPU
    return "train.deterministic=true holds for the reference only" if bench.config.train.deterministic else None


def _why_not_rows(bench: Workbench) -> str | None:
    if bench.placement.device.type != "cpu":
        return "it is for the CPU"
    return rows.unsupported(bench.model.encoder.config) or native.obstacle(hub.cache_folder())


# Fastest first: why each cannot be taken (None: it can), and how it is made.
PATHS: dict[str, tuple[Callable[[Workbench], str | None], Callable[[Workbench], StepPath]]] = {
    "packed": (_why_not_fast, _fast),
    "cudagraph": (_why_not_graphed, GraphedPath),
    "cpu": (_why_not_rows, RowsPath),
    "reference": (lambda _: None, EagerPath),
}
