"""The curriculum of a run: watches the confusion of tasks, and says from which weights the next batch is drawn."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from accl.config import Curriculum
from accl.method.confusion import TaskConfusion
from accl.method.curriculum import confusion_policy, seed_literal_policy, uniform
from accl.method.model import ModelOutput

# In updates of the curriculum: an observation counts half after so many. Slow enough that most of the K (K - 1) / 2
# pairs have been seen within it, fast enough to follow an encoder that learns.
HALF_LIFE_UPDATES = 5


class CurriculumState:
    """Weights in force, and the confusion they are made from.

    The confusion is tracked under every policy, because every arm's matrix is to be looked at; only
    `confusion` and `seed_literal` act on it. ``seed_literal`` uses what the method writes: raw sums over the
    contrastive embeddings, never forgotten. Otherwise it is the encoder's features, which the contrastive loss
    does not push apart directly.
    """

    def __init__(self, config: Curriculum, tasks: int, steps_per_epoch: int, device: torch.device) -> None:
        self.config = config
        self.literal = config.policy == "seed_literal"
        half_life = None if self.literal else float(HALF_LIFE_UPDATES * config.update_every)
        self.confusion = TaskConfusion(tasks, half_life).to(device)
        self.warmup_steps = round(config.warmup_epochs * steps_per_epoch)
        self.weights: NDArray[np.float64] = uniform(tasks).numpy()

    def observe(self, output: ModelOutput, task_B: torch.Tensor) -> None:
        """Add a batch. Stays on the device."""
        self.confusion.observe(output.z_BE if self.literal else output.features_BD, task_B)

    def acts_within(self, total_steps: int) -> bool:
        """Whether the weights will ever leave uniform in a run of so many steps."""
        first = -(-max(self.warmup_steps, 1) // self.config.update_every) * self.config.update_every
        return self.config.policy == "uniform" or first < total_steps

    def due(self, step: int) -> bool:
        return step % self.config.update_every == 0

    def update(self, step: int) -> None:
        """Make the weights for the steps after ``step``: uniform while warming up."""
        if self.config.policy == "uniform" or step < self.warmup_steps:
            return
        if self.literal:
            p_K = seed_literal_policy(self.confusion.sum_KK, self.config.temperature)
        else:
            p_K = confusion_policy(self.confusion.mean(), self.config.temperature, self.config.floor)
        self.weights = p_K.cpu().numpy()

    def name(self, step: int) -> str:
        """What the weights of the steps after ``step`` are made by."""
        warming = self.config.policy != "uniform" and step < self.warmup_steps
        return f"uniform (warm-up of {self.config.policy})" if warming else self.config.policy
