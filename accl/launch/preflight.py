"""Checks before a run is created: its GPU, questions and encoder exist and fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from accl.config import Config
from accl.config.weights import read_weights
from accl.data import hub
from accl.data.architectures import RANDOM, architecture, longest_input, read_architecture
from accl.data.cache import Cache, cache_folder, refusal
from accl.data.fit import check_batch, check_length, check_tasks, order_weights
from accl.data.prepared import PreparedData, prepare
from accl.errors import DeviceError, RunError
from accl.launch.checks import current_folder_removed, unwritable
from accl.launch.gpus import absence, gpus, torch_cuda


@dataclass(frozen=True)
class Findings:
    """Findings of a check that found nothing to refuse.

    Attributes:
        notes: what is doubtful about the questions, in words; the run will say so, too.
        training_questions: number of them.
    """

    notes: tuple[str, ...]
    training_questions: int


def check(config: Config, notify: Callable[[str], None]) -> list[str]:
    """Check a configuration as `examine` does, and return its notes."""
    return list(examine(config, notify).notes)


def check_all(configs: Sequence[Config], notify: Callable[[str], None]) -> list[Findings]:
    """Check configurations as `examine` does, those that share all that it looks at only once.

    Returns:
        the findings for each.
    """
    found: dict[tuple[object, ...], Findings] = {}
    # Questions are the slow part: those that share them are checked together, and one set is kept at a time.
    load = lru_cache(maxsize=1)(_prepare)
    order = list(dict.fromkeys(config.data.model_dump_json() for config in configs))
    for config in sorted(configs, key=lambda config: order.index(config.data.model_dump_json())):
        if (subject := _subject(config)) not in found:
            found[subject] = examine(config, notify, load)
    return [found[_subject(config)] for config in configs]


def _subject(config: Config) -> tuple[object, ...]:
    """Return all of a configuration that `examine` looks at."""
    return (
        *(section.model_dump_json() for section in (config.data, config.model, config.sampler)),
        *(config.train.device, config.train.backend, config.train.batch_size, config.profile),
        *(config.loss.contrastive_weight > 0, config.curriculum.policy, config.curriculum.weights_file),
    )


def examine(
    config: Config, notify: Callable[[str], None], load: Callable[[str, str, str, str, int], PreparedData] | None = None
) -> Findings:
    """Make sure that a run of this configuration can start, and download what it needs from the Hub.

    Args:
        notify: called with a few words before every slow operation.
        load: loads the questions; `accl.data.prepared.prepare`, with the cache, when None.

    Raises:
        DeviceError, DataError, HubError, ConfigError, RunError: something that the run needs is missing, or does not
            fit.
    """
    if current_folder_removed():
        raise RunError("The current folder has been removed.", "Change to one that exists.")
    if config.train.device == "cuda":
        _check_gpu(config.profile)
    if config.train.backend == "cudagraph" and not gpus():
        what = f"train.backend={config.train.backend} needs an NVIDIA GPU, but there is {absence()}."
        raise DeviceError(what, "Try: --set train.backend=auto")
    folder = cache_folder()
    problem = refusal(folder)
    if problem is None and folder is not None and (reason := unwritable(folder)):
        problem = f"the cache folder {folder} {reason}"
    if problem:
        notify(f"warning: nothing is cached: {problem}")
    check_length(config.data.max_length, longest_input(_encoder(config, notify)))
    source = config.data
    if source.source == "hub":
        notify(f"fetching {source.path} from the Hub")
    data = (load or _prepare)(source.source, source.path, source.revision, source.protocol, source.split_seed)
    check_tasks(data.train_sizes, config.loss.contrastive_weight > 0, config.curriculum.policy)
    check_batch(data.train_sizes, config.train.batch_size, config.sampler.questions_per_task)
    if config.curriculum.weights_file is not None:
        path = Path(config.curriculum.weights_file)
        order_weights(read_weights(path), path, data.task_names, data.train_sizes)
    return Findings(tuple(data.warnings(config.sampler.questions_per_task)), int(data.train_sizes.sum()))


def _prepare(source: str, path: str, revision: str, protocol: str, split_seed: int) -> PreparedData:
    return prepare(source, path, revision, protocol, split_seed, Cache(cache_folder()))


def _encoder(config: Config, notify: Callable[[str], None]) -> dict[str, Any]:
    """Return the configuration of the encoder, which is fetched if need be."""
    name, revision = config.model.name, config.model.revision
    if name.startswith(RANDOM):
        return architecture(name)
    if hub.is_local(name):
        return read_architecture(hub.local_model(name))
    folder = hub.cached_model(name, revision)
    if folder is None:
        notify(f"fetching {name} from the Hub")
        folder = hub.fetch_model(name, revision)
    return read_architecture(folder)


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
