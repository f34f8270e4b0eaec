"""Checks that a configuration fits the questions, made by the launcher and again by the training process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.errors import ConfigError


def check_batch(sizes_K: NDArray[np.int64], batch_size: int, questions_per_task: int | None) -> None:
    """Check that there are enough tasks for a batch of distinct ones.

    Args:
        sizes_K: number of training questions of each task.

    Raises:
        ConfigError: a batch wants more distinct tasks than have questions.
    """
    available = int((sizes_K > 0).sum())
    if questions_per_task is None or batch_size // questions_per_task <= available:
        return
    fitting = next(q for q in range(1, batch_size + 1) if batch_size % q == 0 and batch_size <= q * max(available, 1))
    raise ConfigError(
        f"A batch of {batch_size // questions_per_task} tasks x {questions_per_task} questions needs more "
        f"tasks than the {available} with training questions.",
        f"Try: --set sampler.questions_per_task={fitting}, or null for independent draws.",
    )


def check_tasks(sizes_K: NDArray[np.int64], contrastive_weight: float, policy: str) -> None:
    """Check that there are two tasks for what compares tasks: the contrastive loss, and every policy but uniform.

    Raises:
        ConfigError: fewer than two tasks have training questions.
    """
    if (sizes_K > 0).sum() > 1:
        return
    for key, used, instead in (
        ("loss.contrastive_weight", contrastive_weight > 0, "loss.contrastive_weight=0"),
        ("curriculum.policy", policy != "uniform", "curriculum.policy=uniform"),
    ):
        if used:
            what = f"{key} needs questions of two tasks to train on, and the data have those of one only."
            raise ConfigError(what, f"Give questions of more tasks, or train without it: --set {instead}")


def check_length(max_length: int, longest: int | None) -> None:
    """Check ``data.max_length`` against the longest input of the encoder; None: without limit.

    Raises:
        ConfigError: inputs may be longer than the encoder reads.
    """
    if longest is not None and max_length > longest:
        raise ConfigError(
            f"data.max_length={max_length} is more than the {longest} tokens that the encoder reads.",
            f"Try: --set data.max_length={longest}",
        )


def order_weights(
    weights: Mapping[str, float], path: Path, names: Sequence[str], sizes_K: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the weights of a file in the order of the tasks.

    Args:
        path: the file, for messages. names: names of the K tasks. sizes_K: number of training questions of each.

    Raises:
        ConfigError: the weights name an unknown task or lack one, or all weight is on tasks without training questions.
    """
    groups = {
        "unknown": [name for name in weights if name not in names],
        "missing": [name for name in names if name not in weights],
    }
    if any(groups.values()):
        parts = [f"{kind} {', '.join(map(str, group))}" for kind, group in groups.items() if group]
        raise ConfigError(
            f"{path} does not fit the tasks: {'; '.join(parts)}.", "Give every task one weight; 0 is one."
        )
    ordered_K = np.array([weights[name] for name in names], np.float64)
    if not ordered_K[sizes_K > 0].any():
        raise ConfigError(
            f"{path} gives weight only to tasks without training questions.", "Give a weight to a task that has some."
        )
    return ordered_K
