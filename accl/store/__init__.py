"""The run directory and its DuckDB file, where the training process and its watchers meet; see README.md."""
