"""The two rules that do not read the question, on examples worked by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accl.data.questions import Question
from accl.data.trivial_baselines import trivial_baselines


def question(task: str, answer: int, options: tuple[str, ...] = ("a", "b", "c", "d")) -> Question:
    return Question(f"{task}/{answer}", task, "text", options, answer)


def test_each_tasks_most_frequent_letter_is_guessed() -> None:
    train = [question("law", a) for a in (1, 1, 2)] + [question("art", a) for a in (3, 3, 3, 0)]
    evaluated = [question("law", a) for a in (1, 1, 3)] + [question("art", a) for a in (3, 1)]
    assert trivial_baselines(train, evaluated)["majority_letter"] == 3 / 5


def test_a_task_without_training_questions_gets_the_letter_of_all() -> None:
    train = [question("law", 1)] * 2 + [question("art", 3)] * 3
    assert trivial_baselines(train, [question("new", 3), question("new", 1)])["majority_letter"] == 1 / 2


def test_the_first_letter_wins_a_tie_whatever_the_order_of_training() -> None:
    for answers in ((2, 1), (1, 2)):
        train = [question("law", a) for a in answers]
        assert trivial_baselines(train, [question("law", 1)])["majority_letter"] == 1
        assert trivial_baselines(train, [question("law", 2)])["majority_letter"] == 0


def test_without_any_training_question_the_first_letter_is_guessed() -> None:
    assert trivial_baselines([], [question("law", 0), question("law", 1)])["majority_letter"] == 1 / 2


def test_the_longest_option_is_guessed_and_the_first_of_equals() -> None:
    evaluated = [
        question("law", 1, ("a", "the longest", "bb", "c")),
        question("law", 0, ("a", "the longest", "bb", "c")),
        question("law", 0, ("same", "four", "x", "yy")),
        question("law", 1, ("same", "four", "x", "yy")),
        question("law", 0, ("", "", "", "")),
    ]
    assert trivial_baselines([], evaluated)["longest_option"] == 3 / 5


def test_the_evaluated_answers_do_not_decide_what_is_guessed() -> None:
    train = [question("law", 0)] * 2 + [question("law", 1)]
    assert trivial_baselines(train, [question("law", 1)] * 5)["majority_letter"] == 0


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no questions"):
        trivial_baselines([question("law", 0)], [])


QUESTIONS = st.lists(st.builds(question, st.sampled_from(["law", "art", "new"]), st.integers(0, 3)), max_size=20)


@given(train=QUESTIONS, evaluated=QUESTIONS.filter(bool), seed=st.randoms(use_true_random=False))
def test_accuracies_are_shares_that_do_not_depend_on_order(
    train: list[Question], evaluated: list[Question], seed: random.Random
) -> None:
    result = trivial_baselines(train, evaluated)
    assert set(result) == {"majority_letter", "longest_option"}
    assert all(0 <= share <= 1 for share in result.values())
    seed.shuffle(train)
    seed.shuffle(evaluated)
    assert trivial_baselines(train, evaluated) == result


@given(train=QUESTIONS.filter(bool))
def test_on_its_own_questions_the_majority_letter_beats_every_fixed_letter(train: list[Question]) -> None:
    best = max(sum(q.answer == letter for q in train) / len(train) for letter in range(4))
    assert trivial_baselines(train, train)["majority_letter"] >= best
