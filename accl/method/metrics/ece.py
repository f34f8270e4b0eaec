"""Expected calibration error: how far confidence is from accuracy, over 15 equal bins of confidence.

    sum_b |B_b| / N * | accuracy(B_b) - mean confidence(B_b) |

Source: Guo et al. (2017, arXiv 1706.04599).
"""

import numpy as np

from accl.method.answers import Answers

LABEL = "ECE"
UNIT = ""
BINS = 15


def compute(answers: Answers) -> float:
    confidence_N, correct_N = answers.probabilities.max(1), answers.correct
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    gaps = [
        abs(correct_N[bin_N == b].mean() - confidence_N[bin_N == b].mean()) * (bin_N == b).mean()
        for b in np.unique(bin_N)
    ]
    return float(np.sum(gaps))
