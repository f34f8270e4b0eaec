"""The method, in pure torch: it takes tensors and plain values, and no config, store or loop.

The three ideas are `contrastive`, `confusion` and `curriculum`; `model` is the network. Policies, negatives, losses and
metrics are registries: every file of their folders is one choice (`accl.choices`).

Shapes are part of tensor names: B questions of a batch, L tokens, D hidden, E contrastive dimensions,
K tasks, C choices, M contrast candidates (the batch and the memory bank), S slots of the bank per task.
"""
