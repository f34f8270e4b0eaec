"""Fetch a data set of MMLU's layout from the Hugging Face Hub, at a pinned commit.

``data.path`` is the id of the data set, ``data.revision`` the commit. Only the parquet files of its config ``all`` are
fetched, once; afterwards the local cache is used.
"""

from pathlib import Path

from accl.data import hub
from accl.data.questions import Corpus


def folder(path: str, revision: str) -> Path:
    """Fetch the data set, and return the folder of its files; raises `HubError` where it is not to be had."""
    return hub.fetch_data(path, revision) / "all"


def read(folder: Path, path: str, revision: str) -> Corpus:
    """Return the corpus of what was fetched; raises `DataError` where it is malformed."""
    from accl.data.parquet import read_parquet  # here: what was read before is loaded without it

    return read_parquet(folder, f"Hub data set {path}, config all", revision)


def load(path: str, revision: str) -> Corpus:
    """Return the corpus; raises as `folder` and `read`."""
    return read(folder(path, revision), path, revision)
