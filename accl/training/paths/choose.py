"""Which way a run computes its steps, and why not a faster one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.data.sampler import Draw
from accl.errors import ConfigError
from accl.method.model import ModelOutput
from accl.training.paths.eager import EagerPath
from accl.training.setup import Workbench


class StepPath(Protocol):
    """A way to compute optimizer steps; `EagerPath` documents each member."""

    name: str
    optimizer: torch.optim.Optimizer

    def warm_up(self, progress: Callable[[int, int], None]) -> None: ...

    def refresh(self) -> None: ...

    def step(self, step: int, draw: Draw, rate: float) -> Tensor: ...

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput: ...


def choose(bench: Workbench, progress: Callable[[int, int], None]) -> tuple[StepPath, str]:
    """The path that ``train.path`` names, or the fastest that can be taken, warmed up; and why not a faster one.

    Args:
        progress: told how much of how much of the warm-up is done.

    Raises:
        ConfigError: the path named cannot be taken.
    """
    wanted = bench.config.train.path
    if wanted == "eager":
        return EagerPath(bench), "as asked for by train.path"
    no_fast = why_not_fast(bench)
    if no_fast is None and wanted != "graphed":
        # Triton comes with torch's builds for GPUs only.
        from accl.training.paths.fast import FastPath

        fast = FastPath(bench)
        fast.warm_up(progress)
        return fast, ""
    no_graph = why_not_graphed(bench)
    why = f"not fast: {no_fast}"
    if no_graph is None and wanted != "fast":
        from accl.training.paths.graphed import GraphedPath

        graphed = GraphedPath(bench)
        try:
            graphed.warm_up(progress)
        except RuntimeError as error:
            no_graph = f"the encoder cannot be captured: {str(error).splitlines()[0]}"
            if wanted != "graphed":
                torch.cuda.synchronize()
                return EagerPath(bench), f"{why}; not graphed: {no_graph}"
        else:
            return graphed, why if wanted == "auto" else "as asked for by train.path"
    if wanted != "auto":
        reason = no_fast if wanted == "fast" else no_graph
        raise ConfigError(f"train.path={wanted} cannot be taken: {reason}.", "Try: --set train.path=auto")
    return EagerPath(bench), f"{why}; not graphed: {no_graph}"


def why_not_graphed(bench: Workbench) -> str | None:
    """Why steps cannot be CUDA graphs; None when they can."""
    return None if bench.placement.device.type == "cuda" else "it needs an NVIDIA GPU"


def why_not_fast(bench: Workbench) -> str | None:
    """Why the fast path cannot be taken; None when it can."""
    if bench.placement.device.type != "cuda":
        return "it needs an NVIDIA GPU"
    config: Any = bench.model.encoder.config
    if config.model_type != "deberta-v2":
        return f"its layers are DeBERTa-v2's and -v3's, and the encoder is {config.model_type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    from accl.fast.deberta import unsupported

    return unsupported(config)
