"""Fetch a data set of MMLU's layout from the Hugging Face Hub, at a pinned commit.

``data.path`` is the id of the data set, ``data.revision`` the commit. Only the parquet files of its config ``all`` are
fetched, once; afterwards the local cache is used.
"""

from accl.data import hub
from accl.data.parquet import read_parquet
from accl.data.questions import Corpus


def load(path: str, revision: str) -> Corpus:
    """Return the corpus; raises `HubError` where it is neither cached nor within reach, `DataError` if malformed."""
    snapshot = hub.fetch_data(path, revision)
    return read_parquet(snapshot / "all", f"Hub data set {path}, config all", revision)
