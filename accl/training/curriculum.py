"""The curriculum of a run: statistics of the tasks, and the weights that the next batch is drawn by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.config import Curriculum
from accl.config.weights import read_weights
from accl.data.fit import order_weights
from accl.method.confusion import PrototypeConfusion, TaskConfusion, accumulate, membership, pair_sums
from accl.method.contrastive import uncertainty_weights
from accl.method.curriculum import PolicyParams, TaskStats, load_policy, uniform
from accl.method.model import ModelOutput
from accl.method.statistics import TaskStatistics, draw_shares
from accl.training.provenance import digest

# Updates of the curriculum after which an observation counts half: enough that most of the K (K - 1) / 2 pairs are
# observed within them, few enough to follow an encoder that learns.
HALF_LIFE_UPDATES = 5
# Likewise for the fast loss of `learning_progress`.
FAST_HALF_LIFE_UPDATES = 1


class CurriculumState:
    """Task weights in force, and the statistics that they are made from.

    Every policy tracks all statistics, so that the matrices of every arm can be looked at and all arms cost the same.
    ``similarity`` and ``prototype`` are computed from the encoder's features, which the contrastive loss does not push
    apart directly; ``literal`` is as published: raw sums over the contrastive embeddings that are never forgotten.

    Args:
        names: names of the K tasks. questions_K: training questions of each. features: width of the encoder, D.
        places: distinct tasks of a batch; None where questions are drawn independently.

    Raises:
        ConfigError: the file of weights cannot be read, or does not fit the tasks.
    """

    def __init__(
        self,
        config: Curriculum,
        names: Sequence[str],
        questions_K: NDArray[np.int64],
        steps_per_epoch: int,
        features: int,
        places: int | None,
        device: torch.device,
    ) -> None:
        self.config = config
        self._policy = load_policy(config.policy)
        self._params = PolicyParams(config.temperature, config.epsilon, self._policy.parameter)
        self._questions_K = torch.from_numpy(questions_K)
        self._places = places
        tasks, half_life = len(names), float(HALF_LIFE_UPDATES * config.update_every)
        self.similarity = TaskConfusion(tasks, half_life)
        self.literal = TaskConfusion(tasks, None)
        self.prototype = PrototypeConfusion(tasks, features, half_life)
        self.statistics = TaskStatistics(
            tasks,
            half_life=half_life,
            fast_half_life=float(FAST_HALF_LIFE_UPDATES * config.update_every),
            gain_half_life=HALF_LIFE_UPDATES,
        )
        self.state = nn.ModuleDict(
            {
                "similarity": self.similarity,
                "literal": self.literal,
                "prototype": self.prototype,
                "statistics": self.statistics,
            }
        ).to(device)
        """Buffers that a checkpoint has to keep, beside the weights."""
        self._index_K = torch.arange(tasks, device=device)
        steps = config.warmup_steps
        self.warmup_steps = round(config.warmup_epochs * steps_per_epoch) if steps is None else steps
        self._fixed_K: Tensor | None = None
        if config.weights_file is not None:
            path = Path(config.weights_file)
            self._fixed_K = torch.from_numpy(order_weights(read_weights(path), path, names, questions_K))
        self.weights: NDArray[np.float64] = (
            uniform(tasks) if self._policy.updates_needed else self._compute_weights()
        ).numpy()

    @property
    def fixed_weights(self) -> str:
        """Hash of the task weights of ``curriculum.weights_file``; empty without one."""
        return "" if self._fixed_K is None else digest(self._fixed_K.numpy().tobytes())

    @torch.no_grad()
    def observe(self, output: ModelOutput, answer_B: Tensor, task_B: Tensor) -> None:
        """Add a batch, without leaving the device."""
        # Equal to an `observe` of each tracker, but computes what they share once.
        member_BK = membership(task_B, self._index_K)
        features_BD = F.normalize(output.features_BD.float(), dim=-1)
        similarity_KK, literal_KK, count_KK = pair_sums([features_BD, output.z_BE.float()], member_BK)
        logits_BC = output.logits_BC.float()
        loss_B = F.cross_entropy(logits_BC, answer_B, reduction="none")
        additions = (
            self.similarity.additions(similarity_KK, count_KK),
            self.literal.additions(literal_KK, count_KK),
            self.prototype.additions(features_BD, member_BK),
            self.statistics.additions(loss_B, uncertainty_weights(logits_BC), member_BK, logits_BC.shape[-1]),
        )
        accumulate(chain.from_iterable(additions))

    def inactive_reason(self, total_steps: int) -> str | None:
        """Return why the policy never acts in a run of so many steps; None if it does, or has no update (uniform)."""
        needed = self._policy.updates_needed
        if not needed:
            return None
        if len(self.weights) == 1:
            return "there is one task only"
        if self._policy.uses_epsilon and self.config.epsilon == 1:
            return "curriculum.epsilon=1 leaves it nothing"
        every = self.config.update_every
        first = max(-(-self.warmup_steps // every), needed) * every
        if first < total_steps:
            return None
        if self.warmup_steps >= total_steps:
            key = "warmup_epochs" if self.config.warmup_steps is None else "warmup_steps"
            return f"its warm-up lasts {self.warmup_steps} steps and the run {total_steps}; lower curriculum.{key}"
        return f"its first update is due at step {first} and the run lasts {total_steps}; lower curriculum.update_every"

    def should_update(self, step: int) -> bool:
        """Return whether an update follows ``step``, as it does every ``update_every`` steps."""
        return step % self.config.update_every == 0

    def update(self, step: int) -> None:
        """Compute the weights for the steps after ``step``, which are uniform while warming up."""
        p_K = torch.from_numpy(np.where(self._questions_K.numpy() > 0, self.weights, 0.0))
        share_K = draw_shares(p_K / p_K.sum(), self._places)
        if self._index_K.is_cuda:  # pinned, so that the host does not wait for earlier steps
            share_K = share_K.pin_memory().to(self._index_K.device, non_blocking=True)
        self.statistics.advance(share_K)
        if self._policy.updates_needed and step >= self.warmup_steps:
            self.weights = self._compute_weights().numpy()

    def matrices(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return K x K values and K x K counts by kind, on the device in fp32: NaN and 0 where never observed.

        A count is the number of pairs (of questions, for `prototype`) behind a cell, forgetting included, rounded, and
        at least 1 where there is any.
        """
        found = {
            "similarity": (self.similarity.mean(), self.similarity.count_KK),
            "literal": (self.literal.total(), self.literal.count_KK),
            "prototype": (self.prototype.share(), self.prototype.count_KK),
        }
        return {
            kind: (value_KK.float(), torch.where(count_KK > 0, count_KK.round().clamp(min=1), 0))
            for kind, (value_KK, count_KK) in found.items()
        }

    def name(self, step: int) -> str:
        """Return the name of the rule that makes the weights of the steps after ``step``."""
        warming = self._policy.updates_needed > 0 and step < self.warmup_steps
        return f"uniform (warm-up of {self.config.policy})" if warming else self.config.policy

    def _compute_weights(self) -> Tensor:
        statistics = self.statistics
        observed = {
            "similarity_KK": self.similarity.mean(),
            "literal_KK": self.literal.sum_KK,
            "entropy_K": statistics.entropy(),
            "entropy_change_K": statistics.change(),
            "fast_loss_K": statistics.fast_loss(),
            "slow_loss_K": statistics.slow_loss(),
            "gain_K": statistics.gain_K,
            "updates": statistics.updates,
        }
        # One copy for all: the device is idle while the host computes the weights that the next batch is drawn by.
        row = torch.cat([value.double().flatten() for value in observed.values()]).cpu()
        parts = torch.split(row, [value.numel() for value in observed.values()])
        on_host = {name: part.view(observed[name].shape) for name, part in zip(observed, parts, strict=True)}
        updates = float(on_host.pop("updates"))
        stats = TaskStats(**on_host, updates=updates, questions_K=self._questions_K, fixed_K=self._fixed_K)
        return self._policy.compute_weights(stats, self._params)
