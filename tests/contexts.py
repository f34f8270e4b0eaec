"""Small training contexts for comparing backends, and what these make of the same questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.config import Config, resolve
from accl.data.architectures import ARCHITECTURES
from accl.data.sampler import Draw
from accl.data.tokenizer import Tokenizer
from accl.data.tokens import Assembler
from accl.method.contrastive import MemoryBank
from accl.training.backends.backend import StepBackend
from accl.training.context import TrainingContext
from accl.training.setup import build_context

WORDS = "encoder.embeddings.word_embeddings.weight"
QUESTIONS = 8
SMALL = (
    *("train.max_steps=200", "train.precision=fp32", f"train.batch_size={QUESTIONS}", "sampler.questions_per_task=2"),
    *("memory_bank.start_step=0", "data.max_length=512"),
)


def no_progress(_done: int, _total: int) -> None:
    """Ignore the progress of a preparation."""


class ContextMaker:
    """Makes small contexts; architectures are changed for the test alone."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(
        self,
        device: str,
        *changed: str,
        model: str = "tiny",
        dropout: float = 0.0,
        long: bool = False,
        **sizes: Any,
    ) -> TrainingContext:
        """Build the demo with an encoder far from its initial weights, where no term of a score is small.

        Args:
            changed: ``key=value``. dropout: in all places. long: texts of up to 500 tokens, not one line.
            sizes: of the architecture.
        """
        shape = {"num_hidden_layers": 2, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self._patch.setitem(ARCHITECTURES, model, ARCHITECTURES[model] | shape | sizes)
        sets = [*SMALL, f"train.device={device}", f"model.name=random:{model}", *changed]
        context = build_context(resolve("full", "demo", sets).config, lambda _: None)
        set_dropout(context, dropout)
        torch.manual_seed(1)
        state = context.model.state_dict()
        for name, value in state.items():
            scale = 0.02 if name == WORDS else 0.08
            state[name] = value + scale * torch.randn(value.shape).to(value.device)
        context.model.load_state_dict(state)
        context.model.train()
        if long:
            lengthen(context)
        return context


def set_dropout(context: TrainingContext, dropout: float) -> None:
    for module in context.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def lengthen(context: TrainingContext) -> None:
    """Give the questions texts as long as MMLU's: mostly short, some of hundreds of tokens."""
    rng, blob = np.random.default_rng(0), context.blob
    length = np.diff(blob.offsets)
    count = len(blob)
    length[:: 1 + blob.choices] = np.where(
        rng.random(count) < 0.3, rng.integers(290, 500, count), rng.integers(1, 50, count)
    )
    offsets = np.concatenate([[0], np.cumsum(length)])
    context.blob = dataclasses.replace(blob, ids=rng.choice(blob.ids, int(offsets[-1])), offsets=offsets)
    old = context.assembler
    context.assembler = Assembler(context.blob, cast(Tokenizer, old), old.head, old.max_length, old.chunk_rows)


class Script:
    """A sampler that gives the same draws whatever the weights; the first one is step 1's."""

    auxiliary_questions = 0

    def __init__(self, draws: Sequence[Draw]) -> None:
        self.draws = draws

    def draw(self, step: int, _weights: NDArray[np.float64]) -> Draw:
        return self.draws[(step - 1) % len(self.draws)]


def script(context: TrainingContext, draws: Sequence[Draw]) -> None:
    """Let the steps of a context learn from these draws."""
    context.sampler = Script(draws)  # type: ignore[assignment]


def some_draws(context: TrainingContext, count: int, longest: int = 512, seed: int = 0) -> list[Draw]:
    """Draw batches from a few tasks' questions, each with its options in another order."""
    rng, train = np.random.default_rng(seed), context.positions["train"][:400]
    pool = train[context.assembler.lengths(train) <= longest]
    choices = np.tile(np.arange(context.blob.choices), (QUESTIONS, 1))
    return [Draw(rng.choice(pool, QUESTIONS, replace=False), rng.permuted(choices, axis=1)) for _ in range(count)]


def bank_of(context: TrainingContext) -> MemoryBank:
    assert context.bank is not None
    return context.bank


def set_rate(context: TrainingContext, rate: float) -> None:
    """Give every step the same learning rate."""
    context.config = with_optim(context.config, lr=rate, schedule="constant", warmup_ratio=0.0)


def with_optim(config: Config, **changed: Any) -> Config:
    # Not validated: a rate of 0 changes no weight, which tests want and configurations refuse.
    return config.model_copy(update={"optim": config.optim.model_copy(update=changed)})


def learn(backend: StepBackend, steps: range) -> dict[str, Tensor]:
    """Take steps; return their metrics by name, one value a step, on the CPU."""
    rows = [backend.step(step) for step in steps]
    return {name: torch.stack([row[name] for row in rows]).cpu() for name in rows[0].names}


def assert_same_metrics(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(
            actual[name],
            values,
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def buffers(context: TrainingContext) -> dict[str, Tensor]:
    """Copy what curriculum and memory bank have accumulated."""
    modules = {"curriculum": context.curriculum.state, "bank": bank_of(context)}
    return {f"{k}.{name}": v.cpu().clone() for k, m in modules.items() for name, v in m.state_dict().items()}


def weights(context: TrainingContext) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in context.model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Compare to the bit; what has not been observed yet is NaN."""
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n], equal_nan=a[n].is_floating_point()) for n in a)
