"""Share of all questions that are answered right (micro average)."""

from __future__ import annotations

from accl.method.answers import Answers

LABEL = "accuracy"
UNIT = "share"


def compute(answers: Answers) -> float:
    """Return the share in [0, 1]."""
    return float(answers.correct.mean())
