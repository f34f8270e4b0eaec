"""Which backend computes the steps of a run, and why not a faster one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from accl.data.cache import cache_folder
from accl.errors import ConfigError
from accl.kernels.cpu import encoder, native
from accl.training.backends.backend import StepBackend, UnavailableError
from accl.training.backends.cpu import CpuBackend
from accl.training.backends.cudagraph import CudaGraphBackend
from accl.training.backends.packed_cpu import PackedCpuBackend
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext


def select_backend(context: TrainingContext, progress: Callable[[int, int], None]) -> tuple[StepBackend, str]:
    """Return the backend that ``train.backend`` names, or the fastest one available, prepared; and why not a faster.

    Args:
        progress: called with how many parts of the preparation are done, and how many there are.

    Raises:
        ConfigError: the named backend is not available.
    """
    wanted = context.config.train.backend
    reasons: list[str] = []
    # A captured step keeps the mode that it was captured in, and transformers loads encoders with dropout off.
    context.model.train()
    for name, (unavailable_reason, make) in BACKENDS.items():
        if wanted not in ("auto", name):
            continue
        reason = unavailable_reason(context)
        if reason is None:
            try:
                backend = make(context)
                backend.prepare(progress)
            except UnavailableError as error:
                reason = str(error)
            else:
                return backend, "as asked for by train.backend" if wanted != "auto" else "; ".join(reasons)
        if wanted != "auto":
            raise ConfigError(f"train.backend={wanted} is not available: {reason}.", "Try: --set train.backend=auto")
        reasons.append(f"not {name}: {reason}")
    raise AssertionError("the reference is always available")


def _make_packed(context: TrainingContext) -> StepBackend:
    if context.placement.device.type == "cpu":
        return PackedCpuBackend(context)
    from accl.training.backends.packed import PackedBackend  # imports Triton

    return PackedBackend(context)


def _packed_unavailable(context: TrainingContext) -> str | None:
    config: Any = context.model.encoder.config
    if context.placement.device.type == "cpu":
        return None
    if (reason := _cudagraph_unavailable(context)) is not None:
        return reason
    if config.model_type != "deberta-v2":
        return f"its layers are DeBERTa-v2's and -v3's, and the encoder is {config.model_type}"
    # Triton comes with torch's builds for GPUs only.
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    from accl.kernels.triton.parameters import unsupported

    return unsupported(config)


def _cudagraph_unavailable(context: TrainingContext) -> str | None:
    if context.placement.device.type != "cuda":
        return "it needs an NVIDIA GPU"
    return "train.deterministic=true holds for the reference only" if context.config.train.deterministic else None


def _cpu_unavailable(context: TrainingContext) -> str | None:
    if context.placement.device.type != "cpu":
        return "it is for the CPU"
    return encoder.unsupported(context.model.encoder.config) or native.unavailable_reason(cache_folder())


# Fastest first: why each is not available (None: it is), and how it is made.
BACKENDS: dict[str, tuple[Callable[[TrainingContext], str | None], Callable[[TrainingContext], StepBackend]]] = {
    "packed": (_packed_unavailable, _make_packed),
    "cudagraph": (_cudagraph_unavailable, CudaGraphBackend),
    "cpu": (_cpu_unavailable, CpuBackend),
    "reference": (lambda _: None, ReferenceBackend),
}
