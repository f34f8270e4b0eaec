"""Evaluation: scores by hand calculation, and answers in the order in which they were asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from accl.data.tokenizer import Tokenizer
from accl.data.tokens import Assembler, TokenBlob
from accl.method.model import ModelOutput
from accl.training.evaluate import Evaluated, evaluate


def evaluated(probabilities: Any, gold: Sequence[int], task: Sequence[int] | None = None) -> Evaluated:
    n = len(gold)
    empty = np.zeros((2, 2))
    return Evaluated(
        questions=np.arange(n),
        task=np.asarray(task if task is not None else [0] * n),
        gold=np.asarray(gold),
        probabilities=np.asarray(probabilities, float),
        similarity=empty,
        pairs=empty.astype(np.int64),
        prototype=empty,
        assigned=empty.astype(np.int64),
        neighbours=[],
    )


# Scores ------------------------------------------------------------------------------------------

FOUR = evaluated(
    [[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7], [0.25, 0.5, 0.15, 0.1]],
    [0, 1, 3, 0],
    [0, 0, 0, 1],
)


def test_accuracy_counts_questions_and_macro_accuracy_counts_tasks() -> None:
    assert FOUR.predicted.tolist() == [0, 0, 3, 1]
    assert FOUR.metric("accuracy") == 2 / 4
    assert FOUR.per_task() == [(0, 3, 2), (1, 1, 0)]
    assert FOUR.metric("macro_accuracy") == pytest.approx((2 / 3 + 0) / 2)


def test_tasks_without_questions_do_not_count() -> None:
    found = evaluated([[0.9, 0.1], [0.2, 0.8]], [0, 0], [4, 2])
    assert found.per_task() == [(2, 1, 0), (4, 1, 1)]
    assert found.metric("macro_accuracy") == 0.5


def test_brier_score_agrees_with_a_calculation_by_hand() -> None:
    # 0.09 + 3 * 0.01 twice; 0.16 + 0.49 + 0.04 + 0.01; 0.5625 + 0.25 + 0.0225 + 0.01
    assert FOUR.metric("brier") == pytest.approx((0.12 + 0.70 + 0.12 + 0.845) / 4)


@pytest.mark.parametrize(("row", "expected"), [([1, 0, 0], 0.0), ([0, 1, 0], 2.0), ([1 / 3] * 3, 2 / 3)])
def test_brier_score_of_certainty_and_of_ignorance(row: list[float], expected: float) -> None:
    assert evaluated([row], [0]).metric("brier") == pytest.approx(expected)


def test_calibration_error_agrees_with_a_calculation_by_hand() -> None:
    # Confidence 0.7 twice, both right; 0.4 and 0.5 alone in their bins of 1/15, both wrong.
    assert FOUR.metric("ece") == pytest.approx((2 * 0.3 + 0.4 + 0.5) / 4)


def test_certainty_falls_into_the_last_bin() -> None:
    assert evaluated([[1.0, 0.0], [1.0, 0.0]], [0, 1]).metric("ece") == pytest.approx(0.5)


@given(st.integers(1, 300), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_calibration_error_and_brier_score_agree_with_brute_force(n: int, choices: int, draw: int) -> None:
    generator = np.random.default_rng(draw)
    probabilities = generator.dirichlet([0.5] * choices, n)
    gold = generator.integers(0, choices, n)
    found = evaluated(probabilities, gold.tolist())
    ece = brier = 0.0
    for b in range(15):
        inside = [
            i for i in range(n) if int(max(probabilities[i]) * 15) == b or (b == 14 and max(probabilities[i]) == 1)
        ]
        if inside:
            accuracy = sum(int(np.argmax(probabilities[i])) == gold[i] for i in inside) / len(inside)
            confidence = sum(max(probabilities[i]) for i in inside) / len(inside)
            ece += len(inside) / n * abs(accuracy - confidence)
    for i in range(n):
        brier += sum((probabilities[i][c] - (c == gold[i])) ** 2 for c in range(choices)) / n
    assert found.metric("ece") == pytest.approx(ece)
    assert found.metric("brier") == pytest.approx(brier)
    shares = found.letter_shares()
    assert len(shares) == 2 * choices
    assert sum(value for name, value in shares.items() if name.startswith("predicted_")) == pytest.approx(1)


def test_letters_are_counted_as_given_and_as_right() -> None:
    assert FOUR.letter_shares() == {
        "predicted_A": 0.5,
        "predicted_B": 0.25,
        "predicted_C": 0.0,
        "predicted_D": 0.25,
        "gold_A": 0.5,
        "gold_B": 0.25,
        "gold_C": 0.0,
        "gold_D": 0.25,
    }


# Answering ---------------------------------------------------------------------------------------

CHOICES, D, FIRST = 4, 6, 10
LENGTHS = [3, 9, 1, 7, 5, 9, 2, 4]  # tokens of each question's text: none in the order in which they are asked


class Lookup:
    """Answers questions from a table, and remembers which it was asked together."""

    def __init__(self, questions: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.logits = torch.randn(questions, CHOICES, generator=generator)
        self.features = torch.randn(questions, D, generator=generator)
        self.seen: list[list[int]] = []

    def __call__(self, questions: NDArray[np.int64]) -> ModelOutput:
        assert not torch.is_grad_enabled()
        self.seen.append(questions.tolist())
        return ModelOutput(*(part[questions] for part in (self.features, self.logits, self.features, self.features)))


@pytest.fixture
def assembler() -> Assembler:
    parts: list[list[int]] = []
    for question, length in enumerate(LENGTHS):
        parts += [[FIRST + question] * length, *([5] for _ in range(CHOICES))]
    n = len(LENGTHS)
    blob = TokenBlob(
        ids=np.concatenate(parts).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        letters=[[6], [7], [8], [9]],
        task=np.arange(n) % 3,
        answer=np.array([0, 1, 2, 3, 3, 2, 1, 0]),
        text_id=np.arange(n),
        choices=CHOICES,
    )
    tokenizer = cast(Tokenizer, SimpleNamespace(cls_id=1, sep_id=2, pad_id=0))
    return Assembler(blob, tokenizer, "single_sequence", max_length=64)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_answers_come_back_in_the_order_asked_for(assembler: Assembler, batch_size: int) -> None:
    model, ticks = Lookup(len(LENGTHS)), []
    asked = np.array([6, 0, 7, 2, 5, 1])
    found = evaluate(
        model,
        assembler,
        asked,
        3,
        torch.device("cpu"),
        batch_size=batch_size,
        progress=lambda: ticks.append(1),
    )
    assert found.questions.tolist() == asked.tolist()
    assert found.gold.tolist() == [1, 0, 0, 2, 2, 1]
    assert found.task.tolist() == [0, 0, 1, 2, 2, 1]
    expected = model.logits[asked].double().softmax(-1)
    assert np.allclose(found.probabilities, expected.numpy(), atol=1e-12)
    by_hand = -sum(math.log(expected[i, gold]) for i, gold in enumerate(found.gold)) / len(asked)
    assert found.metric("loss") == pytest.approx(by_hand, rel=1e-5)
    assert len(ticks) == math.ceil(len(asked) / batch_size)


def test_questions_of_like_length_share_a_batch(assembler: Assembler) -> None:
    model = Lookup(len(LENGTHS))
    evaluate(
        model,
        assembler,
        np.arange(len(LENGTHS)),
        3,
        torch.device("cpu"),
        batch_size=2,
        progress=lambda: None,
    )
    assert model.seen == [[1, 5], [3, 4], [7, 0], [6, 2]]


@pytest.mark.parametrize(("head", "rows"), [("single_sequence", 1), ("per_option", CHOICES)])
def test_long_questions_share_a_batch_with_fewer(assembler: Assembler, head: str, rows: int) -> None:
    assembler = Assembler(assembler.blob, cast(Tokenizer, assembler), head, max_length=64)
    asked = np.arange(len(LENGTHS))
    lengths = assembler.lengths(asked)
    most_tokens = 3 * rows * int(lengths.max()) - 1
    model = Lookup(len(LENGTHS))
    cpu = torch.device("cpu")
    evaluate(model, assembler, asked, 3, cpu, batch_size=4, most_tokens=most_tokens, progress=lambda: None)
    padded = [rows * max(lengths[q] for q in batch) * len(batch) for batch in model.seen]
    assert max(padded) < 3 * rows * lengths.max()
    assert len(model.seen[0]) == 2
    assert max(map(len, model.seen)) > 2
    assert sorted(q for batch in model.seen for q in batch) == asked.tolist()

    alone = Lookup(len(LENGTHS))
    evaluate(alone, assembler, asked, 3, cpu, batch_size=4, most_tokens=1, progress=lambda: None)
    assert [len(batch) for batch in alone.seen] == [1] * len(LENGTHS)


def test_similarity_belongs_to_the_tasks_of_the_questions(assembler: Assembler) -> None:
    model = Lookup(len(LENGTHS))
    asked = np.array([4, 0, 3, 1])  # tasks 1, 0, 0, 1; task 2 is not asked
    found = evaluate(
        model,
        assembler,
        asked,
        3,
        torch.device("cpu"),
        batch_size=3,
        progress=lambda: None,
    )
    unit = nn.functional.normalize(model.features, dim=-1)
    positive = (unit @ unit.T).clamp(min=0)
    between = np.mean([float(positive[a, b]) for a in (0, 3) for b in (4, 1)])
    assert found.similarity[0, 1] == pytest.approx(between, rel=1e-5)
    assert found.similarity[1, 1] == pytest.approx(float(positive[4, 1]), rel=1e-5)
    assert np.isnan(found.similarity[2]).all()
    assert found.pairs[:2, :2].tolist() == [[2, 4], [4, 2]]
