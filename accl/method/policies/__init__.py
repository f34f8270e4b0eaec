"""Policies: how task weights, the distribution p_K that the sampler draws tasks from, follow from the observations.

Each file defines::

    def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor

a pure function that returns p_K in float64 (`accl.method.curriculum` documents both arguments and holds what policies
share), and, where they differ from these defaults, the constants::

    UPDATES_NEEDED = 1   # updates of the curriculum before there is something to act on; 0: acts from the first step
    USES_EPSILON = True  # whether a share epsilon of the probability stays uniform

and ``PARAMETER``, as `accl.choices` describes it, if the policy takes a number in brackets.
"""
