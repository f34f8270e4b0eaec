"""A loopback Hub: the part of the file API that huggingface_hub uses, over plain folders.

`make_repos` builds a small DeBERTa-v2 and a small MMLU under the names and commits that ``configs/base.yaml`` pins.
`serve` answers for them on 127.0.0.1, and records every request.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from accl.config import configs_folder

_BASE = yaml.safe_load((configs_folder() / "base.yaml").read_text(encoding="utf-8"))
DATA_REPO, DATA_REVISION = _BASE["data"]["path"], _BASE["data"]["revision"]
MODEL_REPO, MODEL_REVISION = _BASE["model"]["name"], _BASE["model"]["revision"]

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "college_medicine",
    "international_law",
    "world_religions",
)
HIDDEN_SIZE = 32
VOCABULARY = 600


@dataclass
class Hub:
    """A running server: its address, and ``METHOD path`` of every request so far."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(repos: Path) -> Iterator[Hub]:
    """Serve ``repos/<models|datasets>/<org>/<name>/<commit>/<files>`` until the block ends."""
    hub = Hub("")
    handler = type("Handler", (_Handler,), {"repos": repos, "hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repos: Path
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are recorded instead of printed."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} /{path}")
        parts = path.split("/")
        if parts == [""]:
            return self._send(200, b"a Hub")
        if parts[0] == "api" and len(parts) >= 4 and parts[1] in ("models", "datasets"):
            rest = parts[4:]
            if not rest or rest[0] in ("revision", "tree"):
                commit = rest[1] if len(rest) > 1 else "main"
                return self._listing(parts[1], "/".join(parts[2:4]), commit, tree=bool(rest) and rest[0] == "tree")
            return self._missing("EntryNotFound")
        kind = "models"
        if parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._missing("RepoNotFound")

    def _snapshot(self, kind: str, repo: str, commit: str) -> Path | None:
        folder = self.repos / kind / repo
        if not folder.is_dir():
            self._missing("RepoNotFound")
            return None
        if commit == "main":
            commit = sorted(path.name for path in folder.iterdir())[0]
        if not (folder / commit).is_dir():
            self._missing("RevisionNotFound")
            return None
        return folder / commit

    def _listing(self, kind: str, repo: str, commit: str, tree: bool) -> None:
        snapshot = self._snapshot(kind, repo, commit)
        if snapshot is None:
            return
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
        names = [path.relative_to(snapshot).as_posix() for path in files]
        body: Any
        if tree:
            body = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}
                for name, path in zip(names, files, strict=True)
            ]
        else:
            body = {"id": repo, "sha": snapshot.name, "private": False, "tags": [], "downloads": 0, "likes": 0}
            body["siblings"] = [{"rfilename": name} for name in names]
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, kind: str, repo: str, commit: str, name: str) -> None:
        snapshot = self._snapshot(kind, repo, commit)
        if snapshot is None:
            return
        path = snapshot / name
        if not path.is_file():
            self._missing("EntryNotFound", {"X-Repo-Commit": snapshot.name})
            return
        headers = {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": snapshot.name}
        self._send(200, path.read_bytes(), headers)

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": code} | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def make_repos(folder: Path) -> Path:
    """Build both small repositories under ``folder`` in the layout that `serve` reads; returns ``folder``."""
    questions = make_questions()
    make_data(folder / "datasets" / DATA_REPO / DATA_REVISION, questions)
    texts = [" ".join([row["question"], *row["choices"]]) for rows in questions.values() for row in rows]
    make_model(folder / "models" / MODEL_REPO / MODEL_REVISION, texts)
    return folder


def make_questions(per_subject: int = 30, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows as on the Hub by split: of each subject ``per_subject`` in test, and 5 each in validation and dev."""
    rng = random.Random(seed)
    splits: dict[str, list[dict[str, Any]]] = {"test": [], "validation": [], "dev": [], "auxiliary_train": []}
    for split, count in (("test", per_subject), ("validation", 5), ("dev", 5)):
        for subject in SUBJECTS:
            splits[split] += [_row(rng, subject, subject, f"{split} {number}") for number in range(count)]
    splits["auxiliary_train"] = [_row(rng, "", rng.choice(SUBJECTS), f"more {number}") for number in range(40)]
    return splits


def _row(rng: random.Random, subject: str, topic: str, mark: str) -> dict[str, Any]:
    words = topic.split("_")
    choices = [f"{rng.choice(['old', 'new', 'rare'])} {word} of {rng.randrange(50)}" for word in (*words, *SUBJECTS)]
    choices = choices[:4]
    rng.shuffle(choices)
    question = f"In {mark}, which {rng.choice(words)} case is number {rng.randrange(1000)}?"
    return {"question": question, "subject": subject, "choices": choices, "answer": rng.randrange(4)}


def make_data(folder: Path, questions: dict[str, list[dict[str, Any]]]) -> None:
    """``all/<split>-00000-of-00001.parquet``, and a file of another config that nobody needs."""
    import duckdb

    (folder / "all").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (question VARCHAR, subject VARCHAR, choices VARCHAR[], answer BIGINT)")
        for split, rows in questions.items():
            connection.execute("DELETE FROM t")
            for row in rows:
                connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", list(row.values()))
            connection.execute(f"COPY t TO '{folder / 'all' / f'{split}-00000-of-00001.parquet'}'")
    other = folder / "anatomy"
    other.mkdir()
    (other / "test-00000-of-00001.parquet").write_bytes(b"not fetched")


def make_model(folder: Path, texts: list[str]) -> None:
    """A DeBERTa-v2 of width 32 as DeBERTa-v3 is published: half-precision pickle and spm.model."""
    import torch
    from transformers import DebertaV2Config, DebertaV2Model

    folder.mkdir(parents=True)
    train_spm(folder / "spm.model", texts)
    config = DebertaV2Config(
        vocab_size=VOCABULARY + 100,  # DeBERTa-v3, too, has more rows than pieces
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        position_buckets=32,
        relative_attention=True,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )
    generator = torch.Generator().manual_seed(0)
    module = DebertaV2Model(config)
    state = {
        f"deberta.{name}": (value + 0.01 * torch.randn(value.shape, generator=generator)).half()
        for name, value in module.state_dict().items()
    }
    # The published file carries its pretraining heads, too.
    state["lm_predictions.lm_head.bias"] = torch.zeros(VOCABULARY + 100, dtype=torch.half)
    torch.save(state, folder / "pytorch_model.bin")
    settings = config.to_dict()
    for key in ("dtype", "transformers_version", "architectures"):
        settings.pop(key, None)
    settings["pos_att_type"] = "p2c|c2p"
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}', encoding="utf-8")
    (folder / "tf_model.h5").write_bytes(b"not fetched")


def train_spm(path: Path, texts: list[str], vocabulary: int = VOCABULARY) -> None:
    """A sentencepiece unigram model with DeBERTa-v3's special pieces and nmt_nfkc normalisation."""
    import io

    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
