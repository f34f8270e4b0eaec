"""The built-in benchmark: its terms, its right options, and the shortcuts that must not work."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.data.questions import Corpus, Question
from accl.data.subjects import MMLU
from accl.data.synthetic import DEV_PER_TASK, OPTIONS, TEMPLATES, generate, terms
from accl.errors import DataError


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate()


@pytest.fixture(scope="module")
def questions(corpus: Corpus) -> list[Question]:
    return list(all_questions(corpus))


def all_questions(corpus: Corpus) -> Iterator[Question]:
    for part in corpus.parts.values():
        yield from part


# --- the file of terms


def test_every_subject_has_at_least_sixteen_terms_of_its_own_list_once() -> None:
    assert list(terms()) == sorted(MMLU)
    for name, listed in terms().items():
        assert len(listed) >= 16, name
        assert len(set(listed)) == len(listed), name


def test_terms_are_one_or_two_lower_case_words() -> None:
    for listed in terms().values():
        for term in listed:
            assert re.fullmatch(r"[a-z]+( [a-z]+)?", term), term


@pytest.mark.parametrize(
    "near",
    [
        ("high_school_biology", "college_biology", "medical_genetics"),
        ("high_school_chemistry", "college_chemistry"),
        ("high_school_physics", "conceptual_physics"),
        ("high_school_computer_science", "college_computer_science"),
        ("abstract_algebra", "college_mathematics"),
        ("high_school_european_history", "high_school_world_history"),
        ("high_school_macroeconomics", "high_school_microeconomics"),
        ("high_school_psychology", "professional_psychology"),
        ("jurisprudence", "professional_law"),
        ("security_studies", "us_foreign_policy"),
        ("marketing", "management"),
        ("clinical_knowledge", "professional_medicine"),
    ],
)
def test_related_subjects_share_two_terms_or_more(near: tuple[str, ...]) -> None:
    for a, b in combinations(near, 2):
        assert len(set(terms()[a]) & set(terms()[b])) >= 2, (a, b)


def test_every_subject_shares_a_term_but_keeps_most_for_itself() -> None:
    owners = Counter(term for listed in terms().values() for term in listed)
    for name, listed in terms().items():
        shared = sum(owners[term] > 1 for term in listed)
        assert 1 <= shared <= 0.65 * len(listed), name


# --- the shape of the corpus


def test_parts_and_ids_follow_mmlu(corpus: Corpus) -> None:
    assert [s.name for s in corpus.subjects] == sorted(MMLU)
    assert corpus.source == "synthetic"
    for part, per_task in {"dev": DEV_PER_TASK, "validation": 12, "test": 103}.items():
        assert corpus.counts(part) == dict.fromkeys(MMLU, per_task)
        assert [q.id for q in corpus.parts[part]] == [f"{part}/{name}/{i}" for name in MMLU for i in range(per_task)]


def test_every_question_has_four_different_options(questions: list[Question]) -> None:
    assert all(len(q.options) == len(set(q.options)) == OPTIONS and 0 <= q.answer < OPTIONS for q in questions)


def test_no_two_questions_are_equal(questions: list[Question]) -> None:
    assert len({q.text_hash for q in questions}) == len({q.id for q in questions}) == len(questions) == 57 * 120


def test_the_letters_are_balanced_in_every_task(questions: list[Question]) -> None:
    letters: dict[str, Counter[int]] = defaultdict(Counter)
    for q in questions:
        letters[q.task][q.answer] += 1
    for count in letters.values():
        assert [count[letter] for letter in range(OPTIONS)] == [30, 30, 30, 30]


@pytest.mark.parametrize(("seed", "per_task"), [(-1, 120), (0, 9)])
def test_arguments_out_of_range_say_what_to_use(seed: int, per_task: int) -> None:
    with pytest.raises(DataError, match="at least 10 questions per task"):
        generate(seed, per_task)


# --- one right option

_PATTERNS = [
    re.compile(re.escape(template).replace(r"\{subject\}", "(?P<subject>.+)").replace(r"\{0\}", "(?P<a>.+)")
               .replace(r"\{1\}", "(?P<b>.+)").replace(r"\{2\}", "(?P<c>.+)"))
    for shown in sorted(TEMPLATES, reverse=True)  # the longest first: "{0}" alone would match "{0} and {1}" too
    for template in TEMPLATES[shown]
]  # fmt: skip


def subjects_that_fit(text: str) -> tuple[set[str], set[str]]:
    """The subjects that a question's text allows, read from the text alone, and the terms it shows."""
    titles = {subject.title: name for name, subject in MMLU.items()}
    for pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        found = match.groupdict()
        if "subject" in found:
            if found["subject"] in titles:
                return {titles[found["subject"]]}, set()
            continue
        shown = set(found.values())
        fitting = {name for name, listed in terms().items() if shown <= set(listed)}
        if fitting:
            return fitting, shown
    raise AssertionError(f"no template and no subject fits {text!r}")


def assert_one_right_option(q: Question) -> None:
    fitting, shown = subjects_that_fit(q.text)
    right = q.options[q.answer]
    assert q.task in fitting
    assert right in terms()[q.task]
    assert not shown & set(q.options)
    allowed = {term for name in fitting for term in terms()[name]}
    assert [option for option in q.options if option in allowed] == [right], q


def test_exactly_one_option_fits_what_the_question_shows(questions: list[Question]) -> None:
    for q in questions:
        assert_one_right_option(q)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), per_task=st.integers(10, 30))
def test_every_seed_and_size_gives_distinct_questions_with_one_right_option(seed: int, per_task: int) -> None:
    made = list(all_questions(generate(seed, per_task)))
    assert len({q.text_hash for q in made}) == len(made) == 57 * per_task
    for q in made:
        assert_one_right_option(q)


def test_most_questions_do_not_name_their_subject_and_some_fit_several(questions: list[Question]) -> None:
    named = sum(q.text.removesuffix("?").endswith(MMLU[q.task].title) for q in questions)
    several = sum(len(subjects_that_fit(q.text)[0]) > 1 for q in questions)
    assert 0.10 < named / len(questions) < 0.25
    assert several / len(questions) > 0.03


def test_wrong_options_come_mostly_from_near_subjects(questions: list[Question]) -> None:
    category: dict[str, set[str]] = defaultdict(set)
    subcategory: dict[str, set[str]] = defaultdict(set)
    for name, listed in terms().items():
        for term in listed:
            category[term].add(MMLU[name].category)
            subcategory[term].add(MMLU[name].subcategory)
    wrong = [(q.task, o) for q in questions for i, o in enumerate(q.options) if i != q.answer]
    in_category = sum(MMLU[task].category in category[term] for task, term in wrong) / len(wrong)
    in_subcategory = sum(MMLU[task].subcategory in subcategory[term] for task, term in wrong) / len(wrong)
    assert in_category > 0.6
    assert in_subcategory > 0.3
    assert in_category < 0.95


def test_a_few_terms_of_a_subject_are_common_and_many_are_rare(questions: list[Question]) -> None:
    rights = Counter((q.task, q.options[q.answer]) for q in questions)
    by_rank = [sorted((rights[name, term] for term in listed), reverse=True) for name, listed in terms().items()]
    commonest = sum(counts[0] for counts in by_rank)
    middle = sum(counts[len(counts) // 2] for counts in by_rank)
    rarest = sum(counts[-1] for counts in by_rank)
    # r ** -0.8 makes the first of 22 terms 6.8 times as likely as the eleventh.
    assert commonest > 4 * middle > 8 * rarest


# --- shortcuts


def accuracy(made: list[Question], choose: Callable[[Question], int]) -> float:
    return sum(choose(q) == q.answer for q in made) / len(made)


def test_the_longest_and_the_shortest_option_are_no_shortcut(questions: list[Question]) -> None:
    longest = accuracy(questions, lambda q: max(range(OPTIONS), key=lambda i: len(q.options[i])))
    shortest = accuracy(questions, lambda q: min(range(OPTIONS), key=lambda i: len(q.options[i])))
    assert 0.22 < longest < 0.28
    assert 0.22 < shortest < 0.28


@pytest.mark.parametrize("seed", [0, 1])
def test_the_frequency_of_a_term_as_right_option_is_no_shortcut(seed: int) -> None:
    made = list(all_questions(generate(seed)))
    random.Random(seed).shuffle(made)
    train, test = made[: int(0.8 * len(made))], made[int(0.9 * len(made)) :]
    right = Counter(q.options[q.answer] for q in train)
    seen = Counter(option for q in train for option in q.options)

    def chance_of_being_right(option: str) -> float:
        return (right[option] + 1) / (seen[option] + OPTIONS)

    # Bounds on both sides: a classifier well below chance could be turned round. Five standard errors.
    assert 0.18 < accuracy(test, lambda q: max(range(4), key=lambda i: chance_of_being_right(q.options[i]))) < 0.32
    assert 0.18 < accuracy(test, lambda q: max(range(4), key=lambda i: seen[q.options[i]])) < 0.32


def test_knowing_the_subjects_terms_of_the_training_questions_answers_most_test_questions() -> None:
    made = list(all_questions(generate()))
    random.Random(0).shuffle(made)
    train, test = made[: int(0.8 * len(made))], made[int(0.9 * len(made)) :]
    known = {(q.task, term) for q in train for term in (q.options[q.answer], *subjects_that_fit(q.text)[1])}
    answerable = accuracy(test, lambda q: max(range(4), key=lambda i: (q.task, q.options[i]) in known))
    assert answerable > 0.9


# --- determinism


def test_equal_seeds_give_equal_corpora_and_others_do_not() -> None:
    assert generate(3, 12).parts == generate(3, 12).parts
    assert generate(3, 12).fingerprint != generate(4, 12).fingerprint


def test_processes_with_different_hash_seeds_make_the_same_corpus() -> None:
    program = "from accl.data.synthetic import generate; print(generate(5, 20).fingerprint)"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    assert printed == [generate(5, 20).fingerprint] * 2
