"""Rules that need no model: an arm that does not beat them has learned nothing about the questions.

Screens and databases call their accuracies floors.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from accl.data.questions import Question


def trivial_baselines(train: Sequence[Question], evaluated: Sequence[Question]) -> dict[str, float]:
    """Compute the accuracies on ``evaluated``, as shares, of two rules that do not read the question.

    ``majority_letter``: the most frequent answer letter of the task among the training questions (of all tasks
    for a task without any; the first letter wins a tie). ``longest_option``: the option with the most characters
    (the first one on a tie).

    Raises:
        ValueError: ``evaluated`` is empty.
    """
    if not evaluated:
        raise ValueError("no questions to compute trivial baselines on")
    per_task: dict[str, Counter[int]] = defaultdict(Counter)
    overall: Counter[int] = Counter()
    for q in train:
        per_task[q.task][q.answer] += 1
        overall[q.answer] += 1

    def majority(q: Question) -> int:
        counts = per_task.get(q.task) or overall
        return max(sorted(counts), key=counts.__getitem__, default=0)

    def longest(q: Question) -> int:
        return max(range(len(q.options)), key=lambda i: len(q.options[i]))

    rules = {"majority_letter": majority, "longest_option": longest}
    return {name: sum(q.answer == rule(q) for q in evaluated) / len(evaluated) for name, rule in rules.items()}
