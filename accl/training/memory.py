"""Running out of memory, told in one line with the batch size that would fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from accl.config import Config
from accl.errors import TrainingError
from accl.store.provenance import read_provenance
from accl.store.rundir import RunDir

GIB = 2**30
# Weight, gradient and AdamW's two moments of a parameter, fp32.
BYTES_PER_PARAMETER = 16
# Share of the memory that an estimate counts on: allocators lose some to fragments.
USABLE = 0.95

_GPU = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_HOST = ("can't allocate memory", "not enough memory")
_WANTED = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}


@contextmanager
def memory_errors(run: RunDir, config: Config, runs: int = 1) -> Iterator[None]:
    """Turn a failed allocation on the GPU or the machine into a `TrainingError` that says what to do.

    Args:
        runs: number of runs that share the process, this one among them.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text, size = str(error), config.train.batch_size
        if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _GPU):
            if runs > 1:
                what = f"The GPU's memory ran out with {runs} runs in one process."
                hint = f"Let fewer share a GPU: accl queue add {run.typed} --per-gpu {max(1, runs // 2)}"
                raise TrainingError(what, hint) from error
            raise _gpu_error(run, config, text) from error
        if isinstance(error, MemoryError) or any(words in text for words in _HOST):
            what = f"The machine's memory ran out at train.batch_size={size}."
            raise TrainingError(what, "Try a smaller one, or a smaller encoder.") from error
        raise


@dataclass(frozen=True)
class Usage:
    """Memory of a GPU in bytes when an allocation failed.

    Attributes:
        usable: what this process could have. peak: the most it had at a time. wanted: what it asked for in vain.
        fixed: weights, gradients and moments, which any batch needs.
    """

    usable: int
    peak: int
    wanted: int
    fixed: int


def fitting_batch(size: int, group: int, usage: Usage) -> int:
    """Estimate the batch that fits: ``group`` times the largest power of two, at most half of ``size``; 0 for none.

    What is not `Usage.fixed` grows with the batch. The step that failed would have needed more than is known, so the
    true limit may be lower.
    """
    grows = max(usage.peak + usage.wanted - usage.fixed, 1)
    limit = min(size * (USABLE * usage.usable - usage.fixed) / grows, size / 2)
    fitting = group
    while 2 * fitting <= limit:
        fitting *= 2
    return fitting if 2 <= fitting <= limit else 0


def _gpu_error(run: RunDir, config: Config, text: str) -> TrainingError:
    size, group = config.train.batch_size, config.sampler.questions_per_task or 1
    what = f"The GPU's memory ran out at train.batch_size={size}"
    if (usage := _usage(run, text)) is None:
        what, fitting, how = f"{what}.", size // 2 // group * group, "Half of it may fit"
    else:
        peak, usable, fixed, wanted = (n / GIB for n in (usage.peak, usage.usable, usage.fixed, usage.wanted))
        what += (
            f": {peak:.1f} of {usable:.1f} GiB were in use, {wanted:.1f} more were needed, and the model takes "
            f"{fixed:.1f} whatever the batch."
        )
        fitting, how = fitting_batch(size, group, usage), "By estimate this fits"
    if fitting < 2:
        return TrainingError(what, "No smaller batch would fit: lower data.max_length, or take a smaller encoder.")
    return TrainingError(what, f"{how}: --set train.batch_size={fitting}")


def _usage(run: RunDir, text: str) -> Usage | None:
    """Ask the driver; None where it does not answer, as after some failures."""
    import torch  # here: by the time anything runs out of memory it is loaded

    try:
        free, _ = torch.cuda.mem_get_info()
        usable, peak = free + torch.cuda.memory_reserved(), torch.cuda.max_memory_allocated()
    except (RuntimeError, AssertionError):
        return None
    asked = _WANTED.search(text)
    wanted = int(float(asked[1]) * _UNITS[asked[2]]) if asked else 0
    parameters = read_provenance(run).get("model", {}).get("parameters", 0)
    return Usage(usable, peak, wanted, BYTES_PER_PARAMETER * parameters)
