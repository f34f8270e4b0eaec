"""What captured steps of any encoder promise, on a GPU; `test_backends` holds them against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from contexts import (
    SMALL,
    ContextMaker,
    assert_same_metrics,
    learn,
    no_progress,
    script,
    set_dropout,
    set_rate,
    some_draws,
)
from torch import nn

from accl.config import resolve
from accl.data.tokenizer import train_tokenizer
from accl.errors import ConfigError
from accl.training.backends.reference import ReferenceBackend
from accl.training.backends.select import select_backend
from accl.training.context import TrainingContext
from accl.training.setup import build_context

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
# Encoders that people use, by transformers' names, and what they call the rates of dropout.
ENCODERS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout"),
    "electra": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "modernbert": ("embedding_dropout", "mlp_dropout", "attention_dropout"),
    "mpnet": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}


def encoder_folder(folder: Path, model_type: str, dropout: float) -> Path:
    """A small encoder with a tokenizer of its own, as one would download it."""
    from transformers import AutoConfig, AutoModel

    tokenizer = train_tokenizer(["which term goes with the law of force", "what is studied beside a cell"] * 9, 300)
    tokenizer.save(folder)
    torch.manual_seed(0)
    rates = dict.fromkeys(ENCODERS[model_type], dropout)
    tokens = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 0)
    config = AutoConfig.for_model(model_type, vocab_size=tokenizer.vocab_size, **SIZES, **tokens, **rates)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def folder_context(folder: Path, backend: str) -> TrainingContext:
    sets = [*SMALL, "train.device=cuda", f"model.name={folder}", f"train.backend={backend}", "data.max_length=128"]
    return build_context(resolve("full", "demo", sets).config, lambda _: None)


@pytest.mark.parametrize("model_type", sorted(ENCODERS))
def test_captured_steps_of_an_encoder_from_a_folder_are_those_of_the_reference(model_type: str, tmp_path: Path) -> None:
    folder, metrics = encoder_folder(tmp_path / model_type, model_type, 0.0), []
    for name in ("reference", "cudagraph"):
        context = folder_context(folder, name)
        set_dropout(context, 0.0)
        backend, _ = select_backend(context, no_progress)
        set_rate(context, 1e-3)
        metrics.append(learn(backend, range(1, 11)))
    assert_same_metrics(metrics[1], metrics[0], 1e-4)


def test_captured_steps_have_the_dropout_of_an_encoder_from_a_folder(tmp_path: Path) -> None:
    # transformers returns it in evaluation mode, and graphs are captured before the loop begins.
    context = folder_context(encoder_folder(tmp_path / "bert", "bert", 0.5), "cudagraph")
    for module in context.model.classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    backend, reason = select_backend(context, no_progress)
    assert (backend.name, reason) == ("cudagraph", "as asked for by train.backend")
    script(context, some_draws(context, 1))
    set_rate(context, 0.0)
    losses = [float(backend.step(step)["classification"]) for step in (1, 2, 1)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


def test_an_encoder_that_cannot_be_captured_is_run_by_the_reference_as_if_it_had_not_been_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = ContextMaker(monkeypatch)

    def wait_for_the_device(_module: nn.Module, _arguments: Any, output: Any) -> None:
        assert torch.isfinite(output.last_hidden_state.sum()).item()

    def uncapturable(backend: str) -> TrainingContext:
        context = make("cuda", f"train.backend={backend}", dropout=0.1, share_att_key=False)
        context.model.encoder.register_forward_hook(wait_for_the_device)
        return context

    reference, context = ReferenceBackend(uncapturable("reference")), uncapturable("auto")
    backend, reason = select_backend(context, no_progress)
    assert backend.name == "reference"
    assert "not packed: the packed layers need share_att_key; not cudagraph: the encoder cannot be captured" in reason
    assert_same_metrics(learn(backend, range(1, 5)), learn(reference, range(1, 5)), 1e-4)
    with pytest.raises(ConfigError, match="cannot be captured"):
        select_backend(uncapturable("cudagraph"), no_progress)
