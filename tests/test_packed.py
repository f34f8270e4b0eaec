"""Packed encoder inputs: the rows of `Assembler`, end to end, as pieces of one row of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from accl.data.packed import Packed, Packer
from accl.data.tokenizer import Tokenizer
from accl.data.tokens import Assembler, TokenBlob, truncate_evenly
from accl.training.backends.inputs import StepInputs

HEADS = ("single_sequence", "per_option")
TOKENIZER = Tokenizer(cls_id=1, sep_id=2, pad_id=0, vocab_size=10**6, files={}, _encode=lambda _: [])


def made_blob(lengths: Sequence[Sequence[int]], letters: Sequence[int], seed: int) -> TokenBlob:
    """Questions whose text and options have the given lengths in tokens; no token comes twice in all of it."""
    rng = np.random.default_rng(seed)
    fresh = itertools.count(3)
    spelt = [list(itertools.islice(fresh, length)) for length in letters]
    offsets = np.cumsum([0, *itertools.chain(*lengths)])
    return TokenBlob(
        ids=np.arange(next(fresh), next(fresh) + offsets[-1] - 1, dtype=np.int32),
        offsets=offsets,
        letters=spelt,
        task=rng.integers(-1, 3, len(lengths)),
        answer=rng.integers(0, len(letters), len(lengths)),
        text_id=rng.integers(0, 2**62, len(lengths)),
        choices=len(letters),
    )


def sequences(packer: Packer, packed: Packed) -> list[list[int]]:
    """The stream as it is written: each segment gathered from the resident tokens, and cut where sequences end."""
    bounds = itertools.pairwise(packed.cu_seqlens)
    pieces = [packer.tokens[at : at + end - begin] for at, (begin, end) in zip(packed.source, bounds, strict=True)]
    starts = range(0, len(pieces), packer.segments)
    return [np.concatenate(pieces[start : start + packer.segments]).tolist() for start in starts]


def expected_rows(assembler: Assembler, questions: NDArray[np.int64], orders: NDArray[np.int64]) -> list[list[int]]:
    """The rows put together token by token."""
    blob, rows = assembler.blob, []
    for question, order in zip(questions.tolist(), orders.tolist(), strict=True):
        options = [blob.segment(question, 1 + c).tolist() for c in order]
        shown = [[option] for option in options]
        if assembler.head == "single_sequence":
            shown = [[letter + option for letter, option in zip(blob.letters, options, strict=True)]]
        rows += [row_of(assembler, blob.segment(question, 0).tolist(), parts) for parts in shown]
    return rows


def row_of(assembler: Assembler, text: list[int], options: list[list[int]]) -> list[int]:
    limit, needed = assembler.max_length - 3, sum(map(len, options))
    if len(text) + needed > limit:
        text = text[-max(limit - needed, limit // 4) :]
        cut = truncate_evenly([len(option) for option in options], limit - len(text))
        options = [option[:cut] for option in options]
    cls, sep = assembler.cls_id, assembler.sep_id
    return [cls, *text, sep, *itertools.chain(*options), sep]


def assert_same_as_the_assembler(
    assembler: Assembler, questions: NDArray[np.int64], order: NDArray[np.int64] | None
) -> None:
    batch = assembler.batch(questions, order)
    ((ids, mask),) = batch.chunks
    expected = [
        row[real == 1].tolist() for row, real in zip(ids[batch.inverse_perm], mask[batch.inverse_perm], strict=True)
    ]
    own = np.tile(np.arange(assembler.blob.choices), (len(questions), 1))
    assert expected == expected_rows(assembler, questions, own if order is None else order)
    packer = Packer(assembler)
    packed = packer.pack(questions, order)
    stream = sequences(packer, packed)
    assert [stream[place] for place in packed.inverse_perm] == expected
    assert [expected[place] for place in packed.perm] == stream
    lengths = [len(sequence) for sequence in stream]
    assert lengths == sorted(lengths, reverse=True)
    assert packed.longest == lengths[0]
    assert packed.cu_seqlens[0] == 0
    assert packed.total == sum(lengths) == mask.sum()
    assert len(packed.inverse_perm) == len(questions) * packer.sequences_per_question
    assert (np.diff(packed.cu_seqlens) >= 0).all()
    assert (packed.source + np.diff(packed.cu_seqlens) <= len(packer.tokens)).all()
    for name in ("task", "answer", "text_id"):
        assert np.array_equal(getattr(packed, name), getattr(batch, name)), name


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), choices=st.integers(2, 5), max_length=st.integers(16, 60), seed=st.integers(0, 9))
def test_a_stream_holds_the_rows_of_the_assembler_longest_first(
    head: str, data: st.DataObject, choices: int, max_length: int, seed: int
) -> None:
    part = st.integers(0, 5) | st.integers(0, 90)
    lengths = data.draw(
        st.lists(st.lists(part, min_size=1 + choices, max_size=1 + choices), min_size=1, max_size=5), label="lengths"
    )
    letters = data.draw(st.lists(st.integers(0, 4), min_size=choices, max_size=choices), label="letters")
    blob = made_blob(lengths, letters, seed)
    questions = np.array(data.draw(st.lists(st.integers(0, len(blob) - 1), min_size=1, max_size=6), label="questions"))
    permuted = st.permutations(range(choices))
    orders = data.draw(
        st.none() | st.lists(permuted, min_size=len(questions), max_size=len(questions)), label="options' order"
    )
    assembler = Assembler(blob, TOKENIZER, head, max_length)
    assert_same_as_the_assembler(assembler, questions, None if orders is None else np.array(orders))


@pytest.mark.parametrize("head", HEADS)
def test_what_is_too_long_loses_the_same_tokens(head: str) -> None:
    lengths = [[40, 0, 3, 30, 1], [5, 50, 50, 50, 50], [0, 9, 40, 1, 2], [13, 0, 0, 0, 0], [14, 0, 0, 0, 0]]
    assembler = Assembler(made_blob(lengths, [2, 3, 1, 2], 0), TOKENIZER, head, max_length=16)
    order = np.array([[3, 1, 0, 2]] * len(lengths))
    assert assembler.lengths(np.arange(len(lengths))).max() == 16
    assert_same_as_the_assembler(assembler, np.arange(len(lengths)), order)


@pytest.mark.parametrize("head", HEADS)
def test_a_question_that_comes_twice_is_packed_twice(head: str) -> None:
    assembler = Assembler(made_blob([[4, 1, 2], [6, 3, 1]], [1, 1], 0), TOKENIZER, head, max_length=32)
    packer = Packer(assembler)
    once, twice = packer.pack(np.array([0, 1])), packer.pack(np.array([0, 1, 0, 1]))
    assert twice.total == 2 * once.total
    first, second = (twice.inverse_perm[half : half + len(once.inverse_perm)] for half in (0, len(once.inverse_perm)))
    stream = sequences(packer, twice)
    assert [stream[place] for place in first] == [stream[place] for place in second]


def test_a_step_that_is_sent_too_far_ahead_waits_for_the_copy_of_an_earlier_one() -> None:
    packer = Packer(Assembler(made_blob([[3, 1, 1]] * 2, [1, 1], 0), TOKENIZER, "per_option", 32, None))
    packed = packer.pack(np.arange(2))
    inputs = StepInputs(2, 4, packer.segments, torch.device("cpu"), 2)
    called: list[tuple[str, int]] = []
    inputs._copied = [  # type: ignore[assignment]
        SimpleNamespace(
            synchronize=lambda slot=slot: called.append(("wait", slot)),
            record=lambda slot=slot: called.append(("record", slot)),
        )
        for slot in range(2)
    ]
    for seed in range(5):
        inputs.send(packed, seed, (0.0, 0.5, 1.0))
    assert called == [(what, seed % 2) for seed in range(5) for what in ("wait", "record")]
    assert inputs.seed.item() == 4
    assert inputs.rates.tolist() == [0.0, 0.5, 1.0]
    assert inputs.labels.task_B.tolist() == packed.task.tolist()
