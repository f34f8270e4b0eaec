"""Read a folder of this machine: Hendrycks CSV, parquet, or a ``save_to_disk`` folder.

``data.path`` is the folder; `accl.data.folders` describes the layouts. ``data.revision`` is not used.
"""

from pathlib import Path

from accl.data.folders import read_folder
from accl.data.questions import Corpus


def load(path: str, _revision: str) -> Corpus:
    """Return the corpus; raises `DataError` for a folder without questions, or with malformed ones."""
    return read_folder(Path(path).expanduser())
