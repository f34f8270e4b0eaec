"""The built-in benchmark: MMLU's 57 subjects, asked about with real terms of each subject.

Every question asks for a term of its subject; ``terms.yaml`` lists the terms of each. Related subjects share terms,
most questions do not name their subject, and most wrong options come from neighbouring subjects, so that the
confusion between tasks has the shape of MMLU's taxonomy.

Three properties hold by construction:

- One right option. With S the subjects that fit everything the question shows (the one it names, or all whose
  lists contain every term it shows), no wrong option belongs to a subject in S.
- No shortcut through the options. A term is expected as a wrong option 3 times as often as it is expected as
  the right one, so neither the term itself nor its length or number of words says whether it is right.
- No shortcut through the position. Each letter is right equally often in every task (up to one question).

Arrays carry their axes in their names: K subjects, V terms, G groups of questions, N questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from accl.data.questions import Corpus, Question
from accl.data.subjects import MMLU, Subject
from accl.errors import DataError

OPTIONS = 4
DEV_PER_TASK = 5
VALIDATION_SHARE = 0.10

# Question texts by the number of terms they show. Those without one name the subject instead.
TEMPLATES: dict[int, tuple[str, ...]] = {
    0: ("Which term belongs to {subject}?", "What is taught in {subject}?"),
    1: ("Which term goes with {0}?", "What is studied beside {0}?"),
    2: ("Which term goes with {0} and {1}?", "What is studied beside {0} and {1}?"),
    3: ("Which term goes with {0}, {1} and {2}?", "What is studied beside {0}, {1} and {2}?"),
}

# Share of questions that show 0, 1, 2 and 3 terms.
SHOWN_SHARES = (0.15, 0.35, 0.30, 0.20)
# Share of wrong options from the same subcategory, the rest of the category, and everywhere else. The balance of
# terms (`_balanced_rates`) comes first, so what is drawn is near these shares and not equal to them.
RING_SHARES = (0.60, 0.25, 0.15)
# The term of rank r within its subject is drawn with a probability proportional to r ** -ZIPF.
ZIPF = 0.8
# Enough for expected uses within 1e-5 of their target.
BALANCING_ROUNDS = 12


@cache
def terms() -> dict[str, tuple[str, ...]]:
    """Return the terms of each subject, by subject name in task order."""
    text = Path(__file__).with_name("terms.yaml").read_text(encoding="utf-8")
    listed: dict[str, list[str]] = yaml.safe_load(text)
    return {name: tuple(listed[name]) for name in sorted(listed)}


@dataclass(frozen=True)
class _Vocabulary:
    """The K subjects, all their V terms once, and the relation of each term to each subject.

    Attributes:
        own: [K, V] whether the term is in the subject's list.
        near: [K, V] weight of the term as a wrong option for the subject; 0 for the subject's own terms.
    """

    subjects: tuple[Subject, ...]
    names: tuple[str, ...]
    own: NDArray[np.bool_]
    near: NDArray[np.float64]


@dataclass(frozen=True)
class _Draft:
    """A question without its wrong options; ``fitting`` are the subjects that fit everything it shows."""

    task: int
    text: str
    right: int
    letter: int
    fitting: tuple[int, ...]


@cache
def _vocabulary() -> _Vocabulary:
    lists = terms()
    subjects = tuple(MMLU[name] for name in lists)
    names = tuple(sorted({term for listed in lists.values() for term in listed}))
    index = {name: i for i, name in enumerate(names)}
    own_KV = np.zeros((len(subjects), len(names)), dtype=np.bool_)
    for task, listed in enumerate(lists.values()):
        own_KV[task, [index[term] for term in listed]] = True

    near_KV = np.zeros(own_KV.shape)
    for task, subject in enumerate(subjects):
        rings_K = np.array([_ring(subject, other) for other in subjects])
        # A shared term lies in the ring of the nearest subject that has it.
        ring_V = np.where(own_KV, rings_K[:, None], len(RING_SHARES)).min(axis=0)
        for ring, share in enumerate(RING_SHARES):
            inside_V = (ring_V == ring) & ~own_KV[task]
            near_KV[task, inside_V] = share / max(int(inside_V.sum()), 1)
    return _Vocabulary(subjects, names, own_KV, near_KV)


def _ring(subject: Subject, other: Subject) -> int:
    """Return the index into ``RING_SHARES`` of ``other`` as seen from ``subject``."""
    if other.subcategory == subject.subcategory:
        return 0
    return 1 if other.category == subject.category else 2


def _term_chances(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the [K, V] probability of each term within its subject; the ranks of the terms are random."""
    own_KV = _vocabulary().own
    chance_KV = np.zeros(own_KV.shape)
    for task, own_V in enumerate(own_KV):
        weights = np.arange(1, int(own_V.sum()) + 1) ** -ZIPF
        chance_KV[task, own_V] = rng.permutation(weights / weights.sum())
    return chance_KV


def _first_arrivals(rate: NDArray[np.float64], rows: int, first: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw [rows, first] indices without replacement in proportion to ``rate``, in the order drawn.

    In this exponential race, item i arrives after an exponential time of rate i, and the first to arrive are drawn.
    """
    with np.errstate(divide="ignore"):
        arrival = rng.standard_exponential((rows, len(rate))) / rate
    return np.argpartition(arrival, range(first), axis=1)[:, :first]


def _draft_task(task: int, chance_V: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[_Draft]:
    """Draft ``count`` questions of one task, without their wrong options."""
    vocabulary = _vocabulary()
    letters = rng.permutation(np.arange(count) % OPTIONS).tolist()
    shown_counts = rng.choice(len(SHOWN_SHARES), size=count, p=SHOWN_SHARES).tolist()
    drawn = _first_arrivals(chance_V, count, len(SHOWN_SHARES), rng).tolist()
    drafts = []
    for letter, shown_count, (right, *others) in zip(letters, shown_counts, drawn, strict=True):
        shown = others[:shown_count]
        template = TEMPLATES[shown_count][int(rng.integers(len(TEMPLATES[shown_count])))]
        text = template.format(*(vocabulary.names[i] for i in shown), subject=vocabulary.subjects[task].title)
        # Several subjects can fit the terms shown, and a term of any of them would be a right answer.
        fitting = np.flatnonzero(vocabulary.own[:, shown].all(axis=1)).tolist() if shown else [task]
        drafts.append(_Draft(task, text, right, letter, tuple(fitting)))
    return drafts


def _balanced_rates(
    near_GV: NDArray[np.float64], size_G: NDArray[np.float64], target_V: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [G, V] rates of the race for wrong options, such that term v is expected ``target_V[v]`` times.

    rate[g, v] = near[g, v] * scale[v] * time[g]. On average 3 options arrive by time 1, that is
    sum_v (1 - exp(-rate[g, v])) = 3; and sum_g size[g] * (1 - exp(-rate[g, v])) = target[v]. The two
    conditions are imposed in turn (iterative proportional fitting). Expectations are balanced and not counts:
    with exact counts, the terms of the training questions would tell what is left for the test questions.
    """
    rate_GV = near_GV.copy()
    for _ in range(BALANCING_ROUNDS):
        arrived_GV = -np.expm1(-rate_GV)
        rate_GV *= (OPTIONS - 1) / arrived_GV.sum(axis=1, keepdims=True)
        arrived_GV = -np.expm1(-rate_GV)
        rate_GV *= target_V / (size_G @ arrived_GV)
    return rate_GV


def _wrong_options(
    drafts: Sequence[_Draft], chance_KV: NDArray[np.float64], rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Draw three wrong options for every draft, such that no two questions are equal."""
    vocabulary = _vocabulary()
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, draft in enumerate(drafts):
        groups.setdefault((draft.task, draft.fitting), []).append(i)
    near_GV = np.array(
        [np.where(vocabulary.own[list(fitting)].any(axis=0), 0.0, vocabulary.near[task]) for task, fitting in groups]
    )
    size_G = np.array([len(members) for members in groups.values()], dtype=np.float64)
    per_task = len(drafts) / len(vocabulary.subjects)
    rate_GV = _balanced_rates(near_GV, size_G, (OPTIONS - 1) * per_task * chance_KV.sum(axis=0))

    wrong_N: list[tuple[int, ...]] = [()] * len(drafts)
    drawn_before: set[tuple[str, frozenset[int]]] = set()
    for rate_V, pending in zip(rate_GV, groups.values(), strict=True):
        while pending:
            drawn = _first_arrivals(rate_V, len(pending), OPTIONS - 1, rng).tolist()
            for i, wrong in zip(pending, drawn, strict=True):
                question = (drafts[i].text, frozenset([drafts[i].right, *wrong]))
                if question not in drawn_before:
                    drawn_before.add(question)
                    wrong_N[i] = tuple(wrong)
            pending = [i for i in pending if not wrong_N[i]]
    return wrong_N


def _question(draft: _Draft, wrong: tuple[int, ...], part: str, number: int) -> Question:
    vocabulary = _vocabulary()
    options = [vocabulary.names[i] for i in wrong]
    options.insert(draft.letter, vocabulary.names[draft.right])
    name = vocabulary.subjects[draft.task].name
    return Question(f"{part}/{name}/{number}", name, draft.text, tuple(options), draft.letter)


def generate(seed: int = 0, questions_per_task: int = 120) -> Corpus:
    """Generate the benchmark: ``questions_per_task`` questions of 4 options for each of the 57 subjects.

    Each task has 5 ``dev`` questions, 10 % (rounded down) ``validation`` questions and ``test`` questions for
    the rest. No two questions of the corpus are equal (`Question.text_hash`). Equal arguments give equal
    corpora in every process (numpy may change its random streams between its versions).

    Args:
        seed: start of all random draws; not negative.
        questions_per_task: at least 10.

    Raises:
        DataError: an argument is out of its range.
    """
    if seed < 0 or questions_per_task < 2 * DEV_PER_TASK:
        what = f"The synthetic benchmark cannot have seed {seed} and {questions_per_task} questions per task."
        raise DataError(what, f"Use a seed of at least 0 and at least {2 * DEV_PER_TASK} questions per task.")
    subjects = _vocabulary().subjects
    whole = np.random.default_rng([seed, len(subjects)])
    chance_KV = _term_chances(whole)
    drafts = [
        draft
        for task, chance_V in enumerate(chance_KV)
        for draft in _draft_task(task, chance_V, questions_per_task, np.random.default_rng([seed, task]))
    ]
    wrong_N = _wrong_options(drafts, chance_KV, whole)

    starts = {"dev": 0, "validation": DEV_PER_TASK, "test": DEV_PER_TASK + int(VALIDATION_SHARE * questions_per_task)}
    parts: dict[str, list[Question]] = {part: [] for part in starts}
    for i, (draft, wrong) in enumerate(zip(drafts, wrong_N, strict=True)):
        number = i % questions_per_task
        part = max((part for part in starts if starts[part] <= number), key=starts.__getitem__)
        parts[part].append(_question(draft, wrong, part, number - starts[part]))
    return Corpus(subjects, parts, source="synthetic")
