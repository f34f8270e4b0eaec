"""Pinned snapshots of data and models from the Hugging Face Hub.

Only the needed files are fetched, and none that are in the local cache. The Hub's own settings apply:
``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``.
"""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from accl.data.hub_cache import Kind, endpoint_problem, sound_snapshot
from accl.data.questions import PARTS
from accl.errors import AcclError, ConfigError, HubError, first_line
from accl.text import without_credentials

# Formats of weights, best first; only the first that a model has is fetched.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Files any of which makes a tokenizer.
VOCABULARIES = ("spm.model", "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_CONFIG = "config.json"

CONNECT_SECONDS = 5.0  # for the first answer


def is_local(name: str) -> bool:
    """Return whether a model or data name means a folder: one that exists, or a name written like a path."""
    return name.startswith((".", "/", "~")) or os.path.isdir(name)


def local_model(name: str) -> Path:
    """Return the folder of a local model.

    Raises:
        ConfigError: no such folder, or a part of a model is missing from it.
    """
    folder = Path(os.path.expanduser(name))
    for there, problem, hint in (
        (os.path.isdir(folder), "there is no such folder", "Give a folder with config.json and weights."),
        (os.path.isfile(folder / _CONFIG), f"the folder has no {_CONFIG}", "Give the folder that holds it."),
        (_has_any(folder, WEIGHTS), "the folder has no weights", f"Looked for: {', '.join(WEIGHTS)}."),
    ):
        if not there:
            raise ConfigError(f"model.name={name}: {problem}.", hint)
    return folder


def _has_any(folder: Path, names: Iterable[str]) -> bool:
    return any(os.path.isfile(folder / name) for name in names)  # unlike Path.is_file, False where it may not look


def endpoint() -> str:
    """Return the address of the Hub in use, without user and password, to be shown."""
    from huggingface_hub import constants

    return without_credentials(constants.ENDPOINT)


def is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def start_probe(seconds: float = CONNECT_SECONDS) -> Callable[[], int | None]:
    """Ask the Hub for its front page, and return a function that waits for the HTTP status.

    The status is None without an answer within ``seconds``, and where the network is forbidden or ``HF_ENDPOINT`` is no
    address. The request has a thread of its own, because name resolution knows no timeout.
    """
    if endpoint_problem() or is_offline():
        return lambda: None
    from huggingface_hub import get_session

    session = get_session()  # made here, so that the timeout covers the request alone
    statuses: list[int] = []

    def ask() -> None:
        with suppress(Exception):  # whatever the transport raises, there was no answer
            statuses.append(int(session.head(endpoint(), timeout=seconds).status_code))

    thread = threading.Thread(target=ask, name="hub-probe", daemon=True)
    thread.start()

    def wait() -> int | None:
        thread.join(seconds)
        return statuses[0] if statuses else None

    return wait


def reachable(status: int | None) -> bool:
    """Return whether a status of `start_probe` is a Hub's, and not an error as a proxy's might be."""
    return status is not None and status < 400


def cached_data(repo: str, revision: str) -> Path | None:
    """Return the snapshot of a data set if all its parts are in the local cache.

    Raises:
        HubError: a file there is damaged, or ``HF_ENDPOINT`` is no address.
    """
    snapshot = sound_snapshot(repo, "dataset", revision)
    return snapshot if snapshot and _has_all_parts(snapshot / "all") else None


def cached_model(repo: str, revision: str) -> Path | None:
    """Return the snapshot of a model if its config, vocabulary and weights are in the local cache.

    Raises:
        HubError: a file there is damaged, or ``HF_ENDPOINT`` is no address.
    """
    snapshot = sound_snapshot(repo, "model", revision)
    groups = ((_CONFIG,), VOCABULARIES, WEIGHTS)
    return snapshot if snapshot and all(_has_any(snapshot, group) for group in groups) else None


def fetch_data(repo: str, revision: str) -> Path:
    """Return the snapshot folder of a data set with its config ``all``, from the cache or the Hub.

    Raises:
        HubError: damaged in the cache, out of reach and not cached, or no such data set or revision.
    """
    return cached_data(repo, revision) or _fetch(repo, "dataset", revision, _data_files, "data.path")


def fetch_model(repo: str, revision: str) -> Path:
    """Return the snapshot folder of a model with config, tokenizer and one format of weights, from cache or Hub.

    Raises:
        HubError: damaged in the cache, out of reach and not cached, or no such model or revision.
    """
    return cached_model(repo, revision) or _fetch(repo, "model", revision, _model_files, "model.name")


def _has_all_parts(folder: Path) -> bool:
    """Return whether every shard of every part of MMLU is there: ``test-00000-of-00001.parquet`` and so on."""
    shards: defaultdict[str, set[int]] = defaultdict(set)
    wanted: dict[str, int] = {}
    for path in folder.glob("*.parquet"):
        match = re.fullmatch(r"(\w+)-(\d+)-of-(\d+)", path.stem)
        if match and os.path.isfile(path):  # else a link to what was removed
            shards[match[1]].add(int(match[2]))
            wanted[match[1]] = int(match[3])
    return all(part in wanted and shards[part] == set(range(wanted[part])) for part in PARTS if part != "train")


def _data_files(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith("all/") and name.endswith(".parquet"))


def _model_files(names: Iterable[str]) -> list[str]:
    there = set(names)
    weights = [name for name in WEIGHTS if name in there][:1]
    if _CONFIG not in there or not weights:
        return []
    # Weights last, so that an interrupted fetch is never taken for a complete one.
    return [name for name in (_CONFIG, *_TOKENIZER_SETTINGS, *VOCABULARIES) if name in there] + weights


def _fetch(repo: str, kind: Kind, revision: str, choose: Callable[[Iterable[str]], list[str]], key: str) -> Path:
    noun = "data set" if kind == "dataset" else "model"
    if start_probe()() is None:  # a mirror may answer its bare address with an error
        reason = "HF_HUB_OFFLINE is set" if is_offline() else f"{endpoint()} is out of reach"
        raise HubError(f"The {noun} {repo} is not in the local cache and {reason}.", _elsewhere(key))
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    pinned = revision or None
    try:
        info = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        listing = info(repo, revision=pinned, timeout=2 * CONNECT_SECONDS)
        files = choose(sibling.rfilename for sibling in listing.siblings or ())
        if not files:
            wanted = "all/*.parquet" if kind == "dataset" else f"{_CONFIG} and {' or '.join(WEIGHTS)}"
            raise HubError(f"The {noun} {repo} has no {wanted}.", _elsewhere(key))
        paths = [Path(hf_hub_download(repo, name, repo_type=kind, revision=listing.sha or pinned)) for name in files]
    except AcclError:
        raise
    except GatedRepoError as error:
        raise HubError(f"The {noun} {repo} is gated.", "Ask for access on its page, then: hf auth login") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        what = f"{endpoint()} has no {noun} {repo} (or it is private)."
        raise HubError(what, f"Check {key}; a local folder is written with a leading ./ or /.") from error
    except RevisionNotFoundError as error:
        section = key.partition(".")[0]
        raise HubError(f"The {noun} {repo} has no revision {revision}.", f"Check {section}.revision.") from error
    except HfHubHTTPError as error:  # without the Hub's own error code: a proxy or a server in distress
        status = f"{error.response.status_code} {error.response.reason_phrase}".strip()
        what = f"{endpoint()} does not answer as a Hub ({status}), and the {noun} {repo} is not in the local cache."
        raise HubError(what, _elsewhere(key)) from error
    except Exception as error:  # the transport's errors share no base with OSError
        raise HubError(f"Fetching {repo} from {endpoint()} failed: {first_line(error)}", _elsewhere(key)) from error
    return paths[0].parents[files[0].count("/")]


def _elsewhere(key: str) -> str:
    return f"Use a local folder with --set {key}=DIR, or the built-in benchmark with --profile demo."
