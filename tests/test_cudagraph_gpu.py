"""Graphed steps of any encoder against eager ones, on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from workbenches import SMALL, Maker, assert_same_figures, bank_of, learn, no_progress, some_draws, without_dropout

from accl.config import resolve
from accl.data.tokenizer import train_tokenizer
from accl.errors import ConfigError
from accl.training.backends.cudagraph import GraphedPath
from accl.training.backends.reference import EagerPath
from accl.training.backends.select import choose
from accl.training.setup import Workbench, build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


def bert_folder(folder: Path, dropout: float) -> Path:
    """A small BERT with a tokenizer of its own, as one would download it."""
    from transformers import BertConfig, BertModel

    tokenizer = train_tokenizer(["which term goes with the law of force", "what is studied beside a cell"] * 9, 300)
    tokenizer.save(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def bert_bench(folder: Path, path: str) -> Workbench:
    sets = [*SMALL, f"model.name={folder}", f"train.backend={path}", "data.max_length=128"]
    return build(resolve("full", "demo", sets).config, lambda _: None)


def graphed_path(bench: Workbench) -> GraphedPath:
    path = GraphedPath(bench)
    path.warm_up(no_progress)
    return path


def test_graphed_steps_of_another_encoder_are_eager_ones(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert", 0.0)
    eager, graphed = (bert_bench(folder, path) for path in ("reference", "auto"))
    for bench in (eager, graphed):
        without_dropout(bench)
    path = graphed_path(graphed)
    for bench in (eager, graphed):
        bench.model.train()
    draws = some_draws(eager, 10)
    assert_same_figures(learn(path, draws), learn(EagerPath(eager), draws), 1e-4)


def test_capturing_leaves_weights_moments_curriculum_and_bank_as_they_were(tmp_path: Path) -> None:
    bench = bert_bench(bert_folder(tmp_path / "bert", 0.1), "auto")
    watching = {"model": bench.model, "curriculum": bench.curriculum.state, "bank": bank_of(bench)}
    before = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in watching.items()}
    path = graphed_path(bench)
    for key, module in watching.items():
        for name, value in module.state_dict().items():
            assert np.array_equal(value.cpu(), before[key][name].cpu(), equal_nan=value.is_floating_point()), name
    assert path.optimizer.state
    for state in path.optimizer.state.values():
        assert all(float(state[leaf].abs().max()) == 0 for leaf in ("step", "exp_avg", "exp_avg_sq"))


def test_graphs_of_an_encoder_from_a_folder_have_its_dropout(tmp_path: Path) -> None:
    # transformers gives it in evaluation mode, and graphs are captured before the loop begins.
    bench = bert_bench(bert_folder(tmp_path / "bert", 0.5), "cudagraph")
    for module in bench.model.classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    path, reason = choose(bench, no_progress)
    assert (path.name, reason) == ("cudagraph", "as asked for by train.backend")
    bench.model.train()
    (draw,) = some_draws(bench, 1)
    losses = [float(path.step(step, draw, 0.0)[1]) for step in (1, 2, 1)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


def test_an_encoder_that_cannot_be_captured_trains_eagerly_as_if_it_had_not_been_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = Maker(monkeypatch)

    def wait_for_the_device(_module: nn.Module, _arguments: Any, output: Any) -> None:
        assert torch.isfinite(output.last_hidden_state.sum()).item()

    def uncapturable(path: str) -> Workbench:
        bench = make(path, dropout=0.1, share_att_key=False)
        bench.model.encoder.register_forward_hook(wait_for_the_device)
        return bench

    reference, bench = EagerPath(uncapturable("reference")), uncapturable("auto")
    path, reason = choose(bench, no_progress)
    assert path.name == "reference"
    assert "not packed: the fast layers need share_att_key; not cudagraph: the encoder cannot be captured" in reason
    draws = some_draws(bench, 4)
    assert_same_figures(learn(path, draws), learn(reference, draws), 1e-4)
    with pytest.raises(ConfigError, match="cannot be captured"):
        choose(uncapturable("cudagraph"), no_progress)
