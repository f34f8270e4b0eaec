"""Checks before a run is created: its GPU, questions and encoder exist."""

from __future__ import annotations

import os
from collections.abc import Callable

from accl.config import Config
from accl.data import hub
from accl.data.cache import cache_folder, refusal
from accl.data.sources import load_corpus
from accl.errors import DeviceError, RunError
from accl.launch.checks import unwritable
from accl.launch.gpus import absence, gpus, torch_cuda


def check(config: Config, notify: Callable[[str], None]) -> None:
    """Make sure that a run of this configuration can start, and download what it needs from the Hub.

    Args:
        notify: called with a few words before every slow operation.

    Raises:
        DeviceError, DataError, HubError, ConfigError, RunError: something that the run needs is missing.
    """
    try:
        os.getcwd()
    except OSError as error:  # torch cannot be loaded there
        raise RunError("The current folder has been removed.", "Change to one that exists.") from error
    if config.train.device == "cuda":
        _check_gpu(config.profile)
    folder = cache_folder()
    problem = refusal(folder)
    if problem is None and folder is not None and (reason := unwritable(folder)):
        problem = f"the cache folder {folder} {reason}"
    if problem:
        notify(f"warning: nothing is cached: {problem}")
    name = config.model.name
    if not name.startswith("random:"):
        if hub.is_local(name):
            hub.local_model(name)
        elif not hub.cached_model(name, config.model.revision):
            notify(f"fetching {name} from the Hub")
            hub.fetch_model(name, config.model.revision)
    if config.data.source == "hub":
        notify(f"fetching {config.data.path} from the Hub")
    load_corpus(config.data.source, config.data.path, config.data.revision)


def _check_gpu(profile: str) -> None:
    if not gpus():
        lacking = f"there is {absence()}"
    elif torch_cuda() is None:
        lacking = "the installed torch is a build for CPUs"
    else:
        return
    raise DeviceError(
        f"Profile {profile} trains on a GPU (train.device=cuda), but {lacking}.",
        "Try: accl train full --profile demo   or: --set train.device=cpu",
    )
