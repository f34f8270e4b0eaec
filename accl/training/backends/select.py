"""Which backend computes the steps of a run, and why not a faster one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from accl.data.cache import cache_folder
from accl.errors import ConfigError
from accl.kernels.cpu import encoder, native
from accl.kernels.layers import encoders as layers
from accl.training.backends.backend import StepBackend, UnavailableError
from accl.training.backends.cpu import CpuBackend
from accl.training.backends.cudagraph import CudaGraphBackend
from accl.training.backends.packed_cpu import PackedCpuBackend
from accl.training.backends.reference import ReferenceBackend
from accl.training.blueprint import SavedEncoder
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
    for name in _fastest_first(context) if wanted == "auto" else (wanted,):
        unavailable_reason, make = BACKENDS[name]
        _give_layers(context, name)
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


def _fastest_first(context: TrainingContext) -> list[str]:
    """Return the names of all backends; C computes in fp32 faster than torch does, but not than torch in bf16."""
    names = list(BACKENDS)
    if context.placement.device.type == "cpu" and context.placement.autocast is None:
        names.sort(key="cpu".__ne__)
    return names


def _give_layers(context: TrainingContext, backend: str) -> None:
    """Give the model an encoder that can be called, unless the backend only reads the encoder's parameters."""
    encoder = context.model.encoder
    if isinstance(encoder, SavedEncoder) and not (backend == "packed" and _computed_by_hand(context)):
        context.model.encoder = encoder.with_layers()


def _computed_by_hand(context: TrainingContext) -> bool:
    if context.placement.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    from accl.training.backends.packed_encoder import FAMILIES  # imports Triton

    encoder = context.model.encoder
    return any(family.model_types is not None and family.reason(encoder) is None for family in FAMILIES)


def _make_packed(context: TrainingContext) -> StepBackend:
    if context.placement.device.type == "cpu":
        return PackedCpuBackend(context)
    from accl.training.backends.packed import PackedBackend  # imports Triton

    return PackedBackend(context)


def _packed_unavailable(context: TrainingContext) -> str | None:
    encoder, tokens = context.model.encoder, context.assembler.tokens
    if context.placement.device.type == "cpu":
        return layers.unsupported(encoder) or _padding_within_text(encoder, tokens)
    if (reason := _cudagraph_unavailable(context)) is not None:
        return reason
    # Triton comes with torch's builds for GPUs only.
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    from accl.training.backends.packed_encoder import unsupported  # imports Triton

    return unsupported(encoder) or _padding_within_text(encoder, tokens)


def _padding_within_text(encoder: nn.Module, tokens: NDArray[np.int32]) -> str | None:
    """Return which token of the questions the encoder treats as padding: it has no position, and learns nothing."""
    for embedding in (module for module in encoder.modules() if isinstance(module, nn.Embedding)):
        if embedding.padding_idx is not None and (tokens == embedding.padding_idx).any():
            return f"the encoder takes token {embedding.padding_idx}, which questions have, for padding"
    return None


def _cudagraph_unavailable(context: TrainingContext) -> str | None:
    if context.placement.device.type != "cuda":
        return "it needs an NVIDIA GPU"
    return "train.deterministic=true holds for the reference only" if context.config.train.deterministic else None


def _cpu_unavailable(context: TrainingContext) -> str | None:
    if context.placement.device.type != "cpu":
        return "it is for the CPU"
    return encoder.unsupported(context.model.encoder.config) or native.unavailable_reason(cache_folder())


# Fastest first on a GPU: why each is not available (None: it is), and how it is made.
BACKENDS: dict[str, tuple[Callable[[TrainingContext], str | None], Callable[[TrainingContext], StepBackend]]] = {
    "packed": (_packed_unavailable, _make_packed),
    "cudagraph": (_cudagraph_unavailable, CudaGraphBackend),
    "cpu": (_cpu_unavailable, CpuBackend),
    "reference": (lambda _: None, ReferenceBackend),
}
