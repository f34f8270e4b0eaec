"""``python -m accl.bench.whole_peer``: a whole run of transformers' Trainer, with the seconds of its phases.

Its arguments are a configuration, whether the model is compiled (0 or 1), and the file that gets the result as JSON.
The run has the steps of accl's, evaluates as often and as many questions, writes a checkpoint when validation is better
than before, and tests with those weights. It goes through the training questions in its own order, tokenised once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accl.bench.whole import CLOSING
from accl.training.phases import SAVING, PhaseClock, process_age

PART = 1024


def main(config_file: Path, compiled: bool, result: Path) -> None:
    """Train, test, and write the seconds by phase."""
    clock = PhaseClock(process_age())
    clock.enter("loading libraries")
    # Imports take seconds, which count as such.
    import numpy as np
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from accl.bench.device import synchronise
    from accl.bench.peer import Item, PeerModel, collate, common_arguments, questions
    from accl.config import load
    from accl.data.sampler import Draw
    from accl.training.device import set_determinism
    from accl.training.setup import build_context
    from accl.training.testing import EVALUATION_BATCHES, some_questions

    config = load(config_file)
    set_determinism(config.train.seed, config.train.deterministic)
    context = build_context(config, clock.enter)
    choices, rng = context.blob.choices, np.random.default_rng(config.train.seed)

    def items(positions: Any, permuted: bool = False) -> list[Item]:
        """Tokenise questions, a part of them at a time: a batch is as wide as its longest question."""
        draws = []
        for part in np.array_split(positions, -(-len(positions) // PART)):
            order = np.tile(np.arange(choices), (len(part), 1))
            draws.append(Draw(part, rng.permuted(order, axis=1) if permuted else order))
        return questions(context.assembler, draws)

    class Phases(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step == 0:
                clock.enter("training")

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate |= state.global_step == context.total_steps

    def timed(phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            synchronise(context.placement.device)
            with clock.during(phase):
                return work(*arguments, **keywords)

        return call

    clock.enter("tokenising")
    learnt = np.concatenate([context.positions["train"], context.positions["auxiliary"]])
    train = items(learnt, config.data.permute_options)
    validation = items(some_questions(context.positions["validation"], config.eval.max_questions))
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        clock.enter("warming up")
        trainer = Trainer(
            model=PeerModel(context.model),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=context.total_steps,
                eval_strategy="steps",
                eval_steps=config.eval.every,
                save_strategy="best",
                save_total_limit=2,
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                per_device_train_batch_size=context.questions_per_step,
                per_device_eval_batch_size=EVALUATION_BATCHES * config.train.batch_size,
                train_sampling_strategy="group_by_length",
                torch_compile=compiled,
                remove_unused_columns=False,
                **common_arguments(context),
            ),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=partial(collate, pad_id=context.assembler.pad_id),
            compute_metrics=lambda told: {"accuracy": float((told.predictions.argmax(-1) == told.label_ids).mean())},
            callbacks=[Phases()],
        )
        # On the instance, as the Trainer calls these by itself while it trains.
        vars(trainer).update(
            evaluate=timed("validating", trainer.evaluate), _save_checkpoint=timed(SAVING, trainer._save_checkpoint)
        )
        trainer.train()
        synchronise(context.placement.device)
        if config.eval.test:
            clock.enter("testing")
            trainer.predict(items(context.positions["test"]))
        clock.enter(CLOSING)
    answer = {"phases": clock.seconds(), "steps": trainer.state.global_step}
    result.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1", Path(sys.argv[3]))
