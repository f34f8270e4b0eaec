"""`accl bench train` measures the same work on both sides, counts it right, and says what failed."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, TrainerCallback
from typer.testing import CliRunner

from accl.bench import device, train
from accl.bench.comparison import Comparison
from accl.bench.device import measure_rates
from accl.bench.peer import PeerModel, collate, questions
from accl.bench.protocol import Candidate, Rates, WorkerError
from accl.bench.report import Report
from accl.bench.results import report_rows, roofline_ms
from accl.bench.schedule import Schedule
from accl.bench.train import failures
from accl.bench.work import Shape, lengths_of, live_parameters, shape_of
from accl.bench.worker import BenchWorker
from accl.cli.bench import app
from accl.cli.reports import report_tables
from accl.config import resolve
from accl.errors import ConfigError
from accl.method.model import ContrastiveCurriculumModel
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.encoder import load_encoder
from accl.training.setup import build_context

STEPS = 3
SMALL = ["train.backend=reference", "train.batch_size=4"]
FAST_RATES = Rates("a device", "bf16", flops=1e12, bytes=1e9, vendor_flops=2e12)


def _nothing(_: str) -> None:
    """Ignore progress."""


@pytest.fixture(scope="module")
def context() -> TrainingContext:
    return build_context(resolve("baseline", "demo", SMALL).config, _nothing)


def _compare(output: Path, words: str) -> Report:
    """The report of a real, tiny comparison."""
    command = ["train", "baseline", "--profile=demo", "--set=train.batch_size=4"]
    options = [f"--steps={STEPS}", "--warmup=1", "--rounds=2", "--peer=eager", f"--output={output}"]
    done = CliRunner().invoke(app, [*command, *options, *words.split()])
    assert done.exit_code == 0, done.stderr
    assert "round 2 of 2" in done.stderr
    assert "ms/step" in done.stdout
    assert "copy, read and written" in done.stdout
    return Report.read(output)


def _measures(report: Report, who: str) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in report.rows if row.get("who") == who}


@pytest.mark.parametrize("words", ["", pytest.param("--apart", marks=pytest.mark.slow)])
def test_a_comparison_gives_both_sides_the_same_work_and_reports_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    if not words:  # measuring the device takes seconds
        monkeypatch.setattr(Comparison, "rates", lambda _: replace(FAST_RATES, vendor_flops=None))
    report = _compare(tmp_path / "report.json", words)
    ours, theirs = (_measures(report, who) for who in ("accl baseline (auto)", "Trainer eager"))
    plain = {"time of a step", "questions", "real tokens", "use of the measured rate", "peak memory"}
    floors = {f"distance from the floor, {which}" for which in ("all parameters", "those that change")}
    assert set(theirs) == plain | floors
    assert set(ours) == plain | floors | {"speed against Trainer eager"}
    assert all(row["value"] > 0 for row in (*ours.values(), *theirs.values()))
    seconds, their_seconds = ([ms / 1000 for ms in side["time of a step"]["rounds"]] for side in (ours, theirs))
    for measure in ("questions", "real tokens"):
        work, their_work = ours[measure]["rounds"][0] * seconds[0], theirs[measure]["rounds"][0] * their_seconds[0]
        assert work == pytest.approx(their_work)
    assert ours["questions"]["rounds"][1] * seconds[1] == pytest.approx(4)
    ratios = [b / a for a, b in zip(seconds, their_seconds, strict=True)]
    assert ours["speed against Trainer eager"]["rounds"] == pytest.approx(ratios)
    (described,) = report.settings["measured"]
    assert described["rates"]["flops"] > 0
    assert described["backend"] == "cpu"
    encoders = report_tables([report])[0]
    cells = dict(zip(encoders.titles, encoders.cells[0], strict=True))
    assert {key: cells[key] for key in ("encoder", "backend")} == {"encoder": "tiny", "backend": "cpu"}
    assert cells["ms/step"].startswith(f"{ours['time of a step']['value']:.2f} ± ")
    assert cells["Trainer eager (ms/step)"].startswith(f"{theirs['time of a step']['value']:.1f} ± ")


@pytest.mark.slow
def test_arms_are_compared_within_rounds_and_two_processes_with_one(tmp_path: Path) -> None:
    report = _compare(tmp_path / "report.json", "--arms baseline,contrastive --together")
    names = ("accl baseline (auto)", "accl contrastive (auto)", "accl contrastive (auto), no tracking")
    baseline, contrastive, untracked = (_measures(report, who)["time of a step"]["rounds"] for who in names)
    for who, more, less in (
        ("contrastive loss (auto)", contrastive, baseline),
        ("curriculum and confusion tracking (auto)", contrastive, untracked),
    ):
        added = _measures(report, who)["added to a step"]["rounds"]
        assert added == pytest.approx([a - b for a, b in zip(more, less, strict=True)])
    two = _measures(report, "two of accl baseline (auto) at once")
    alone = _measures(report, "accl baseline (auto)")["questions"]["value"]
    assert two["against one alone"]["rounds"] == pytest.approx([value / alone for value in two["questions"]["rounds"]])


def test_peer_trains_the_same_model_on_the_same_questions(context: TrainingContext) -> None:
    peer = PeerModel(context.model)
    draw = Schedule(context, STEPS).draws()[0]
    inputs = collate(questions(context.assembler, [draw]), context.assembler.pad_id)
    context.model.eval()
    batch = context.assembler.batch(draw.questions, draw.option_order)
    arrays = [(torch.from_numpy(ids), torch.from_numpy(mask)) for ids, mask in batch.chunks]
    output = context.model(arrays, torch.from_numpy(batch.inverse_perm), torch.from_numpy(batch.task))
    loss = F.cross_entropy(output.logits_BC, torch.from_numpy(batch.answer))
    context.model.train()
    peer.eval()
    assert sum(p.numel() for p in peer.parameters()) == context.provenance.model.parameters
    assert peer(**inputs)["loss"].item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.slow
def test_sentence_transformers_trains_the_same_model_with_the_same_loss(tmp_path: Path) -> None:
    from accl.bench.sentence_peer import make_trainer

    class FirstEpoch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_epoch_end(self, _args: object, _state: object, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    config = resolve("baseline", "demo", [*SMALL, "optim.lr=0.01"]).config
    schedule = Schedule(build_context(config, _nothing), STEPS)
    context = schedule.context
    candidate = Candidate("sentence-transformers", config, STEPS, 1, peer="sentence-transformers")
    trainer = make_trainer(candidate, schedule, FirstEpoch(), str(tmp_path))
    context.model.eval()
    batch = [trainer.train_dataset[i] for i in range(4)]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    items = questions(context.assembler, schedule.draws()[:1])
    expected = PeerModel(context.model)(**collate(items, context.assembler.pad_id))["loss"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    trainer.train()
    assert trainer.state.global_step == STEPS
    moved = {name for name, value in context.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"encoder", "classifier", "task_embedding"}


def test_schedule_draws_the_same_questions_every_time(context: TrainingContext) -> None:
    schedule = Schedule(context, STEPS)
    first, again = schedule.draws(), schedule.draws()
    assert len(first) == STEPS
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.questions, b.questions)
        np.testing.assert_array_equal(a.option_order, b.option_order)
    assert schedule.first > context.bank_start


def test_tokens_are_those_of_the_questions_without_padding(context: TrainingContext) -> None:
    draws = Schedule(context, STEPS).draws()
    expected: Counter[int] = Counter()
    for draw in draws:
        for question, order in zip(draw.questions, draw.option_order, strict=True):
            text = len(context.blob.segment(int(question), 0))
            # [CLS] question [SEP] option [SEP]; nothing of the built-in questions is too long.
            expected.update(text + len(context.blob.segment(int(question), 1 + int(c))) + 3 for c in order)
    assert Counter(lengths_of(context.assembler, draws).tolist()) == expected


FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 32},
    "bert": {},
    "camembert": {},
    "deberta": {"max_relative_positions": 8},
    "deberta-v2": {"position_buckets": 8},
    "deberta-v2 with keys of its own for positions": {"position_buckets": 8, "share_att_key": False},
    "distilbert": {},
    "electra": {"embedding_size": 32},
    "modernbert": {"intermediate_size": 96},  # twice, as it is gated
    "mpnet": {},
    "roberta": {},
    "xlm-roberta": {},
}


def _encoder(family: str) -> nn.Module:
    values = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 256}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    if family == "distilbert":
        values = {"dim": 64, "n_layers": 3, "n_heads": 2, "hidden_dim": 256}
    if family.startswith("deberta"):
        values |= {"relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}
        values |= {"pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    config = AutoConfig.for_model(family.split()[0], vocab_size=100, **values | tokens | FAMILIES[family])
    if not family.startswith("deberta"):
        config._attn_implementation = "eager"  # products that the counter sees
    module: nn.Module = AutoModel.from_config(config)
    return module


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_those_that_torch_counts(context: TrainingContext, family: str) -> None:
    number, length = 4, 48
    model = ContrastiveCurriculumModel(
        _encoder(family), hidden=64, tasks=context.tasks, choices=4, contrastive_dim=8, head="per_option"
    )
    shape = shape_of(replace(context, model=model))
    embedding = 32 if "embedding_size" in FAMILIES[family] else 64
    assert (shape.vocabulary, shape.embedding) == (100 * embedding, embedding)
    ids_NL = torch.randint(1, 100, (number * 4, length))
    task_B = torch.zeros(number, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        output = model([(ids_NL, torch.ones_like(ids_NL))], torch.arange(len(ids_NL)), task_B)
        F.cross_entropy(output.logits_BC, task_B).backward()
    formula = shape.flops(np.full(number * 4, length), number, steps=1)
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_local_layer_computes_the_pairs_within_its_window() -> None:
    nothing = dict.fromkeys((field.name for field in fields(Shape)), 0)
    shape = Shape(**nothing | {"layers": 3, "local_layers": 2, "width": 8, "window": 4})
    lengths_N = np.array([3, 5, 6, 40])
    near = [sum(abs(i - j) <= 4 for i in range(L) for j in range(L)) for L in lengths_N]
    assert shape.flops(lengths_N, 4, 1) == 12 * 8 * (sum(lengths_N**2) + 2 * sum(near))


def test_parameters_that_change_are_all_but_the_unused_rows_and_the_head_without_loss(context: TrainingContext) -> None:
    shape = shape_of(context)
    live = live_parameters(context, shape)
    backend = ReferenceBackend(context)
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    Schedule(context, 1).restart()
    backend.step(1)
    changed = sum(int((value != before[name]).sum()) for name, value in context.model.state_dict().items())
    head = sum(p.numel() for p in context.model.contrastive_head.parameters())
    assert shape.parameters == context.provenance.model.parameters - head
    assert 0 < changed <= live < shape.parameters


def test_roofline_is_positive_and_adds_products_and_bytes(
    context: TrainingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(device.MATMUL_SIDE, "cpu", 128)
    monkeypatch.setitem(device.COPY_BYTES, "cpu", 2**20)
    rates = measure_rates(context.placement)
    assert rates.flops > 0
    assert rates.bytes > 0
    assert rates.vendor_flops is None
    assert roofline_ms(2e9, 1_000_000, FAST_RATES) == pytest.approx(2 + 36)


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["accl", "Trainer eager"])
def test_a_candidate_that_fails_has_a_row_with_the_reason_and_the_other_goes_on(fails: str) -> None:
    good = resolve("baseline", "demo", SMALL).config
    bad = resolve("baseline", "demo", [*SMALL, "data.path=/nowhere/at/all"]).config
    ours = Candidate("accl", bad if fails == "accl" else good, 1, 1, backend="reference")
    theirs = Candidate("Trainer eager", good if fails == "accl" else bad, 1, 1, peer="eager")
    with ExitStack() as stack:
        comparison = Comparison(120, _nothing, stack)
        comparison.add([ours, theirs])
        rates = comparison.rates()
        comparison.rounds(1)
    assert rates is not None
    (bad_one,) = (result for result in comparison.results if result.name == fails)
    (good_one,) = (result for result in comparison.results if result.name != fails)
    assert len(good_one.windows) == 1
    assert not bad_one.windows
    assert bad_one.failed is not None
    assert "/nowhere/at/all" in bad_one.failed
    rows = report_rows(comparison.results, rates, [])
    (failed,) = (row for row in rows if row.get("who") == fails)
    assert failed["value"] is None
    assert bad_one.failed in failed["what"]
    assert bool(failures(Report.create("train", {}, rows))) == (fails == "accl")
    json.dumps(rows, allow_nan=False)


def test_a_worker_whose_process_dies_says_so() -> None:
    config = resolve("baseline", "demo", SMALL).config
    worker = BenchWorker(Candidate("accl", config, 1, 1, backend="reference"), 120, _nothing)
    worker._process.kill()
    with pytest.raises(WorkerError, match="exit code -9"):
        worker.answer()
    worker.close()


def test_a_missing_package_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    for peer, package in (("eager", "accelerate"), ("sentence-transformers", "sentence_transformers")):
        refused = CliRunner().invoke(app, ["train", "baseline", "--profile=demo", f"--peer={peer}"]).exception
        assert isinstance(refused, ConfigError)
        assert package in refused.what
        assert "pip install 'accl[bench]'" in refused.hint


def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path) -> None:
    output = f"--output={tmp_path / 'none.json'}"
    unknown = CliRunner().invoke(app, ["train", "basline", "--profile=demo", output]).exception
    assert isinstance(unknown, ConfigError)
    assert "Did you mean 'baseline'?" in unknown.hint
    both = CliRunner().invoke(app, ["train", "--together", "--apart", output])
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr
    assert not list(tmp_path.iterdir())


def test_another_family_of_encoders_starts_from_scratch() -> None:
    with torch.device("meta"):  # shapes alone: 124 M weights take their time
        encoder = load_encoder("random:roberta-base", "", vocab_size=8192)
    module: Any = encoder.module
    assert (module.config.model_type, encoder.max_length, encoder.hidden_size) == ("roberta", 512, 768)
    assert not [name for name, _ in module.named_parameters() if "pooler" in name]
