"""Mean over tasks of the share of their questions that are answered right; tasks without questions do not count."""

import numpy as np

from accl.method.answers import Answers

LABEL = "macro"
UNIT = "share"


def compute(answers: Answers) -> float:
    return float(np.mean([correct / n for _, n, correct in answers.per_task()]))
