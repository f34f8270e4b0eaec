"""Read a folder of this machine: Hendrycks CSV, parquet, or a ``save_to_disk`` folder.

``data.path`` is the folder; `accl.data.folders` describes the layouts. ``data.revision`` is not used.
"""

from pathlib import Path

from accl.data.folders import read_folder
from accl.data.questions import Corpus
from accl.errors import DataError


def load(path: str, _revision: str) -> Corpus:
    """Return the corpus; raises `DataError` for a folder without questions, or with malformed ones."""
    try:
        folder = Path(path).expanduser()
    except RuntimeError as error:  # ~name of nobody, or no home
        raise DataError(f"data.path={path}: {error}", "Write the folder's whole path.") from error
    return read_folder(folder)
