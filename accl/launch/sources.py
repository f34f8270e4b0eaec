"""Checks of `accl doctor` beyond the machine: the Hub, and models and data of the profiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from accl.config import Config
from accl.data import hub
from accl.data.sources import load_corpus
from accl.errors import AcclError
from accl.launch.check import Check, Level

HUB_SECONDS = 1.0  # a Hub slower than this counts as out of reach


class HubProbe:
    """Request to the Hub on a thread, because name resolution ignores the timeout of the request."""

    def __init__(self) -> None:
        from huggingface_hub import get_session

        get_session()  # made here, so that the timeout covers the request alone
        self._reachable = False
        self._thread = threading.Thread(target=self._request, daemon=True)
        self._thread.start()

    def _request(self) -> None:
        self._reachable = hub.reachable(HUB_SECONDS)

    def wait(self) -> bool:
        """Return whether the Hub answered within `HUB_SECONDS`."""
        self._thread.join(HUB_SECONDS)
        return self._reachable


def from_hub(config: Config) -> bool:
    """Return whether model or data may have to be fetched from the Hub."""
    name = config.model.name
    return config.data.source == "hub" or not (name.startswith("random:") or hub.is_local(name))


def check_hub(reachable: bool) -> Check:
    """Return the check of the Hub itself."""
    if reachable:
        return Check("Hub", Level.OK, f"{hub.endpoint()} answers")
    advice = "Fine if model and data are cached. Else use local folders: --set data.path=DIR --set model.name=DIR"
    finding = "HF_HUB_OFFLINE is set" if hub.is_offline() else f"{hub.endpoint()} is out of reach"
    return Check("Hub", Level.WARN, finding, advice)


def check_sources(configs: Mapping[str, Config], reachable: bool) -> Iterator[Check]:
    """Yield one check for every model and every data set that the profiles name."""
    models: dict[tuple[str, str], list[str]] = {}
    sets: dict[tuple[str, str, str], list[str]] = {}
    for name, config in configs.items():
        models.setdefault((config.model.name, config.model.revision), []).append(name)
        sets.setdefault((config.data.source, config.data.path, config.data.revision), []).append(name)
    for (name, revision), users in models.items():
        if name.startswith("random:"):
            yield Check("model", Level.OK, f"{name} comes with accl")
        elif hub.is_local(name):
            yield _local("model", name, partial(hub.local_model, name), users)
        else:
            yield _pinned("model", name, hub.cached_model(name, revision), users, reachable)
    for (source, path, revision), users in sets.items():
        if source == "synthetic":
            yield Check("data", Level.OK, "the built-in benchmark comes with accl")
        elif source == "hub":
            yield _pinned("data", path, hub.cached_data(path, revision), users, reachable)
        else:
            yield _local("data", path, partial(load_corpus, source, path, revision), users)


def _local(part: str, folder: str, load: Callable[[], object], users: Sequence[str]) -> Check:
    try:
        load()
    except AcclError as error:
        return Check(part, Level.FAIL, error.what, error.hint, frozenset(users))
    return Check(part, Level.OK, f"{folder} is complete")


def _pinned(part: str, repo: str, cached: Path | None, users: Sequence[str], reachable: bool) -> Check:
    if cached is not None:
        return Check(part, Level.OK, f"{repo} is cached")
    if reachable:
        return Check(part, Level.OK, f"{repo} is not cached; the first run fetches it")
    advice = f"Connect to the Hub, or use a local folder: --set {'model.name' if part == 'model' else 'data.path'}=DIR"
    finding = f"{repo} is neither cached nor within reach (needed by {' and '.join(users)})"
    return Check(part, Level.FAIL, finding, advice, frozenset(users))
