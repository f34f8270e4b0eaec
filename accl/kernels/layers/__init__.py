"""Transformers' own layers on packed sequences, under autograd.

Everything but attention treats tokens one by one, so a stream of T tokens without padding goes through an encoder's
layers as one long sequence; attention alone has to know where sequences begin and end. Letters for tensor shapes:

    T   tokens of the stream
    N   sequences of the stream
    D   hidden size, H heads of Dh channels each
    P   rows of all chunks: tokens and the padding of the shorter sequences of each chunk
    L   length of the sequences of one chunk, n sequences of the chunk
    E   distances between tokens of a chunk, 2 L - 1; that of query i and key j, i - j, is at index i - j + L - 1
"""
