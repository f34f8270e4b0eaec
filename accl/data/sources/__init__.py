"""Sources of questions: where a corpus comes from.

Each file defines::

    def load(path: str, revision: str) -> Corpus

with ``path`` and ``revision`` as in the configuration's ``data`` section, which a source may ignore; it raises a
`DataError` or `HubError` that says what to do where there are no usable questions. A source whose corpus follows from
the files of a folder defines ``load`` in two parts as well, so that what was read can be kept::

    def folder(path: str, revision: str) -> Path
    def read(folder: Path, path: str, revision: str) -> Corpus
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accl.choices import SOURCES
from accl.errors import DataError

if TYPE_CHECKING:
    from accl.data.cache import Cache
    from accl.data.questions import Corpus


def load_corpus(source: str, path: str, revision: str = "", cache: Cache | None = None) -> Corpus:
    """Load all questions of a source.

    Args:
        source: name of a file of this folder. path, revision: as that file's docstring says.
        cache: of questions that were read before; None reads them anew.

    Raises:
        DataError: no such source, a folder without questions, or questions that are malformed.
        HubError: the Hub's data set is neither cached nor within reach.
    """
    try:
        module, _ = SOURCES.load(source)
    except ValueError as error:
        raise DataError(f"Unknown data source {source!r}: {error}.", "See: accl config explain data.source") from error
    if cache is not None and hasattr(module, "folder"):
        from accl.data.corpus_cache import load_kept

        folder = module.folder(path, revision)
        return load_kept(folder, f"{source} {path} {revision}", lambda: module.read(folder, path, revision), cache)
    corpus: Corpus = module.load(path, revision)
    return corpus
