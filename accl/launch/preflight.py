"""What can be known to fail before anything is written: a GPU, questions or an encoder that are not there."""

from __future__ import annotations

from collections.abc import Callable

from accl.config import Config
from accl.data import hub
from accl.data.sources import load_corpus
from accl.errors import DeviceError
from accl.launch.gpus import gpus


def check(config: Config, tell: Callable[[str], None]) -> None:
    """Make sure that a run of this configuration can start; downloads what it needs from the Hub.

    Args:
        tell: is told of what takes a while.

    Raises:
        DeviceError, DataError, HubError, ConfigError: what is missing, and what to type next.
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
            tell(f"fetching {name} from the Hub")
            hub.fetch_model(name, config.model.revision)
    if config.data.source == "hub":
        tell(f"fetching {config.data.path} from the Hub")
    load_corpus(config.data.source, config.data.path, config.data.revision)
