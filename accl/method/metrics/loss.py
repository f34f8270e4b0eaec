"""Mean cross-entropy of the right options.

- mean_i log p_i[gold_i]
"""

import numpy as np

from accl.method.answers import Answers

LABEL = "loss"
UNIT = "nats"


def compute(answers: Answers) -> float:
    """Return the mean in nats; a probability of 0 counts as the smallest positive float64."""
    right_N = answers.probabilities[np.arange(len(answers.gold)), answers.gold]
    return float(-np.log(np.maximum(right_N, np.finfo(np.float64).tiny)).mean())
