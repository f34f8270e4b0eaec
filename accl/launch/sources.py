"""What `accl doctor` looks at beyond the machine: the Hub, and the models and data of the profiles."""

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

HUB_SECONDS = 1.0  # a doctor should answer at once; a Hub slower than this is of little use


class Answer:
    """Asks the Hub on a thread: a name server that is out of reach waits longer than any timeout of ours."""

    def __init__(self) -> None:
        from huggingface_hub import get_session

        get_session()  # made here, so that only the asking itself is on the clock
        self._reachable = False
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        self._reachable = hub.reachable(HUB_SECONDS)

    def wait(self) -> bool:
        """Whether it answered, within `HUB_SECONDS`."""
        self._thread.join(HUB_SECONDS)
        return self._reachable


def from_hub(config: Config) -> bool:
    """Whether its model or data may have to be fetched."""
    name = config.model.name
    return config.data.source == "hub" or not (name.startswith("random:") or hub.is_local(name))


def hub_answer(reachable: bool) -> Check:
    """The line on the Hub."""
    if reachable:
        return Check("Hub", Level.OK, f"{hub.endpoint()} answers")
    advice = "Fine if model and data are cached. Else use local folders: --set data.path=DIR --set model.name=DIR"
    said = "HF_HUB_OFFLINE is set" if hub.is_offline() else f"{hub.endpoint()} is out of reach"
    return Check("Hub", Level.WARN, said, advice)


def model_and_data(configs: Mapping[str, Config], reachable: bool) -> Iterator[Check]:
    """One line for each model and each data set, however many profiles share it."""
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
    said = f"{repo} is neither cached nor within reach (needed by {' and '.join(users)})"
    return Check(part, Level.FAIL, said, advice, frozenset(users))
