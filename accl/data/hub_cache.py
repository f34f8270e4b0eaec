"""The Hugging Face Hub's own cache on this machine, read with care: it may be damaged or cut off half-way."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from accl.errors import HubError
from accl.files import open_regular

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def sound_snapshot(repo: str, kind: Kind, revision: str) -> Path | None:
    """Return the folder of a revision in the local cache, with every file as it was fetched; None without one.

    The cache names the file behind each link of a snapshot by its checksum. A snapshot without links, as on a file
    system that has none, is taken as it is.

    Args:
        revision: a commit, a branch or a tag; empty for ``main``.

    Raises:
        HubError: a file is damaged, or ``HF_ENDPOINT`` is no address.
    """
    if problem := endpoint_problem():
        raise HubError(f"{problem}.", "Type: unset HF_ENDPOINT")
    from huggingface_hub import constants

    # The cache's documented layout: models--ORG--NAME/snapshots/COMMIT, and refs/BRANCH that holds a commit
    folder = Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *repo.split("/")])
    commit = revision
    if not _COMMIT.fullmatch(revision):
        reference = folder / "refs" / (revision or "main")
        with (
            suppress(OSError, ValueError),
            open(open_regular(reference), "rb") as file,
        ):  # missing or damaged: fetched again
            commit = file.read(100).decode().strip()
    snapshot = folder / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not os.path.isdir(snapshot):
        return None
    for path in sorted(snapshot.rglob("*")):
        if path.is_symlink() and (damage := _damage(path)):
            raise HubError(f"{path} {damage}.", f"Remove {folder}, and the next run fetches it again.")
    return snapshot


def endpoint_problem() -> str:
    """Say why ``HF_ENDPOINT`` cannot be an address; empty when it can. The Hub's package may not even import then."""
    with suppress(ValueError):  # an address that cannot be taken apart
        parts = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co").strip())
        _ = parts.port
        if parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", parts.geturl()):
            return ""
    return "HF_ENDPOINT is no address of a Hub, such as https://huggingface.co"


def _damage(link: Path) -> str:
    """Say what is wrong with a file of a snapshot; empty when nothing is, or when it is not there at all."""
    try:
        state = link.stat()
        sound = _is_sound(link.resolve(), state.st_size, (state.st_ino, state.st_mtime_ns))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    return "" if sound else "is not as it was fetched"


@cache
def _is_sound(blob: Path, size: int, _version: tuple[int, int]) -> bool:
    """Return whether a file's name is its checksum; asked once for each version of the file."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return True  # a mirror that has names of its own
    with open(open_regular(blob), "rb") as file:
        if len(blob.name) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == blob.name
        # Git's checksum begins with the size; a mirror's may be of the content alone.
        git = hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % size)).hexdigest()
        file.seek(0)
        return blob.name in (git, hashlib.file_digest(file, "sha1").hexdigest())
