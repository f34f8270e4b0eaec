"""Protocols: nothing leaks, shares hold per task, and the real MMLU gives the counts it is known by."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.data.folders import read_folder
from accl.data.questions import Corpus, Question
from accl.data.splits import Splits, split
from accl.data.subjects import subject_named
from accl.errors import DataError

MMLU = Path(os.environ.get("ACCL_MMLU", Path(__file__).resolve().parent.parent.parent / "shared" / "mmlu"))
LABELLED = ("dev", "validation", "test")


def question(part: str, task: str, number: int, text: str) -> Question:
    return Question(f"{part}/{task}/{number}", task, text, ("yes", "no"), number % 2)


def corpus(parts: dict[str, list[tuple[str, str]]]) -> Corpus:
    """From (task, text) pairs by part."""
    tasks = sorted({task for pairs in parts.values() for task, _ in pairs if task})
    return Corpus(
        tuple(subject_named(task) for task in tasks),
        {
            part: [question(part, task, i, text) for i, (task, text) in enumerate(pairs)]
            for part, pairs in parts.items()
        },
        "a made-up corpus",
    )


def distinct(part: str, task: str, count: int) -> list[tuple[str, str]]:
    return [(task, f"{part} {task} {i}") for i in range(count)]


def ids(questions: list[Question]) -> list[str]:
    return [q.id for q in questions]


PAIRS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12).map("question {}".format)), max_size=40)


# --- pooled


@settings(max_examples=80, deadline=None)
@given(parts=st.fixed_dictionaries(dict.fromkeys(LABELLED, PAIRS)), seed=st.integers(0, 9))
def test_pooled_never_has_equal_texts_in_two_splits_and_loses_no_question(
    parts: dict[str, list[tuple[str, str]]], seed: int
) -> None:
    made = corpus(parts)
    pool = [q for part in LABELLED for q in made.parts[part]]
    if not pool:
        with pytest.raises(DataError):
            split(made, "pooled", seed)
        return
    splits = split(made, "pooled", seed)
    texts = [{q.text_hash for q in questions} for questions in splits.named().values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert splits.leaked == 0
    assert splits.auxiliary == []
    assert Counter(i for questions in splits.named().values() for i in ids(questions)) == Counter(ids(pool))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    seed=st.integers(0, 9),
    cut=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_pooled_holds_a_tenth_of_each_task_out_twice(sizes: list[int], seed: int, cut: tuple[int, int]) -> None:
    """Whichever part of the source a question comes from."""
    parts: dict[str, list[tuple[str, str]]] = {part: [] for part in LABELLED}
    for number, size in enumerate(sizes):
        for i, pair in enumerate(distinct("x", f"task{number}", size)):
            parts["dev" if i < min(cut) else "validation" if i < max(cut) else "test"].append(pair)
    splits = split(corpus(parts), "pooled", seed)
    counts = {name: Counter(q.task for q in questions) for name, questions in splits.named().items()}
    for number, size in enumerate(sizes):
        task = f"task{number}"
        assert counts["validation"][task] == counts["test"][task] == round(0.1 * size)
        assert counts["train"][task] == size - 2 * round(0.1 * size)


def test_duplicates_of_two_tasks_go_together_and_count_towards_both_shares() -> None:
    """Two tasks with the same hundred questions: placing one places the other."""
    shared = [f"shared {i}" for i in range(100)]
    made = corpus({"test": [("a", text) for text in shared] + [("b", text) for text in shared]})
    splits = split(made, "pooled", 3)
    for name, share in (("train", 80), ("validation", 10), ("test", 10)):
        by_task = {task: {q.text for q in splits.named()[name] if q.task == task} for task in "ab"}
        assert by_task["a"] == by_task["b"]
        assert len(by_task["a"]) == share


def test_what_other_tasks_have_placed_counts_towards_a_tasks_share() -> None:
    """Half of b's questions are a's too; the tenth that a holds out is half of what b has to."""
    shared = [f"shared {i}" for i in range(100)]
    made = corpus(
        {"test": [("a", text) for text in shared] + [("b", text) for text in shared] + distinct("own", "b", 100)}
    )
    splits = split(made, "pooled", 3)
    for questions in (splits.validation, splits.test):
        assert Counter(q.task for q in questions) == {"a": 10, "b": 20}


def test_white_space_case_and_the_order_of_options_do_not_hide_a_duplicate() -> None:
    twins = [
        Question("test/a/0", "a", "What is  it?", ("Yes", "no"), 0),
        Question("test/b/0", "b", "what is it? ", ("no", " yes"), 1),
    ]
    other = Question("test/b/1", "b", "What is it?", ("yes", "maybe"), 0)
    assert twins[0].text_hash == twins[1].text_hash != other.text_hash


def test_equal_corpus_and_seed_give_equal_splits_and_another_seed_others() -> None:
    made = corpus({"test": distinct("test", "a", 80) + distinct("test", "b", 50), "dev": distinct("dev", "a", 5)})
    one, again, other = (split(made, "pooled", seed) for seed in (1, 1, 2))
    for name, questions in one.named().items():
        assert ids(questions) == ids(again.named()[name])
        assert ids(questions) != ids(other.named()[name])


def test_a_new_task_leaves_the_splits_of_those_before_it_as_they_were() -> None:
    few = split(corpus({"test": distinct("test", "a", 60)}), "pooled", 1)
    more = split(corpus({"test": distinct("test", "a", 60) + distinct("test", "b", 40)}), "pooled", 1)
    for name, questions in few.named().items():
        assert ids(questions) == [i for i in ids(more.named()[name]) if "/a/" in i]


def test_random_draws_decide_who_is_held_out() -> None:
    """Each of 20 questions is tested about equally often over many seeds."""
    made = corpus({"test": distinct("test", "a", 20)})
    tested = Counter(i for seed in range(200) for i in ids(split(made, "pooled", seed).test))
    assert len(tested) == 20
    assert 5 <= min(tested.values()) <= max(tested.values()) <= 40  # 20 each; binomial sd 4.2


# --- official


@settings(max_examples=40, deadline=None)
@given(parts=st.fixed_dictionaries({part: PAIRS.filter(bool) for part in LABELLED}), seed=st.integers(0, 9))
def test_official_tests_on_test_and_chooses_on_questions_that_do_not_train(
    parts: dict[str, list[tuple[str, str]]], seed: int
) -> None:
    made = corpus(parts)
    splits = split(made, "official", seed)
    assert splits.test == made.parts["test"]
    learning = ids(made.parts["dev"]) + ids(made.parts["validation"])
    assert Counter(ids(splits.train) + ids(splits.validation)) == Counter(learning)
    trained = {q.text_hash for q in splits.train}
    assert not trained & {q.text_hash for q in splits.validation}
    assert splits.leaked == sum(q.text_hash in trained for q in made.parts["test"])


def test_official_chooses_on_one_in_ten_of_each_task() -> None:
    made = corpus(
        {
            "dev": distinct("dev", "a", 5) + distinct("dev", "b", 5),
            "validation": distinct("val", "a", 25) + distinct("val", "b", 95),
            "test": distinct("test", "a", 7),
            "auxiliary_train": distinct("aux", "", 9),
        }
    )
    splits = split(made, "official", 0)
    assert Counter(q.task for q in splits.validation) == {"a": 3, "b": 10}
    assert Counter(q.task for q in splits.train) == {"a": 27, "b": 90}
    assert splits.auxiliary == made.parts["auxiliary_train"]


def test_official_trains_on_train_and_chooses_on_validation_where_the_data_has_both() -> None:
    parts = {name: distinct(name, "a", count) for name, count in (("train", 30), ("dev", 5), ("test", 7))}
    splits = split(corpus({**parts, "validation": distinct("validation", "a", 20)}), "official", 0)
    assert {name: len(questions) for name, questions in splits.named().items()} == {
        "train": 35,
        "validation": 20,
        "test": 7,
    }
    assert not set(ids(splits.train)) & set(ids(splits.validation))
    without = split(corpus(parts), "official", 0)
    assert (len(without.train), len(without.validation)) == (31, 4)
    assert len(split(corpus(parts), "pooled", 0).train) == 34  # of all 42


def test_questions_without_subject_never_enter_the_pool() -> None:
    made = corpus({"test": distinct("test", "a", 20), "auxiliary_train": distinct("aux", "", 50)})
    splits = split(made, "pooled", 0)
    assert sum(map(len, splits.named().values())) == 20
    assert splits.auxiliary == []


@pytest.mark.parametrize(
    ("parts", "protocol", "named"),
    [
        ({"test": distinct("test", "a", 3)}, "official", "test (3)"),
        ({"validation": distinct("val", "a", 4)}, "official", "validation (4)"),
        ({"auxiliary_train": distinct("aux", "", 5)}, "pooled", "auxiliary_train (5)"),
        ({}, "pooled", "nothing"),
    ],
)
def test_what_a_protocol_lacks_is_an_error_that_says_what_there_is(
    parts: dict[str, list[tuple[str, str]]], protocol: str, named: str
) -> None:
    with pytest.raises(DataError) as error:
        split(corpus(parts), protocol, 0)
    assert named in error.value.what
    assert "a made-up corpus" in error.value.what
    assert error.value.hint


def test_leaked_counts_questions_of_validation_and_test_that_train_too() -> None:
    one, two, three = (question("test", "a", i, f"text {i}") for i in range(3))
    splits = Splits(train=[one, two], validation=[two, three], test=[one, one, three], auxiliary=[three])
    assert splits.leaked == 3


# --- the real thing

real = pytest.mark.skipif(not (MMLU / "test").is_dir(), reason="the real MMLU is not on this machine (ACCL_MMLU)")


@pytest.fixture(scope="module")
def mmlu() -> Corpus:
    return read_folder(MMLU)


@real
def test_real_mmlu_pools_15858_questions_split_80_10_10(mmlu: Corpus) -> None:
    splits = split(mmlu, "pooled", 0)
    sizes = {name: len(questions) for name, questions in splits.named().items()}
    assert sum(sizes.values()) == 15_858
    assert sizes["train"] == pytest.approx(0.8 * 15_858, rel=0.01)
    assert sizes["validation"] == pytest.approx(0.1 * 15_858, rel=0.01)
    assert sizes["test"] == pytest.approx(0.1 * 15_858, rel=0.01)
    assert splits.leaked == 0
    pooled = sum((mmlu.counts(part) for part in LABELLED), Counter[str]())
    for name, share in (("validation", 0.1), ("test", 0.1), ("train", 0.8)):
        counts = Counter(q.task for q in splits.named()[name])
        assert set(counts) == set(mmlu.task_index)
        assert len(counts) == 57
        # A group of equal texts goes to one side as a whole, hence the slack.
        assert all(abs(counts[task] - share * size) <= 4 for task, size in pooled.items())


@real
def test_real_mmlu_has_duplicates_so_a_blind_split_would_leak(mmlu: Corpus) -> None:
    pool = [q for part in LABELLED for q in mmlu.parts[part]]
    assert len({q.text_hash for q in pool}) < len(pool)
    random.Random(0).shuffle(pool)
    cut = len(pool) * 8 // 10
    assert Splits(train=pool[:cut], validation=[], test=pool[cut:], auxiliary=[]).leaked > 0


@real
def test_real_mmlu_under_its_official_protocol(mmlu: Corpus) -> None:
    splits = split(mmlu, "official", 0)
    assert len(splits.test) == 14_042
    assert len(splits.train) + len(splits.validation) == 285 + 1531
    assert len(splits.validation) == pytest.approx(182, abs=10)
    assert {q.task for q in splits.train} == set(mmlu.task_index)
    assert splits.leaked > 0  # MMLU's own duplicates; said, not hidden
