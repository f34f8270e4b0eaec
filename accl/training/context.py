"""Inputs and state of a training step: everything that `accl.training.setup.build_context` puts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accl.config import Config
from accl.data.questions import Question
from accl.data.sampler import TaskSampler
from accl.data.subjects import Subject
from accl.data.tokens import Assembler, TokenBlob
from accl.method.contrastive import MemoryBank
from accl.method.model import ContrastiveCurriculumModel
from accl.training.curriculum import CurriculumState
from accl.training.device import Placement
from accl.training.provenance import Provenance


@dataclass(frozen=True)
class Notice:
    """An event that a user should know of: a fallback that is taken, a setting that has no effect."""

    level: Literal["info", "warning"]
    kind: str
    message: str


@dataclass
class TrainingContext:
    """Data, model and method of one run. Backends read it; none of them changes it.

    Attributes:
        positions: by split name, where its questions stand among all tokenised ones.
        baselines: accuracy of each trivial rule by ``split/rule`` (`accl.data.trivial_baselines`).
        bank_start: the first step after which the contrastive loss sees the memory bank.
        notices: what the user should be told before the first step.
    """

    config: Config
    subjects: tuple[Subject, ...]
    questions: list[Question]
    positions: dict[str, NDArray[np.int64]]
    baselines: dict[str, float]
    blob: TokenBlob
    assembler: Assembler
    sampler: TaskSampler
    placement: Placement
    model: ContrastiveCurriculumModel
    bank: MemoryBank | None
    bank_start: int
    curriculum: CurriculumState
    steps_per_epoch: int
    total_steps: int
    provenance: Provenance
    notices: list[Notice]

    @property
    def tasks(self) -> int:
        """Number of tasks K."""
        return len(self.subjects)

    @property
    def questions_per_step(self) -> int:
        """Questions of a batch, auxiliary ones included."""
        return self.config.train.batch_size + self.sampler.auxiliary_questions

    def enable_bank(self, step: int) -> None:
        """Let the contrastive loss see the memory bank from the step after ``bank_start`` on."""
        if self.bank is not None and self.bank.enabled != (step > self.bank_start):
            self.bank.enable(step > self.bank_start)
