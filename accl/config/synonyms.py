"""Names that other tools have for keys of the configuration, so that a hint can lead from the one to the other."""

from __future__ import annotations

SYNONYMS = {
    "learning_rate": "optim.lr",
    "lr_scheduler": "optim.schedule",
    "lr_scheduler_type": "optim.schedule",
    "scheduler": "optim.schedule",
    "warmup": "optim.warmup_ratio",
    "wd": "optim.weight_decay",
    "grad_clip": "optim.max_grad_norm",
    "clip_grad_norm": "optim.max_grad_norm",
    "gradient_clipping": "optim.max_grad_norm",
    "bs": "train.batch_size",
    "batch": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "steps": "train.max_steps",
    "num_steps": "train.max_steps",
    "random_seed": "train.seed",
    "dtype": "train.precision",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "gpu": "train.device",
    "save_steps": "train.checkpoint_every",
    "save_every": "train.checkpoint_every",
    "eval_steps": "eval.every",
    "eval_every": "eval.every",
    "max_seq_length": "data.max_length",
    "max_len": "data.max_length",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "encoder": "model.name",
    "model_name": "model.name",
    "model_name_or_path": "model.name",
    "tau": "loss.temperature",
    "lambda": "loss.contrastive_weight",
    "lambda_contrast": "loss.contrastive_weight",
    "contrast_weight": "loss.contrastive_weight",
    "queue_size": "memory_bank.size",
    "bank_size": "memory_bank.size",
}


def known_as(name: str) -> str | None:
    """Return the key that another tool's name stands for, with or without a section before it; None if it is none."""
    return SYNONYMS.get(name.rpartition(".")[2].replace("-", "_").lower())
