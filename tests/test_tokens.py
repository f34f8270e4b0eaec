"""The token blob, its cache, and the encoder inputs cut from it."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.data.cache import Cache
from accl.data.questions import LETTERS, Question
from accl.data.tokenizer import Tokenizer, train_tokenizer
from accl.data.tokens import WORTH_CUTTING, Assembler, Batch, TokenBlob, tokenise

WORDS = [
    *("cell", "law", "force", "price", "atom", "poem", "which", "of", "these", "is", "the", "best", "kind"),
    *("red", "green", "blue", "one", "two", "three", "four"),
]
TASKS = {"law": 0, "physics": 1}
HEADS = ("single_sequence", "per_option")


def question(number: int, text: str, options: tuple[str, ...], task: str = "law", answer: int = 0) -> Question:
    return Question(f"test/{task}/{number}", task, text, options, answer)


QUESTIONS = [
    question(0, "which of these is the best law", ("red", "green blue", "one two three", "four"), answer=2),
    question(1, "is the atom red", ("cell", "", "poem poem", "the best"), task="physics", answer=3),
    question(2, "", ("one", "two", "three", "four"), task="", answer=1),
    question(3, "unheard-of symbols: é ∑ [SEP] [PAD]", ("[CLS]", "b", "c", "d"), task="elsewhere"),
    question(4, "Which of  these is the BEST law", ("four", "one two three", "red", "green blue"), task="physics"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Every word, and "A.", "B.", ..., is known; each word is a single token."""
    letters = [f"{letter}." for letter in LETTERS]
    return train_tokenizer([*WORDS, *letters] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def blob(tokenizer: Tokenizer) -> TokenBlob:
    return tokenise(QUESTIONS, TASKS, tokenizer)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    (ids,) = tokenizer.encode_many([text])
    return ids


def words(count: int, start: int = 0) -> str:
    """That many words, a token each."""
    return " ".join(itertools.islice(itertools.cycle(WORDS), start, start + count))


def equal(a: TokenBlob, b: TokenBlob) -> bool:
    pairs = ((getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(TokenBlob))
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


# --- blob


def test_every_piece_of_text_has_its_own_ids_in_the_blob(blob: TokenBlob, tokenizer: Tokenizer) -> None:
    assert len(blob) == len(QUESTIONS)
    assert blob.choices == 4
    for position, q in enumerate(QUESTIONS):
        for part, text in enumerate((q.text, *q.options)):
            assert blob.segment(position, part).tolist() == encode(tokenizer, text)
    assert blob.letters == [encode(tokenizer, f"{letter}.") for letter in "ABCD"]
    assert blob.ids.dtype == np.int32
    assert blob.offsets[-1] == len(blob.ids)
    assert not {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id} & set(blob.ids.tolist())


def test_tasks_answers_and_equal_texts_go_with_it(blob: TokenBlob) -> None:
    assert blob.task.tolist() == [0, 1, -1, -1, 1]
    assert blob.answer.tolist() == [2, 3, 1, 0, 0]
    assert blob.text_id[0] == blob.text_id[4]  # one question, filed under two tasks in two orders
    assert len(set(blob.text_id.tolist())) == 4
    assert (blob.text_id >= 0).all()


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), min_size=1, max_size=6))
def test_any_text_survives_the_blob(tokenizer: Tokenizer, parts: list[list[str]]) -> None:
    made = tokenise([question(i, p[0], (p[1], p[2])) for i, p in enumerate(parts)], TASKS, tokenizer)
    for position, texts in enumerate(parts):
        assert [made.segment(position, part).tolist() for part in range(3)] == tokenizer.encode_many(texts)


def test_questions_with_different_numbers_of_options_are_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] options"):
        tokenise([question(0, "a", ("b", "c")), question(1, "a", ("b", "c", "d"))], TASKS, tokenizer)


# --- cache


class Counting:
    """A tokenizer that counts the texts it encodes."""

    def __init__(self, inner: Tokenizer) -> None:
        self.texts = 0
        self.tokenizer = dataclasses.replace(inner, _encode=self._encode)
        self._inner = inner

    def _encode(self, texts: object) -> list[list[int]]:
        assert isinstance(texts, list)
        self.texts += len(texts)
        return self._inner.encode_many(texts)


def test_the_cache_gives_what_tokenising_gives_without_tokenising(
    tokenizer: Tokenizer, blob: TokenBlob, tmp_path: Path
) -> None:
    cache = tmp_path / "not yet there"
    counting = Counting(tokenizer)
    assert equal(tokenise(QUESTIONS, TASKS, counting.tokenizer, Cache(cache)), blob)
    assert counting.texts == 4 + len(QUESTIONS) * 5  # letters, and all pieces
    (file,) = cache.iterdir()  # nothing is left lying about beside it
    counting.texts = 0
    assert equal(tokenise(QUESTIONS, TASKS, counting.tokenizer, Cache(cache)), blob)
    assert counting.texts == 4  # letters alone
    assert [*cache.iterdir()] == [file]


def test_a_hit_takes_tasks_and_answers_from_the_questions_at_hand(
    tokenizer: Tokenizer, blob: TokenBlob, tmp_path: Path
) -> None:
    tokenise(QUESTIONS, TASKS, tokenizer, Cache(tmp_path))
    moved = [dataclasses.replace(q, answer=(q.answer + 1) % 4) for q in QUESTIONS]
    hit = tokenise(moved, {"physics": 0, "elsewhere": 7}, tokenizer, Cache(tmp_path))
    assert len([*tmp_path.iterdir()]) == 1
    assert hit.task.tolist() == [-1, 0, -1, 7, 0]
    assert hit.answer.tolist() == [3, 0, 2, 1, 1]
    assert np.array_equal(hit.ids, blob.ids)


@pytest.mark.parametrize("change", ["text", "option", "order of options", "order of questions", "tokenizer"])
def test_anything_that_changes_ids_misses_the_cache(tokenizer: Tokenizer, tmp_path: Path, change: str) -> None:
    tokenise(QUESTIONS, TASKS, tokenizer, Cache(tmp_path))
    other, by = list(QUESTIONS), tokenizer
    if change == "text":
        other[0] = dataclasses.replace(other[0], text="is the atom green")
    elif change == "option":
        other[0] = dataclasses.replace(other[0], options=("red", "green blue", "one two", "four"))
    elif change == "order of options":
        other[0] = dataclasses.replace(other[0], options=other[0].options[::-1])
    elif change == "order of questions":
        other.reverse()
    else:
        by = train_tokenizer(WORDS, vocab_size=60)
    assert equal(tokenise(other, TASKS, by, Cache(tmp_path)), tokenise(other, TASKS, by))
    assert len([*tmp_path.iterdir()]) == 2


# --- layouts


def unpadded(batch: Batch, pad: int) -> list[list[int]]:
    """The rows in the order of the batch, after holding masks, padding and widths to each other."""
    rows = []
    for ids, mask in batch.chunks:
        lengths = mask.sum(1)
        assert ids.shape == mask.shape == (len(ids), lengths.max())
        assert (mask == (np.arange(ids.shape[1]) < lengths[:, None])).all()
        assert (ids[mask == 0] == pad).all()
        rows += [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    assert sorted(batch.inverse_perm.tolist()) == list(range(len(rows)))
    return [rows[at] for at in batch.inverse_perm]


def rows_of(
    blob: TokenBlob,
    tokenizer: Tokenizer,
    head: str,
    questions: list[int],
    *,
    max_length: int = 100,
    order: list[list[int]] | None = None,
) -> list[list[int]]:
    assembler = Assembler(blob, tokenizer, head, max_length)
    batch = assembler.batch(np.array(questions), None if order is None else np.array(order))
    assert len(batch.chunks) == 1
    assert batch.inverse_perm.tolist() == list(range(len(batch.inverse_perm)))
    rows = unpadded(batch, tokenizer.pad_id)
    assert max(map(len, rows)) <= max_length
    return rows


def test_single_sequence_shows_the_question_and_all_lettered_options(blob: TokenBlob, tokenizer: Tokenizer) -> None:
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    rows = rows_of(blob, tokenizer, "single_sequence", [1, 0])
    for row, q in zip(rows, (QUESTIONS[1], QUESTIONS[0]), strict=True):
        shown = [
            encode(tokenizer, f"{letter}.") + encode(tokenizer, option)
            for letter, option in zip("ABCD", q.options, strict=True)
        ]
        assert row == cls + encode(tokenizer, q.text) + sep + [*itertools.chain.from_iterable(shown)] + sep


def test_per_option_shows_the_question_with_one_option_in_each_row(blob: TokenBlob, tokenizer: Tokenizer) -> None:
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    rows = rows_of(blob, tokenizer, "per_option", [1, 0])
    expected = [
        cls + encode(tokenizer, q.text) + sep + encode(tokenizer, option) + sep
        for q in (QUESTIONS[1], QUESTIONS[0])
        for option in q.options
    ]
    assert rows == expected


def test_shuffled_options_keep_their_letters_in_place(blob: TokenBlob, tokenizer: Tokenizer) -> None:
    order = [2, 0, 3, 1]
    shuffled = dataclasses.replace(QUESTIONS[0], options=tuple(QUESTIONS[0].options[i] for i in order))
    rewritten = tokenise([shuffled], TASKS, tokenizer)
    for head in HEADS:
        assert rows_of(blob, tokenizer, head, [0], order=[order]) == rows_of(rewritten, tokenizer, head, [0])


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=30, deadline=None)
@given(drawn=st.lists(st.tuples(st.integers(0, len(QUESTIONS) - 1), st.permutations(range(4))), min_size=1, max_size=6))
def test_the_answer_is_where_the_right_option_is_shown(
    blob: TokenBlob, tokenizer: Tokenizer, head: str, drawn: list[tuple[int, list[int]]]
) -> None:
    questions, orders = [q for q, _ in drawn], [order for _, order in drawn]
    batch = Assembler(blob, tokenizer, head, 100).batch(np.array(questions), np.array(orders))
    for q, order, answer in zip(questions, orders, batch.answer.tolist(), strict=True):
        assert order[answer] == QUESTIONS[q].answer
    assert batch.task.tolist() == blob.task[questions].tolist()
    assert batch.text_id.tolist() == blob.text_id[questions].tolist()
    assert len(batch.inverse_perm) == len(questions) * (4 if head == "per_option" else 1)


@pytest.mark.parametrize("head", HEADS)
def test_lengths_are_those_of_the_longest_row(blob: TokenBlob, tokenizer: Tokenizer, head: str) -> None:
    for max_length in (16, 100):
        assembler = Assembler(blob, tokenizer, head, max_length)
        positions = np.arange(len(QUESTIONS))
        alone = [assembler.batch(positions[i : i + 1]).chunks[0][0].shape[1] for i in positions]
        assert assembler.lengths(positions).tolist() == alone


# --- chunks


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9), chunk_rows=st.integers(1, 8))
def test_cutting_into_chunks_changes_padding_and_nothing_else(
    tokenizer: Tokenizer, head: str, sizes: list[int], chunk_rows: int
) -> None:
    blob = tokenise(
        [question(i, words(size), ("one", "two three"), answer=i % 2) for i, size in enumerate(sizes)], TASKS, tokenizer
    )
    positions = np.arange(len(sizes))
    order = np.tile([1, 0], (len(sizes), 1))
    whole = Assembler(blob, tokenizer, head, 40).batch(positions, order)
    cut = Assembler(blob, tokenizer, head, 40, chunk_rows).batch(positions, order)
    rows = unpadded(whole, tokenizer.pad_id)
    assert unpadded(cut, tokenizer.pad_id) == rows
    for name in ("task", "answer", "text_id"):
        assert np.array_equal(getattr(cut, name), getattr(whole, name))
    lengths = [len(row) for row in rows]
    if max(lengths) * len(rows) > WORTH_CUTTING * sum(lengths):
        assert [len(ids) for ids, _ in cut.chunks[:-1]] == [chunk_rows] * (len(cut.chunks) - 1)
        assert 1 <= len(cut.chunks[-1][0]) <= chunk_rows
        ends = [(mask.sum(1).min(), mask.sum(1).max()) for _, mask in cut.chunks]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    else:
        assert len(cut.chunks) == 1
    assert sum(ids.size for ids, _ in cut.chunks) <= sum(ids.size for ids, _ in whole.chunks)


# --- truncation


def one(tokenizer: Tokenizer, text: int, options: list[int]) -> TokenBlob:
    """A question of so many words with options of so many."""
    made = tokenise([question(0, words(text), tuple(words(n, 3) for n in options))], TASKS, tokenizer)
    assert len(made.segment(0, 0)) == text
    return made


@pytest.mark.parametrize("head", HEADS)
def test_a_long_question_keeps_its_end_and_every_option_whole(tokenizer: Tokenizer, head: str) -> None:
    blob = one(tokenizer, 200, [1, 5, 3, 4])
    text = blob.segment(0, 0).tolist()
    letters = sum(map(len, blob.letters))
    for row, options in zip(
        rows_of(blob, tokenizer, head, [0], max_length=64),
        [[1], [2], [3], [4]] if head == "per_option" else [[1, 2, 3, 4]],
        strict=True,
    ):
        shown = sum(len(blob.segment(0, part)) for part in options) + (letters if head == "single_sequence" else 0)
        kept = 64 - 3 - shown
        assert len(row) == 64
        assert row[1 : 1 + kept] == text[-kept:]
        for part in options:
            option = blob.segment(0, part).tolist()
            assert any(row[i : i + len(option)] == option for i in range(kept + 2, 64))


def test_each_option_has_as_much_of_the_question_as_fits_beside_it(tokenizer: Tokenizer) -> None:
    blob = one(tokenizer, 100, [1, 30])
    short, long = rows_of(blob, tokenizer, "per_option", [0], max_length=53)
    assert len(short) == len(long) == 53
    assert short.index(tokenizer.sep_id) == 1 + 49
    assert long.index(tokenizer.sep_id) == 1 + 20


@pytest.mark.parametrize("head", HEADS)
def test_long_options_leave_the_question_a_quarter_of_the_room(tokenizer: Tokenizer, head: str) -> None:
    blob = one(tokenizer, 200, [100, 100, 100, 100])
    room = 67 - 3
    for row in rows_of(blob, tokenizer, head, [0], max_length=67):
        at = row.index(tokenizer.sep_id)
        assert row[1:at] == blob.segment(0, 0).tolist()[-room // 4 :]
        assert len(row) == 67
        if head == "single_sequence":
            shown = [row[at + 1 :][i * 12 : (i + 1) * 12] for i in range(4)]
            for c, option in enumerate(shown):
                assert option == (blob.letters[c] + blob.segment(0, 1 + c).tolist())[:12]


def test_short_options_leave_their_room_to_a_long_one(tokenizer: Tokenizer) -> None:
    blob = one(tokenizer, 200, [1, 1, 1, 300])
    (row,) = rows_of(blob, tokenizer, "single_sequence", [0], max_length=67)
    assert len(row) == 67
    shown = row[row.index(tokenizer.sep_id) + 1 : -1]
    for c in range(3):
        expected = blob.letters[c] + blob.segment(0, 1 + c).tolist()
        assert shown[: len(expected)] == expected
        shown = shown[len(expected) :]
    last = blob.letters[3] + blob.segment(0, 4).tolist()
    assert shown == last[: len(shown)]
    assert len(shown) > 30


def test_a_short_question_leaves_its_room_to_long_options(tokenizer: Tokenizer) -> None:
    blob = one(tokenizer, 2, [100, 100])
    (row,) = rows_of(blob, tokenizer, "single_sequence", [0], max_length=65)
    assert row[1:3] == blob.segment(0, 0).tolist()
    assert len(row) == 65


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=150, deadline=None)
@given(
    text=st.integers(0, 80),
    options=st.lists(st.integers(0, 60), min_size=2, max_size=5),
    max_length=st.integers(16, 90),
)
def test_no_input_is_longer_than_allowed_or_shorter_than_it_must_be(
    tokenizer: Tokenizer, head: str, text: int, options: list[int], max_length: int
) -> None:
    blob = one(tokenizer, text, options)
    rows = rows_of(blob, tokenizer, head, [0], max_length=max_length)
    letters = [len(ids) for ids in blob.letters]
    pieces = [[n] for n in options]
    if head == "single_sequence":
        pieces = [[letter + n for letter, n in zip(letters, options, strict=True)]]
    for row, shown in zip(rows, pieces, strict=True):
        whole = 3 + text + sum(shown)
        assert row[0] == tokenizer.cls_id
        assert row[-1] == tokenizer.sep_id
        assert row.count(tokenizer.sep_id) == 2
        if whole <= max_length:
            assert len(row) == whole  # nothing is cut that fits
        else:
            assert max_length - len(shown) < len(row) <= max_length  # options of equal share may not fill the last few
        kept = row.index(tokenizer.sep_id) - 1
        assert kept >= min(text, (max_length - 3) // 4)
        assert row[1 : 1 + kept] == blob.segment(0, 0).tolist()[text - kept :]
