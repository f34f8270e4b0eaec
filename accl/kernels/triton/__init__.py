"""Triton kernels for encoders on packed sequences: forward and backward pass of DeBERTa and of BERT's kin, and AdamW.

Packed sequences lie end to end in one stream of tokens, without padding between them. Letters for tensor shapes, in
docstrings and as suffixes of names:

    T   tokens of the stream, the padding at its end included; a multiple of 128
    N   sequences of the stream, S segments of all sequences
    D   hidden size, H heads of Dh channels each, F size of the feed-forward layer
    W   rows of the position table
    R   max_distance: no sequence is longer; the relative distance d, in -R..R-1, is at index d + R of 2R
    Y   columns of a table by token and partner, see `accl.kernels.triton.tables`
    V   vocabulary of the tokenizer, V' rows of it that a corpus uses
    P   rows of partial sums, which another kernel adds up

In kernels DH is Dh, i and j are indices of query and key tokens, t is an index of any token and d of a channel. A seed
is one int64 on the device. Whatever the type of its inputs, a kernel computes in fp32; matrix products take operands of
the type of the inputs and accumulate in fp32.
"""

from accl.kernels.triton.loading import guard_loading

guard_loading()  # before any kernel is there
