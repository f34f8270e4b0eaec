"""The training process: ``python -m accl.training RUN_DIR``. It talks to the world through the run directory only."""
