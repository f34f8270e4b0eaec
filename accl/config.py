"""Recipes, profiles and overrides, resolved into one validated `Config` that knows where each value came from.

Layers, later over earlier: ``configs/base.yaml``, the profile (scale and data), the recipe (what
makes the arm), and ``--set key=value``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from accl.errors import ConfigError

DEFAULT_PROFILE = "paper"

# libyaml's loader where PyYAML was built with it: seven times as fast, which a folder of many runs feels.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Forms of negatives and policies, with the parameter that some take in brackets.
NEGATIVES: dict[str, str] = {"all": "", "hardest": "k", "semi_hard": "margin", "debiased": "class prior"}
POLICIES: dict[str, str] = {
    "uniform": "",
    "proportional": "alpha",
    "confusion": "",
    "seed_literal": "",
    "uncertainty": "",
    "uncertainty_gradient": "",
    "loss_bandit": "",
    "learning_progress": "",
    "fixed": "",
}


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "hardest": (lambda k: k >= 1 and k == int(k), "a whole number of at least 1"),
    "semi_hard": (lambda margin: margin > 0, "a margin above 0"),
    "debiased": (lambda prior: 0 <= prior < 1, "a share from 0 to below 1"),
    "proportional": (math.isfinite, "a number"),
}


def parse_choice(text: str) -> tuple[str, float]:
    """``name`` or ``name(number)`` as (name, number); the number is NaN where there is none.

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"(\w+)(?:\(([^()]+)\))?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a name, or a name with a number in brackets")
    return match[1], float(match[2]) if match[2] else float("nan")


def _choice(known: Mapping[str, str]) -> AfterValidator:
    def check(text: str) -> str:
        forms = ", ".join(f"{name}({parameter})" if parameter else name for name, parameter in known.items())
        name, number = parse_choice(text)
        if name not in known:
            raise ValueError(f"should be one of {forms}")
        if bool(known[name]) == math.isnan(number):
            raise ValueError(f"should be written {name}({known[name]})" if known[name] else f"{name} takes no number")
        if name in _RANGES and not _RANGES[name][0](number):
            raise ValueError(f"{name} takes {_RANGES[name][1]}")
        return text

    return AfterValidator(check)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Section):
    """Which questions, and how they are split and shown to the encoder."""

    source: Literal["hub", "folder", "synthetic"]
    path: str  # Hub data set id, or a local folder; unused by `synthetic`
    revision: str  # commit of the Hub data set
    protocol: Literal["pooled", "official"]
    split_seed: int = Field(ge=0)  # of `pooled`; apart from train.seed, so that all seeds test on the same questions
    max_length: int = Field(ge=16)  # tokens of one encoder input
    permute_options: bool  # shuffle the options of each training question anew every time


class Model(_Section):
    """The encoder and the heads on it."""

    name: str = Field(min_length=1)  # Hub id, local folder, or random:<architecture>
    revision: str
    head: Literal["single_sequence", "per_option"]
    contrastive_dim: int = Field(ge=1)
    task_embedding: bool


class Loss(_Section):
    """The weights and the form of the two loss terms."""

    classification_weight: float = Field(ge=0)
    contrastive_weight: float = Field(ge=0)
    temperature: float = Field(gt=0)
    denominator: Literal["negatives", "all"]
    negatives: Annotated[str, _choice(NEGATIVES)]  # which negatives count: mining, on the batch and the bank
    uncertainty_weight: Literal["entropy", "margin", "none"]


class Sampler(_Section):
    """The shape of a batch: tasks x questions of each."""

    tasks_per_batch: int | None = Field(ge=1)  # null: batch_size / questions_per_task
    questions_per_task: int | None = Field(ge=1)  # null: every question drawn independently
    auxiliary_questions: int | None = Field(ge=0)  # per batch, cross-entropy only; null: batch_size under `official`


class MemoryBank(_Section):
    """Past embeddings kept as extra candidates of the contrastive loss."""

    size: int = Field(ge=0)  # embeddings per task; 0: no bank
    start_step: int | None = Field(ge=0)  # null: when the learning rate has warmed up


class Curriculum(_Section):
    """How task weights are made."""

    policy: Annotated[str, _choice(POLICIES)]
    temperature: float = Field(gt=0)
    warmup_epochs: float = Field(ge=0)
    warmup_steps: int | None = Field(ge=0)  # wins over warmup_epochs
    update_every: int = Field(ge=1)
    floor: float = Field(ge=0, le=1)  # share of the probability that is always uniform
    max_repeats: float | None = Field(gt=0)  # how often an epoch may go through a task's questions; null: no cap
    weights_file: str | None  # YAML of `task: weight`, for the policy `fixed`


class Optim(_Section):
    """AdamW and its schedule."""

    lr: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"]
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)


class Train(_Section):
    """Length, place and precision of a run."""

    seed: int = Field(ge=0)
    epochs: float = Field(gt=0)
    max_steps: int | None = Field(ge=1)  # wins over epochs
    batch_size: int = Field(ge=2)
    precision: Literal["bf16", "fp32"]
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_every: int = Field(ge=1)  # steps
    backend: Literal[
        "auto", "packed", "cudagraph", "cpu", "reference"
    ]  # how steps are computed; auto: the fastest that can be
    deterministic: bool  # on a GPU: only kernels that give the same bits every time; slower. A CPU always does


class Eval(_Section):
    """Evaluations on the validation split while training; the test split is read once, at the end."""

    every: int = Field(ge=1)  # steps
    max_questions: int | None = Field(ge=1)  # of the validation split; null: all


class Config(_Section):
    """Everything a training process needs to know."""

    recipe: str
    profile: str
    data: Data
    model: Model
    loss: Loss
    sampler: Sampler
    memory_bank: MemoryBank
    curriculum: Curriculum
    optim: Optim
    train: Train
    eval: Eval

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        tasks, per_task = self.sampler.tasks_per_batch, self.sampler.questions_per_task
        size = self.train.batch_size
        if per_task is None and tasks is not None:
            raise ValueError("sampler.tasks_per_batch needs sampler.questions_per_task")
        if per_task is not None and (size % per_task or tasks not in (None, size // per_task)):
            wanted = f"{tasks or 'tasks'} x {per_task}"
            raise ValueError(f"train.batch_size={size} is not sampler {wanted} (tasks_per_batch x questions_per_task)")
        if (self.curriculum.policy == "fixed") != (self.curriculum.weights_file is not None):
            raise ValueError("curriculum.policy=fixed and curriculum.weights_file need each other")
        if self.loss.classification_weight == 0 and self.loss.contrastive_weight == 0:
            raise ValueError("loss.classification_weight and loss.contrastive_weight are both 0: nothing to learn")
        return self


@dataclass(frozen=True)
class Resolved:
    """A configuration and the origin of every value, by dotted key."""

    config: Config
    origin: dict[str, str]


def configs_folder() -> Path:
    """Where recipes and profiles lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "base.yaml").is_file():
            return folder
    raise ConfigError("accl's own configs/ folder is missing.", "Reinstall accl.")


def available(kind: Literal["recipes", "profiles"]) -> list[str]:
    """Names of the recipes or profiles that come with accl."""
    return sorted(path.stem for path in (configs_folder() / kind).glob("*.yaml"))


def resolve(recipe: str, profile: str = DEFAULT_PROFILE, overrides: Sequence[str] = ()) -> Resolved:
    """Layer base, profile, recipe and ``key=value`` overrides, and validate the result.

    Args:
        recipe: a shipped name, or the path of a YAML file of your own (its stem becomes the name).
        profile: likewise.

    Raises:
        ConfigError: unknown name or key (the nearest one is named), wrong type, values that do not fit.
    """
    profile_path, recipe_path = _named("profiles", profile), _named("recipes", recipe)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("base", _flatten(_base())),
        (f"profile {profile_path.stem}", _flatten(_read_yaml(profile_path))),
        (f"recipe {recipe_path.stem}", _flatten(_read_yaml(recipe_path))),
        ("--set", _parse_overrides(overrides)),
    ]
    known = [key for key in layers[0][1] if "." in key]
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        for key, value in layer.items():
            if key not in known:
                raise _unknown_key(key, known, name)
            values[key], origin[key] = value, name
    tree: dict[str, Any] = {"recipe": recipe_path.stem, "profile": profile_path.stem}
    for key, value in values.items():
        section, _, leaf = key.partition(".")
        tree.setdefault(section, {})[leaf] = value
    return Resolved(_validate(tree, origin), origin)


def load(path: Path) -> Config:
    """The configuration of a run, from its ``config.yaml``.

    A key that accl has learnt since the run was made gets its value of ``configs/base.yaml``: new keys are added so
    that their default changes nothing.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not validate.
    """
    tree = _read_yaml(path)
    for section, values in _base().items():
        if isinstance(tree.get(section), dict):
            tree[section] = values | tree[section]
    return _validate(tree, {})


@cache
def _base() -> dict[str, dict[str, Any]]:
    return _read_yaml(configs_folder() / "base.yaml")


def dump(config: Config) -> str:
    """The configuration as YAML, to be read back by `load`."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def flat(config: Config) -> dict[str, Any]:
    """Every value by dotted key, in the order of the schema."""
    return dict(_flatten(config.model_dump()))


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both values."""
    left, right = flat(a), flat(b)
    return {key: (left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)}


def _named(kind: Literal["recipes", "profiles"], name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"There is no file {name}.", f"Shipped {kind}: {', '.join(available(kind))}.")
        return path
    path = configs_folder() / kind / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        known = available(kind)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"Unknown {kind[:-1]} {name!r}.",
            f"{hint}There are: {', '.join(known)}; or give the path of a YAML file.",
        )
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `section:` entries, not a {type(content).__name__}.")
    return content or {}


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(walk(tree, ""))


def _parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``key=value`` with the value read as YAML, so that 1e-3, true, null and text all work."""
    values: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item} is not key=value.", "For example: --set train.batch_size=32")
        values[key.strip()] = _scalar(text)
    # A path alone can only mean a folder on this machine.
    if "data.path" in values and "data.source" not in values:
        values["data.source"] = "folder"
    return values


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text
            return float(value)
        except ValueError:
            return value
    return value if not isinstance(value, (dict, list)) else text


def _unknown_key(key: str, known: Sequence[str], layer: str) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # perhaps only the section is missing: batch_size for train.batch_size
        leaves = {k.split(".", 1)[1]: k for k in known}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), n=1)]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"Unknown key {key!r} ({layer}).", f"{hint}All keys: accl config show full")


def _validate(tree: Mapping[str, Any], origin: Mapping[str, str]) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not key:
            raise ConfigError(f"{message}.", "Change one of them with --set key=value.") from error
        if first["type"] == "missing":
            raise ConfigError(f"{key} is missing from the configuration.") from error
        if first["type"] == "extra_forbidden":
            known = list(_flatten(_empty_tree()))
            raise _unknown_key(key, known, "configuration") from error
        where = f" ({origin[key]})" if key in origin else ""
        raise ConfigError(
            f"{key}={first['input']!r}{where}: {message[0].lower()}{message[1:]}.", f"Try: --set {key}=VALUE"
        ) from error


def _empty_tree() -> dict[str, dict[str, None]]:
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    return {
        name: dict.fromkeys(section.model_fields)
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
    }
