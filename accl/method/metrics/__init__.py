"""Metrics of an evaluation: every one is computed at every evaluation, and recorded under the name of its file.

Each file defines, with numpy alone::

    LABEL = "accuracy"  # the header of tables
    UNIT = "share"      # of the number that is returned; empty for one without

    def compute(answers: Answers) -> float

where `accl.method.answers.Answers` holds the probabilities, N x C, the right options and the tasks of N >= 1 questions.
"""
