"""Forms of the contrastive loss: what the positives of an anchor are divided by.

Each file defines::

    def compute_losses(pairs: Pairs, log_negatives_B: Tensor, parameter: float) -> Tensor

which returns the loss of each anchor, B, from the pairs (`accl.method.pairs`) and the logarithm of its negative sum
(`accl.method.negatives`); finite also for anchors without a positive or a negative, which do not count. A form with a
number in brackets declares ``PARAMETER``, as `accl.choices` describes it; else the number is NaN.
"""
