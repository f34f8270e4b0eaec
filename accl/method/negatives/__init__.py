"""Forms of negatives: which negatives an anchor is contrasted with, in the batch and the memory bank together.

Each file defines::

    def select(pairs: Pairs, parameter: float) -> tuple[Tensor, Tensor]

which returns the negatives that are kept, a mask B x M within ``pairs.negative_BM``, and the logarithm of each anchor's
negative sum, log sum exp(s_in) over them, B (`accl.method.pairs` documents `Pairs`). An anchor whose mask is empty does
not count; its sum must be finite all the same. A form with a number in brackets declares ``PARAMETER``, as
`accl.choices` describes it.
"""
