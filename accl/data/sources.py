"""Where questions come from: the Hub, a local folder, or the built-in benchmark."""

from __future__ import annotations

from pathlib import Path

from accl.data.questions import Corpus
from accl.errors import DataError

SOURCES = ("hub", "folder", "synthetic")


def load_corpus(source: str, path: str, revision: str = "") -> Corpus:
    """All questions of a source.

    Args:
        source: ``hub``, ``folder`` or ``synthetic``.
        path: id of a Hub data set, or a local folder; not used by ``synthetic``.
        revision: commit of the Hub data set; used by ``hub`` alone.

    Raises:
        DataError: a folder without questions, or questions that are malformed.
        HubError: the Hub's data set is neither cached nor within reach.
    """
    if source == "synthetic":
        from accl.data import synthetic

        return synthetic.generate()
    from accl.data import folders

    if source == "folder":
        return folders.read_folder(Path(path).expanduser())
    if source == "hub":
        from accl.data import hub

        snapshot = hub.fetch_data(path, revision)
        return folders.read_parquet(snapshot / "all", f"Hub data set {path}, config all", revision)
    raise DataError(f"Unknown data source {source!r}.", f"There are: {', '.join(SOURCES)}.")
