"""Checks before a run is created: its GPU, questions and encoder exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accl.config import Config
from accl.config.weights import read_weights
from accl.data import hub
from accl.data.sources import load_corpus
from accl.errors import DeviceError
from accl.launch.gpus import gpus


def check(config: Config, notify: Callable[[str], None]) -> None:
    """Make sure that a run of this configuration can start, and download what it needs from the Hub.

    Args:
        notify: called with a few words before every slow operation.

    Raises:
        DeviceError, DataError, HubError, ConfigError: something that the run needs is missing.
    """
    if config.train.device == "cuda" and not gpus():
        raise DeviceError(
            f"Profile {config.profile} trains on a GPU (train.device=cuda) and no NVIDIA GPU was found.",
            "Try: accl train full --profile demo   or: --set train.device=cpu",
        )
    name = config.model.name
    if not name.startswith("random:"):
        if hub.is_local(name):
            hub.local_model(name)
        elif not hub.cached_model(name, config.model.revision):
            notify(f"fetching {name} from the Hub")
            hub.fetch_model(name, config.model.revision)
    if config.data.source == "hub":
        notify(f"fetching {config.data.path} from the Hub")
    corpus = load_corpus(config.data.source, config.data.path, config.data.revision)
    if config.curriculum.weights_file is not None:
        read_weights(Path(config.curriculum.weights_file), [subject.name for subject in corpus.subjects])
