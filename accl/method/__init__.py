"""The method, in pure torch: it takes tensors and plain values and knows no config, no store and no loop.

Shapes are part of tensor names: B questions of a batch, L tokens, D hidden, E contrastive dimensions,
K tasks, C choices, M contrast candidates (the batch and the memory bank), S slots of the bank per task.
"""
