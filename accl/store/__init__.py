"""What a run leaves behind: the run directory and its DuckDB file.

The training process and whoever watches it meet here and nowhere else.
"""
