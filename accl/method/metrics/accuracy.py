"""Share of all questions that are answered right (micro average)."""

from accl.method.answers import Answers

LABEL = "accuracy"
UNIT = "share"


def compute(answers: Answers) -> float:
    return float(answers.correct.mean())
