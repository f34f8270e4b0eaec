"""The model card of an exported run: what it is, what it learnt from, how well it did, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from accl import __version__
from accl.config import Config
from accl.data import hub
from accl.data.architectures import RANDOM
from accl.store.columns import RunReader
from accl.store.measurements import Measurements
from accl.store.provenance import data_fingerprint, read_provenance
from accl.store.reader import Evaluation
from accl.store.summary import numbers
from accl.text import printable
from accl.training.trained import TrainedModel

TASK = "multiple-choice"
# Metrics of an evaluation: their type on the Hub, and their name.
METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_accuracy": ("accuracy", "Accuracy, mean over tasks"),
    "brier": ("brier_score", "Brier score"),
    "ece": ("ece", "Expected calibration error"),
}
SPLITS = ("test", "validation")

_USE = {
    "per_option": """\
import json, torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
heads, about = load_file(f"{folder}/heads.safetensors"), json.load(open(f"{folder}/heads.json"))


def answer(question, options, task=None):
    inputs = tokenizer([question] * len(options), options, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden, mask = encoder(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
        x = (hidden * mask).sum(1) / mask.sum(1)
        if about["task_embedding"]:
            row = about["tasks"].index(task) if task in about["tasks"] else len(about["tasks"])
            x = torch.cat([x, heads["task_embedding.weight"][row].expand(len(options), -1)], 1)
        x = torch.nn.functional.gelu(x @ heads["classifier.1.weight"].T + heads["classifier.1.bias"])
        scores = x @ heads["classifier.4.weight"].T + heads["classifier.4.bias"]
    return scores.flatten().softmax(0)
""",
    "single_sequence": """\
import json, torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
heads, about = load_file(f"{folder}/heads.safetensors"), json.load(open(f"{folder}/heads.json"))


def answer(question, options, task=None):
    listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABCDEFGHIJ", options))
    inputs = tokenizer(question, listed, return_tensors="pt")
    with torch.no_grad():
        x = encoder(**inputs).last_hidden_state.mean(1)
        if about["task_embedding"]:
            row = about["tasks"].index(task) if task in about["tasks"] else len(about["tasks"])
            x = torch.cat([x, heads["task_embedding.weight"][row].expand(1, -1)], 1)
        x = torch.nn.functional.gelu(x @ heads["classifier.1.weight"].T + heads["classifier.1.bias"])
        scores = x @ heads["classifier.4.weight"].T + heads["classifier.4.bias"]
    return scores.flatten().softmax(0)
""",
}


def write_card(trained: TrainedModel, path: Path, checked: Mapping[str, int]) -> None:
    """Write the card; ``checked`` is how many questions were ``sampled``, and how many got ``equal`` ids."""
    measured = RunReader(trained.run).read(("curves", "tasks"))
    found = evaluations(measured, trained.step)
    source, fingerprint = _data_name(trained), data_fingerprint(read_provenance(trained.run))
    metadata = ModelCardData(
        library_name="transformers",
        tags=["accl", "multiple-choice", "mmlu", "contrastive-learning", "curriculum-learning"],
        base_model=_hub_id(trained.config.model.name),
        datasets=_hub_id(trained.config.data.path) if trained.config.data.source == "hub" else None,
        model_name=f"{trained.config.recipe}-s{trained.config.train.seed}" if found else None,
        eval_results=[
            _eval_result(trained, split, name, value, source, fingerprint)
            for split, evaluation in found.items()
            for name, value in evaluation.values.items()
            if name in METRICS
        ],
    )
    body = _body(trained, found, measured, source, fingerprint, checked)
    path.write_text(f"---\n{metadata.to_yaml()}\n---\n\n{body}", encoding="utf-8")


def evaluations(measured: Measurements, step: int) -> dict[str, Evaluation]:
    """Return the evaluation of the weights of a step, by split; none of a split on which they were not evaluated."""
    return {e.split: e for split in SPLITS for e in measured.evaluations if e.split == split and e.step == step and e.n}


def _eval_result(
    trained: TrainedModel, split: str, name: str, value: float, source: str, fingerprint: str
) -> EvalResult:
    data = trained.config.data
    kind, title = METRICS[name]
    return EvalResult(
        task_type=TASK,
        task_name="Multiple choice",
        dataset_type=data.path if data.source == "hub" else data.source,
        dataset_name=source,
        dataset_split=split,
        dataset_revision=data.revision if data.source == "hub" and data.revision else None,
        dataset_args={"protocol": data.protocol, "fingerprint": fingerprint},
        metric_type=kind,
        metric_name=title,
        metric_value=round(value, 6),
    )


def _data_name(trained: TrainedModel) -> str:
    """Return a name of the questions that tells nothing about the machine: a folder by its own name alone."""
    data = trained.config.data
    if data.source in ("hub", "glue", "super_glue"):
        return printable(data.path)
    return "accl's built-in benchmark" if data.source == "synthetic" else printable(Path(data.path).name or data.path)


def _hub_id(name: str) -> str | None:
    return None if name.startswith(RANDOM) or hub.is_local(name) else name


def _body(
    trained: TrainedModel,
    found: Mapping[str, Evaluation],
    measured: Measurements,
    source: str,
    fingerprint: str,
    checked: Mapping[str, int],
) -> str:
    config = trained.config
    chosen = "which validation chose" if trained.which == "best" else "the last ones"
    same = f"{checked['equal']:,} of {checked['sampled']:,}" if checked["sampled"] else "an unknown number of"
    return f"""\
# {config.recipe}, seed {config.train.seed}

Encoder and heads of the run `{printable(trained.run.id)}`, trained by accl {__version__} with the recipe \
`{config.recipe}` and the profile `{config.profile}`: the weights of step {trained.step:,}, {chosen}.

- **Encoder:** {_encoder_words(trained)}.
- **Questions:** {source}, protocol `{config.data.protocol}`, {len(trained.tasks)} tasks, fingerprint `{fingerprint}`.
- **Settings:** {_settings(config)}.
- **Licence:** none is set. Choose one that the licences of the encoder and of the questions allow, and add it to the
  block above.

## Results

{_results(found, measured)}
## Use

`AutoModel` and `AutoTokenizer` load encoder and tokenizer as they are. The heads need a few lines more; `task` is one
of the names in `heads.json`, or nothing:

```python
folder = "."

{_USE[trained.model.head]}```

Inputs longer than {config.data.max_length} tokens were truncated in training, from the beginning of the question. The
tokenizer gives {same} sampled questions that fit the ids that training gave them.

The embedding of the contrastive loss is `x @ heads["contrastive_head.weight"].T + heads["contrastive_head.bias"]`, \
divided by its norm, where `x` is the mean over \
{"the options of a question" if trained.model.head == "per_option" else "its tokens"}.
{_untrained(config)}"""


def _encoder_words(trained: TrainedModel) -> str:
    encoder: Any = trained.model.encoder
    name = trained.config.model.name
    shown = name if _hub_id(name) or name.startswith(RANDOM) else Path(name).name
    config = encoder.config
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    words = f"`{printable(shown)}` ({config.model_type}, {config.num_hidden_layers} layers, hidden {config.hidden_size}"
    start = ", trained from random weights" if name.startswith(RANDOM) else ""
    return f"{words}){start}; {parameters / 1e6:.1f} M parameters with the heads"


def _settings(config: Config) -> str:
    keys = {
        "loss.contrastive_weight": config.loss.contrastive_weight,
        "curriculum.policy": config.curriculum.policy,
        "optim.lr": config.optim.lr,
        "train.batch_size": config.train.batch_size,
        "model.head": config.model.head,
        "model.task_embedding": str(config.model.task_embedding).lower(),
    }
    return ", ".join(f"`{key}={value}`" for key, value in keys.items())


def _results(found: Mapping[str, Evaluation], measured: Measurements) -> str:
    if not found:
        return "These weights were not evaluated.\n"
    lines = ["| split | questions | accuracy (%) | mean over tasks (%) | best floor (%) |", "|---|---:|---:|---:|---:|"]
    for split, evaluation in found.items():
        floors = numbers(measured.meta, (f"floor/{split}/",)).values()
        cells = (evaluation.value("accuracy"), evaluation.value("macro_accuracy"), max(floors, default=float("nan")))
        lines.append(f"| {split} | {evaluation.n:,} | {' | '.join(f'{100 * value:.2f}' for value in cells)} |")
    words = "A floor is the accuracy of a rule that does not read the question."
    if "validation" in found:
        words += " The weights were chosen on validation, whose accuracy is therefore too good."
    if "test" not in found:
        words += " They were not tested."
    return "\n".join([*lines, "", words, ""])


def _untrained(config: Config) -> str:
    if config.loss.contrastive_weight:
        return ""
    return "\nThis run had no contrastive loss: its contrastive head has its initial weights.\n"
