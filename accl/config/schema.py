"""The sections of a configuration: every key with its type, its range and a description.

Default values stand in ``configs/base.yaml``. A key whose values are the files of a folder names the folder's
`accl.choices.Registry`, which validates and explains them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from accl.choices import LOSSES, NEGATIVES, POLICIES, SOURCES, Registry


def _written_out(registry: Registry) -> AfterValidator:
    """Validate a choice, and write the number out where it is left to the default, so that runs record it."""

    def check(text: str) -> str:
        choice, number = registry.parse(text)
        return text.strip() if "(" in text or not choice.parameter else f"{choice.name}({number:g})"

    return AfterValidator(check)


Policy = Annotated[str, POLICIES, _written_out(POLICIES)]
Negatives = Annotated[str, NEGATIVES, _written_out(NEGATIVES)]
Denominator = Annotated[str, LOSSES, _written_out(LOSSES)]
Source = Annotated[str, SOURCES, _written_out(SOURCES)]


# Bounds beyond which a run could only fail: steps are 32-bit integers in the database, seeds 64-bit ones in torch, and
# sizes are multiplied into tensors. They are meant never to be met by a run that could work.
MOST_STEPS = 2**31 - 1
MOST_SEED = 2**63 - 1
MOST_SIZE = 2**16
MOST_EPOCHS = 100_000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(_Section):
    """The questions, and how they are split and shown to the encoder."""

    source: Source = Field(description="Kind of place that questions come from; data.path alone implies `folder`.")
    path: str = Field(description="Id of the Hub data set or the local folder; not used by `synthetic`.")
    revision: str = Field(description="Commit of the Hub data set; empty means the newest.")
    protocol: Literal["pooled", "official"] = Field(
        description="Which questions train and which test: `pooled` splits all labelled questions 80/10/10 by task, "
        "`official` trains on dev and validation and tests on test; on train and dev where the data has a train."
    )
    split_seed: int = Field(
        ge=0,
        le=MOST_SEED,
        description="Seed of the `pooled` split, apart from train.seed so that all seeds test on the same questions.",
    )
    max_length: int = Field(
        ge=16, le=MOST_SIZE, description="Most tokens of one encoder input; longer questions are truncated."
    )
    permute_options: bool = Field(description="Whether the options of a training question are shuffled at every draw.")


class Model(_Section):
    """The encoder and the heads on it."""

    name: str = Field(min_length=1, description="Encoder: a Hub id, a local folder, or random:ARCHITECTURE.")
    revision: str = Field(description="Commit of the Hub model; empty means the newest.")
    head: Literal["single_sequence", "per_option"] = Field(
        description="What the encoder reads: the question with all options as one sequence (as published), or with one "
        "option at a time, each of which gets a score."
    )
    contrastive_dim: int = Field(
        ge=1, le=MOST_SIZE, description="Dimensions of the embeddings of the contrastive loss."
    )
    task_embedding: bool = Field(description="Whether the classification head sees a learned embedding of the task.")


class Loss(_Section):
    """The weights and the form of the two loss terms."""

    classification_weight: float = Field(ge=0, le=1e6, description="Weight of cross-entropy in the loss.")
    contrastive_weight: float = Field(
        ge=0,
        le=1e6,
        description="Weight of the contrastive loss; with 0 it is not computed and there is no memory bank.",
    )
    temperature: float = Field(
        ge=1e-6, le=1e6, description="Temperature tau that cosines are divided by in the contrastive loss."
    )
    denominator: Denominator = Field(description="Form of the contrastive loss: what is in its denominator.")
    negatives: Negatives = Field(
        description="Which negatives an anchor is contrasted with, in the batch and the memory bank together."
    )
    uncertainty_weight: Literal["entropy", "margin", "none"] = Field(
        description="Weight of an anchor: normalised entropy of its prediction (as published), "
        "1 - (p_first - p_second), or 1."
    )


class Sampler(_Section):
    """The shape of a batch: tasks x questions of each."""

    questions_per_task: int | None = Field(
        ge=1,
        le=MOST_SIZE,
        description="Questions of each task in a batch, so that anchors have positives; null means that every question "
        "is drawn independently.",
    )
    auxiliary_questions: int | None = Field(
        ge=0,
        le=MOST_SIZE,
        description="Questions without task that join each batch, for cross-entropy only; null means train.batch_size "
        "where the protocol has any (`official`).",
    )


class MemoryBank(_Section):
    """Past embeddings kept as extra candidates of the contrastive loss."""

    size: int = Field(ge=0, le=MOST_SIZE, description="Embeddings kept per task; 0 means no memory bank.")
    start_step: int | None = Field(
        ge=0,
        le=MOST_STEPS,
        description="Last step without the bank; null means the end of the learning rate's warm-up.",
    )


class Curriculum(_Section):
    """The rule that makes the task weights, and when it acts."""

    policy: Policy = Field(description="Rule that makes the task weights that the sampler draws by.")
    temperature: float = Field(ge=1e-6, le=1e6, description="Temperature T of the policy's softmax; lower is sharper.")
    warmup_epochs: float = Field(ge=0, le=MOST_EPOCHS, description="Epochs of uniform sampling before the policy acts.")
    warmup_steps: int | None = Field(
        ge=0,
        le=MOST_STEPS,
        description="Steps of uniform sampling before the policy acts; null means curriculum.warmup_epochs.",
    )
    update_every: int = Field(ge=1, le=MOST_STEPS, description="Steps between two updates of the task weights.")
    epsilon: float = Field(ge=0, le=1, description="Share of the probability that always stays uniform over tasks.")
    max_repeats: float | None = Field(
        gt=0, le=1e9, description="Most times that an epoch goes through the questions of a task; null means no cap."
    )
    weights_file: str | None = Field(
        description="YAML file of `task: weight` for the policy `fixed`; null with every other policy."
    )


class Optim(_Section):
    """AdamW and its schedule."""

    lr: float = Field(gt=0, le=100, description="Highest learning rate, reached at the end of the warm-up.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        description="Course of the learning rate after the warm-up: to 0 along a cosine or a line, or constant."
    )
    warmup_ratio: float = Field(ge=0, le=1, description="Share of all steps in which the learning rate rises from 0.")
    weight_decay: float = Field(ge=0, le=100, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(gt=0, le=1e12, description="Norm that gradients are clipped to.")


class Train(_Section):
    """Length, place and precision of a run."""

    seed: int = Field(ge=0, le=MOST_SEED, description="Seed of weights, batches and dropout.")
    epochs: float = Field(gt=0, le=MOST_EPOCHS, description="Length of the run in passes over the training questions.")
    max_steps: int | None = Field(
        ge=1, le=MOST_STEPS, description="Length of the run in steps; null means train.epochs."
    )
    batch_size: int = Field(
        ge=2, le=MOST_SIZE, description="Questions of a batch; a multiple of sampler.questions_per_task."
    )
    precision: Literal["bf16", "fp32"] = Field(description="Precision of matrix products; weights are always fp32.")
    device: Literal["auto", "cpu", "cuda"] = Field(description="Device; `auto` takes a GPU where there is one.")
    checkpoint_every: int = Field(ge=1, le=MOST_STEPS, description="Steps between two checkpoints.")
    max_unsaved_minutes: float = Field(
        ge=0,
        le=MOST_STEPS,
        description="Longest time that a run goes on while the disk takes no checkpoint or no measurement, being full "
        "for example; then it ends, to be resumed once there is room.",
    )
    backend: Literal["auto", "packed", "cudagraph", "cpu", "reference"] = Field(
        description="How a step is computed: `packed` (packed sequences; on a GPU Triton kernels and one CUDA graph), "
        "`cudagraph` (any encoder on a GPU), `cpu` (C kernels), `reference` (plain torch), or the fastest possible."
    )
    deterministic: bool = Field(
        description="Whether a GPU uses only kernels that give the same bits every time, which is slower; a CPU always "
        "does."
    )

    def total_steps(self, questions: int) -> int:
        """Return the length of the run in steps, given the number of training questions."""
        return self.max_steps or max(1, round(self.epochs * self.steps_per_epoch(questions)))

    def steps_per_epoch(self, questions: int) -> int:
        """Return the number of steps that one pass over so many training questions takes."""
        return -(-questions // self.batch_size)


class Eval(_Section):
    """Evaluations on the validation split while training, and the test split, which is read once, at the end."""

    every: int = Field(ge=1, le=MOST_STEPS, description="Steps between two evaluations on the validation split.")
    max_questions: int | None = Field(
        ge=1,
        le=MOST_STEPS,
        description="Most validation questions of an evaluation, spread over the tasks; null means all.",
    )
    test: bool = Field(
        description="Whether the run is tested when it has been trained; false leaves the test split unread until "
        "`accl test RUN`, so that settings are chosen on validation alone."
    )


class Alerts(_Section):
    """Messages about what happens to a run that a person would want to be told."""

    command: str | None = Field(
        description="Program with its arguments, run without a shell, that gets every alert (nan, spike, collapse, "
        "stall, disk, finished, failed) as JSON on its standard input; null for none."
    )


class Config(_Section):
    """Everything that a training process needs to know."""

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
    alerts: Alerts

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        per_task, size = self.sampler.questions_per_task, self.train.batch_size
        if per_task is not None and size % per_task:
            raise ValueError(f"train.batch_size={size} is no multiple of sampler.questions_per_task={per_task}")
        if (self.curriculum.policy == "fixed") != (self.curriculum.weights_file is not None):
            raise ValueError("curriculum.policy=fixed and curriculum.weights_file need each other")
        if self.loss.classification_weight == 0 and self.loss.contrastive_weight == 0:
            raise ValueError("loss.classification_weight and loss.contrastive_weight are both 0: nothing to learn")
        return self
