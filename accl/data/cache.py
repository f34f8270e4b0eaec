"""The cache of derived files: what takes long to make is kept, and believed again only if it is what was kept.

A cache may be lost, damaged, planted or out of reach, and none of that changes a result or ends a run: a file that does
not carry its own checksum, or that another user could have written, is made again, and where nothing can be kept,
everything is made anew. Each of these is said in a warning.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from accl.errors import AcclError
from accl.files import read_trusted, replace_file, untrusted_folder

Item = TypeVar("Item")

_DIGEST_SIZE = 32


def cache_folder() -> Path | None:
    """Return the folder of derived files: ``ACCL_CACHE``, else ``accl`` in XDG's cache folder; None without a home."""
    chosen = os.environ.get("ACCL_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/accl"
    folder = os.path.expanduser(chosen)  # unlike Path.expanduser, it leaves a home that nobody knows as it is
    return None if folder.startswith("~") else Path(folder)


def refusal(folder: Path | None) -> str | None:
    """Return why derived files are neither read from a folder nor kept there, or None."""
    if folder is None:
        return "no home folder is known, so nothing is cached: set ACCL_CACHE to a folder"
    reason = untrusted_folder(folder, follow=True)
    return reason and f"the cache folder {folder}, which {reason}, is not used: set ACCL_CACHE to another folder"


class Cache:
    """Files that can always be made again, each under a name that says what it was made from.

    Attributes:
        warnings: what a user should know: why nothing is kept, and what was damaged and made again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.warnings: list[str] = []
        self._folder = folder
        if reason := refusal(folder):
            self._give_up(reason)

    def load_or_make(
        self,
        name: str,
        make: Callable[[], Item],
        encode: Callable[[Item], bytes],
        decode: Callable[[bytes], Item],
        mode: int = 0o644,
    ) -> Item:
        """Return what is kept under a name; where nothing sound is, make it and keep it.

        Two processes may do so at once: each sees a whole file or none.

        Args:
            name: of the file; names all that the item depends on.
            decode: inverse of ``encode``; raises `ValueError` for bytes that are no item.
            mode: permissions of a file that is kept.
        """
        damage = ""
        if self._folder is not None:
            try:
                return decode(self._read(self._folder / name))
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                damage = f"cannot be read ({error.strerror})"
            except (ValueError, AcclError) as error:
                damage = str(error)
        made = make()
        if self._folder is not None:
            path = self._folder / name
            self._write(path, encode(made), mode)
            if damage and self._folder is not None:
                self.warnings.append(f"{path}, which {damage}, was not used and is made again")
        return made

    def _read(self, path: Path) -> bytes:
        content = read_trusted(path)
        if content[:_DIGEST_SIZE] != _digest(path.name, content[_DIGEST_SIZE:]):
            raise ValueError("does not hold what was written")
        return content[_DIGEST_SIZE:]

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        content = _digest(path.name, content) + content
        try:
            # Whatever the umask, a folder or file that others can write to would not be believed.
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                replace_file(path, content, mode)
            except IsADirectoryError:
                path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}"))  # not ours to delete
                replace_file(path, content, mode)
        except OSError as error:
            where = f"the cache folder {path.parent} cannot be written ({error.strerror})"
            self._give_up(f"{where}, so nothing is cached: set ACCL_CACHE to another folder")

    def _give_up(self, reason: str) -> None:
        self._folder = None
        self.warnings.append(reason)


def _digest(name: str, content: bytes) -> bytes:
    """Return the checksum of a file's content under its name: under another name it is another file's."""
    digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST_SIZE)
    digest.update(b"\0")
    digest.update(content)
    return digest.digest()
