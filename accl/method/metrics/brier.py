"""Brier score: mean squared distance of the probabilities from the right answer, in [0, 2].

    mean_i sum_c (p_ic - y_ic)^2

with y the one-hot right option.

Source: Brier, Monthly Weather Review 78 (1950), in its form for several classes.
"""

import numpy as np

from accl.method.answers import Answers

LABEL = "Brier"
UNIT = ""


def compute(answers: Answers) -> float:
    right_NC = np.eye(answers.probabilities.shape[1])[answers.gold]
    return float(((answers.probabilities - right_NC) ** 2).sum(1).mean())
