"""The whole way from the Hub to data and encoder, against a Hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub_server import (
    DATA_REPO,
    DATA_REVISION,
    HIDDEN_SIZE,
    MODEL_REPO,
    MODEL_REVISION,
    SUBJECTS,
    make_data,
    make_questions,
    make_repos,
    serve,
)
from spoil import flip, put_a_folder, put_a_pipe

from accl.data import hub
from accl.data.cache import cache_folder
from accl.errors import ConfigError, HubError

ROOT = Path(__file__).resolve().parent.parent

PRELUDE = """
import json, sys
from accl.errors import AcclError
def report(**values): print("RESULT " + json.dumps(values))
try:
"""
EPILOGUE = """
except AcclError as error:
    report(error=type(error).__name__, what=error.what, hint=error.hint)
"""

LOAD_BOTH = f"""
    from accl.data.sources import load_corpus
    corpus = load_corpus("hub", {DATA_REPO!r}, {DATA_REVISION!r})
    from accl.data.tokenizer import load_tokenizer
    from accl.training.encoder import load_encoder, resolve_model_folder
    folder = resolve_model_folder({MODEL_REPO!r}, {MODEL_REVISION!r})
    encoder = load_encoder({MODEL_REPO!r}, {MODEL_REVISION!r})
    report(
        parts={{part: len(questions) for part, questions in corpus.parts.items()}},
        subjects=[s.name for s in corpus.subjects], fingerprint=corpus.fingerprint, revision=corpus.revision,
        auxiliary=sorted({{q.task for q in corpus.parts["auxiliary_train"]}}),
        folder=str(folder), ids=load_tokenizer(folder).encode_many(["In test 3, which anatomy case?"]),
        dtypes=sorted({{str(p.dtype) for p in encoder.module.parameters()}}), hidden=encoder.hidden_size,
        pretrained=encoder.pretrained, total=sum(float(p.double().sum()) for p in encoder.module.parameters()),
    )
"""
LOAD_DATA = f"""
    from accl.data.sources import load_corpus
    report(fingerprint=load_corpus("hub", {DATA_REPO!r}, {DATA_REVISION!r}).fingerprint)
"""


def run(body: str, tmp: Path, endpoint: str, **extra: str) -> dict[str, Any]:
    """Run the body in a process of its own: huggingface_hub reads its settings when it is imported."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp / "hf"), "ACCL_CACHE": str(tmp / "accl")}
    env |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | extra
    command = [sys.executable, "-c", PRELUDE + body + EPILOGUE]
    done = subprocess.run(command, env=env, cwd=tmp, capture_output=True, text=True, timeout=240, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repos(tmp_path_factory.mktemp("repos"))


@pytest.mark.slow
def test_the_first_load_fetches_once_and_then_everything_works_offline(repos: Path, tmp_path: Path) -> None:
    import torch

    with serve(repos) as server:
        first = run(LOAD_BOTH, tmp_path, server.url)
        fetched = [r.rpartition("/")[2] for r in server.requests if r.startswith("GET") and "/resolve/" in r]
        assert "error" not in first, first
        assert sorted(fetched) == [
            "auxiliary_train-00000-of-00001.parquet",
            "config.json",
            "dev-00000-of-00001.parquet",
            "pytorch_model.bin",
            "spm.model",
            "test-00000-of-00001.parquet",
            "tokenizer_config.json",
            "validation-00000-of-00001.parquet",
        ]
    assert first["parts"] == {"dev": 30, "validation": 30, "test": 180, "auxiliary_train": 40}
    assert (first["subjects"], first["auxiliary"]) == (sorted(SUBJECTS), [""])
    assert first["revision"] == DATA_REVISION
    assert (first["dtypes"], first["hidden"], first["pretrained"]) == (["torch.float32"], HIDDEN_SIZE, True)

    half = torch.load(repos / "models" / MODEL_REPO / MODEL_REVISION / "pytorch_model.bin", weights_only=True)
    encoder_total = sum(float(v.double().sum()) for k, v in half.items() if k.startswith("deberta."))
    assert first["total"] == pytest.approx(encoder_total, abs=1e-6)

    assert run(LOAD_BOTH, tmp_path, unused_address()) == first  # the server is gone: nothing asks for it
    again = run(LOAD_DATA, tmp_path, server.url, HF_HUB_OFFLINE="1")
    assert again == {"fingerprint": first["fingerprint"]}
    assert not (tmp_path / "accl").exists()


def test_a_fetch_that_was_cut_off_is_completed_by_the_next_one(repos: Path, tmp_path: Path) -> None:
    with serve(repos) as server:
        whole = run(LOAD_DATA, tmp_path, server.url)
        snapshot = next((tmp_path / "hf" / "hub").glob("datasets--*/snapshots/*/all"))
        (snapshot / "test-00000-of-00001.parquet").unlink()
        away = run(LOAD_DATA, tmp_path, unused_address())
        assert away["error"] == "HubError"
        assert run(LOAD_DATA, tmp_path, server.url) == whole


def test_a_hub_out_of_reach_says_so_and_names_the_two_ways_on(tmp_path: Path) -> None:
    address = unused_address()
    data = run(LOAD_DATA, tmp_path, address)
    assert data["error"] == "HubError"
    assert DATA_REPO in data["what"]
    assert address in data["what"]
    assert "--set data.path=DIR" in data["hint"]
    assert "--profile demo" in data["hint"]
    body = f"""
    from accl.data import hub
    hub.fetch_model({MODEL_REPO!r}, {MODEL_REVISION!r})
"""
    model = run(body, tmp_path, address)
    assert (model["error"], MODEL_REPO in model["what"]) == ("HubError", True)
    assert "--set model.name=DIR" in model["hint"]
    offline = run(body, tmp_path, address, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline["what"]


def test_a_proxy_in_the_hubs_place_is_not_taken_for_the_hub(tmp_path: Path) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403, "Forbidden")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Requests need no record."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        body = f"""
    from accl.data import hub
    reachable = hub.reachable(hub.start_probe()())
    try:
        hub.fetch_data({DATA_REPO!r}, {DATA_REVISION!r})
    except AcclError as error:
        report(reachable=reachable, error=type(error).__name__, what=error.what, hint=error.hint)
"""
        result = run(body, tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (result["reachable"], result["error"]) == (False, "HubError")
    assert "does not answer as a Hub (403 Forbidden)" in result["what"]
    assert "--set data.path=DIR" in result["hint"]


def test_unknown_names_and_revisions_are_not_mistaken_for_a_missing_network(repos: Path, tmp_path: Path) -> None:
    body = """
    from accl.data import hub
    seen = []
    for fetch, name, revision in (
        (hub.fetch_model, "nobody/nothing", "main"),
        (hub.fetch_data, "nobody/nothing", ""),
        (hub.fetch_model, "not//a/name", "main"),
        (hub.fetch_model, MODEL, "0" * 40),
        (hub.fetch_data, DATA, "0" * 40),
    ):
        try:
            fetch(name, revision)
        except AcclError as error:
            seen.append([type(error).__name__, error.what, error.hint])
    report(seen=seen, reachable=hub.reachable(hub.start_probe()()))
""".replace("MODEL", repr(MODEL_REPO)).replace("DATA", repr(DATA_REPO))
    with serve(repos) as server:
        result = run(body, tmp_path, server.url)
    kinds, whats, hints = zip(*result["seen"], strict=True)
    assert kinds == ("HubError",) * 5
    assert result["reachable"] is True
    assert all("has no model nobody/nothing" in what for what in whats[:1])
    assert "has no data set nobody/nothing" in whats[1]
    assert "not//a/name" in whats[2]
    assert all("has no revision 000" in what for what in whats[3:])
    assert "model.revision" in hints[3]
    assert "data.revision" in hints[4]
    assert not any("out of reach" in what for what in whats)


def test_only_safetensors_are_fetched_where_a_model_has_them(repos: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    origin = repos / "models" / MODEL_REPO / MODEL_REVISION
    here = tmp_path / "repos" / "models" / "some" / "encoder" / ("a" * 40)
    here.mkdir(parents=True)
    for name in ("config.json", "spm.model", "tokenizer_config.json", "pytorch_model.bin"):
        (here / name).write_bytes((origin / name).read_bytes())
    state = torch.load(origin / "pytorch_model.bin", weights_only=True)
    save_file(state, here / "model.safetensors", metadata={"format": "pt"})
    body = f"""
    from accl.data import hub
    before = hub.cached_model("some/encoder", {"a" * 40!r})
    folder = hub.fetch_model("some/encoder", {"a" * 40!r})
    after = hub.cached_model("some/encoder", {"a" * 40!r})
    report(before=before, folder=str(folder), after=str(after))
"""
    with serve(tmp_path / "repos") as server:
        result = run(body, tmp_path, server.url)
    assert result["before"] is None
    assert result["after"] == result["folder"]
    names = sorted(path.name for path in Path(result["folder"]).iterdir())
    assert names == ["config.json", "model.safetensors", "spm.model", "tokenizer_config.json"]


def test_a_snapshot_counts_as_cached_only_with_every_shard_of_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--some--data" / "snapshots" / ("b" * 40)
    assert hub.cached_data("some/data", "b" * 40) is None
    make_data(snapshot, make_questions(per_subject=1))
    assert hub.cached_data("some/data", "b" * 40) == snapshot
    (snapshot / "all" / "test-00000-of-00001.parquet").rename(snapshot / "all" / "test-00000-of-00002.parquet")
    assert hub.cached_data("some/data", "b" * 40) is None


def as_fetched(snapshot: Path) -> None:
    """Turn the files of a snapshot into links to files that are named by checksum, as the Hub's own package does."""
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content)
        names = (hashlib.sha256(content), git, hashlib.sha1(content))  # large, small, a mirror's
        path.rename(blobs / names[number % 3].hexdigest())
        path.symlink_to(blobs / names[number % 3].hexdigest())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, cut, put_a_pipe, put_a_folder])
def test_a_damaged_file_in_the_hubs_cache_is_named_with_what_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--some--data" / "snapshots" / ("b" * 40)
    make_data(snapshot, make_questions(per_subject=1))
    as_fetched(snapshot)
    assert hub.cached_data("some/data", "b" * 40) == snapshot
    for path in sorted((snapshot / "all").iterdir()):
        blob = path.resolve()
        whole = blob.read_bytes()
        damage(blob)
        with pytest.raises(HubError) as refused:
            hub.fetch_data("some/data", "b" * 40)
        assert str(path) in refused.value.what
        assert str(tmp_path / "datasets--some--data") in refused.value.hint
        if blob.is_dir():
            shutil.rmtree(blob)
        else:
            blob.unlink()
        assert hub.cached_data("some/data", "b" * 40) is None  # fetched again
        blob.write_bytes(whole)
        assert hub.cached_data("some/data", "b" * 40) == snapshot


def test_a_file_under_a_name_of_a_mirrors_own_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--some--data" / "snapshots" / ("b" * 40)
    make_data(snapshot, make_questions(per_subject=1))
    file = snapshot / "all" / "test-00000-of-00001.parquet"
    file.rename(tmp_path / "v1.2")
    file.symlink_to(tmp_path / "v1.2")
    assert hub.cached_data("some/data", "b" * 40) == snapshot


@pytest.mark.parametrize("reference", [b"", b"\xff\xfe", b"../../..", b"b" * 39, None])
def test_a_broken_note_of_a_branch_means_that_it_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: bytes | None
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "datasets--some--data"
    make_data(repo / "snapshots" / ("b" * 40), make_questions(per_subject=1))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_bytes(b"b" * 40 + b"\n")
    assert hub.cached_data("some/data", "") == repo / "snapshots" / ("b" * 40)
    (repo / "refs" / "main").unlink()
    if reference is None:
        os.mkfifo(repo / "refs" / "main")
    else:
        (repo / "refs" / "main").write_bytes(reference)
    assert hub.cached_data("some/data", "") is None


@pytest.mark.parametrize(
    "address", ["", "not a url", "huggingface.co", "http://", "ftp://x", "http://[::", "http://h:x", "https://h:99999"]
)
def test_what_is_no_address_of_a_hub_is_said_at_once(tmp_path: Path, address: str) -> None:
    result = run(LOAD_DATA, tmp_path, address)
    assert (result["error"], result["what"]) == (
        "HubError",
        "HF_ENDPOINT is no address of a Hub, such as https://huggingface.co.",
    )


def test_a_name_that_is_never_resolved_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    asked, over = threading.Event(), threading.Event()

    def resolve(*_: Any, **__: Any) -> None:
        asked.set()
        over.wait(60)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    wait = hub.start_probe(0.1)
    try:
        assert wait() is None
        assert asked.is_set()
        assert not over.is_set()
    finally:
        over.set()


def test_names_written_like_paths_and_existing_folders_are_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert all(hub.is_local(name) for name in ("./x", "../x", "/x", "~/x", "mine"))
    assert not hub.is_local(MODEL_REPO)


def test_local_model_folders_that_are_missing_or_incomplete_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        hub.local_model(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        hub.local_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no weights"):
        hub.local_model(str(tmp_path))


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ACCL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "accl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "accl"
