"""Test results in the files of lm-evaluation-harness 0.4: one of results, and one of samples for each task.

Its tasks are named ``accl_{task}`` and its groups ``accl`` and ``accl_{category}``: the questions of a run are not
those of the harness's own ``mmlu`` unless its protocol says so, and the model reads no few-shot prompt.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accl.analysis.exports.material import Material, file_name
from accl.errors import AbsentError

_GROUP = "accl"
_FILTER = "none"
Row = Mapping[str, Any]


def write(material: Material, folder: Path) -> int:
    """Write the answers of a run to the test below ``folder``, and return their number.

    The log-likelihood of an option is the logarithm of its probability. Runs of earlier versions, which did not record
    the texts of questions, have results without samples.

    Raises:
        AbsentError: the run has no answers to the test.
        OSError: the folder cannot be written.
    """
    answers = sorted(
        (row for row in material.rows("predictions") if row["split"] == "test"),
        key=lambda row: (row["task"], row["question_id"]),
    )
    if not answers:
        raise AbsentError(f"{material.run.id} has no answers to test questions.", f"accl test {material.run.typed}")
    by_task: dict[int, list[Row]] = {}
    for row in answers:
        by_task.setdefault(row["task"], []).append(row)
    asked = {row["id"]: row for row in material.rows("questions")}
    names = {task: f"{_GROUP}_{_task_name(material, task)}" for task in by_task}
    samples = {
        names[task]: [_sample(number, row, asked[row["question_id"]]) for number, row in enumerate(rows)]
        for task, rows in by_task.items()
        if all(row["question_id"] in asked for row in rows)
    }
    results = _results(material, by_task, names)
    results["task_hashes"] = {
        name: _hash("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in rows))
        for name, rows in samples.items()
    }
    ended = datetime.fromtimestamp(results["date"], UTC).replace(tzinfo=None)
    date = ended.isoformat(timespec="microseconds").replace(":", "-")
    (folder / material.folder).mkdir(parents=True)
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (folder / material.folder / f"results_{date}.json").write_text(text, encoding="utf-8")
    for name, rows in samples.items():
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        path = folder / material.folder / f"samples_{file_name(name)}_{date}.jsonl"
        path.write_text(lines, encoding="utf-8")
    return len(answers)


def _results(material: Material, by_task: Mapping[int, Sequence[Row]], names: Mapping[int, str]) -> dict[str, Any]:
    categories = {row["task"]: str(row["category"]) for row in material.rows("tasks")}
    groups: dict[str, list[int]] = {}
    for task in by_task:
        groups.setdefault(f"{_GROUP}_{file_name(categories.get(task, 'other')).lower()}", []).append(task)
    groups = {_distinct(name, names.values()): tasks for name, tasks in groups.items()}
    per_task = {names[task]: _scores(names[task], [rows]) for task, rows in by_task.items()}
    per_group = {name: _scores(name, [by_task[task] for task in tasks]) for name, tasks in groups.items()}
    overall = {_GROUP: _scores(_GROUP, list(by_task.values()))}
    everything = [*overall, *per_group, *per_task]
    config, state = material.config, material.summary.state
    source = f"protocol {config.get('data.protocol', '?')} of {config.get('data.source', '?')}"
    ended = (state.ended if state else 0.0) or material.started
    counts = {name: scores["sample_len"] for name, scores in per_task.items()}
    return {
        "results": overall | per_group | per_task,
        "groups": overall | per_group,
        "group_subtasks": {_GROUP: list(groups)} | {group: [names[t] for t in ts] for group, ts in groups.items()},
        "configs": {
            name: {
                "task": name,
                "tag": _GROUP,
                "test_split": "test",
                "output_type": "multiple_choice",
                "num_fewshot": 0,
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                "description": f"Questions of the test of an accl run: {source}; trained on this task.",
                "metadata": {"version": 1.0},
            }
            for name in per_task
        },
        "versions": dict.fromkeys(everything, 1.0),
        "n-shot": dict.fromkeys(everything, 0),
        "higher_is_better": {name: {"acc": True} for name in everything},
        "n-samples": {name: {"original": n, "effective": n} for name, n in counts.items()},
        "config": {
            "model": "accl",
            "model_args": {"pretrained": material.folder, "encoder": str(config.get("model.name", "?"))},
            "batch_size": None,
            "batch_sizes": [],
            "device": None,
            "use_cache": None,
            "limit": None,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
            "random_seed": material.summary.setup.seed if material.summary.setup else None,
        },
        "git_hash": None,
        "date": ended,
        "model_source": "accl",
        "model_name": material.folder,
        "model_name_sanitized": material.folder,
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
    }


def _scores(name: str, tasks: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return the accuracy over all questions of tasks, with the standard error that the harness gives them.

    That of several tasks pools their variances, each with its own mean.
    """
    counts = [(len(rows), sum(row["gold"] == row["predicted"] for row in rows)) for rows in tasks]
    n, right = (sum(numbers) for numbers in zip(*counts, strict=True))
    # A sample of zeros and ones with mean p has the variance n p (1 - p) / (n - 1).
    within = sum(k * (count - k) / count for count, k in counts)
    error: float | str = math.sqrt(within / (n - len(counts)) / n) if min(c for c, _ in counts) > 1 else "N/A"
    return {
        "name": name,
        "alias": name.removeprefix(f"{_GROUP}_"),
        "sample_len": n,
        f"acc,{_FILTER}": right / n,
        f"acc_stderr,{_FILTER}": error,
    }


def _sample(number: int, answer: Row, question: Row) -> dict[str, Any]:
    doc = {key: question[key] for key in ("id", "text", "options", "answer")}
    logs = [math.log(p) if p > 0 else -math.inf for p in answer["probabilities"]]
    responses = [[str(log), str(option == answer["predicted"])] for option, log in enumerate(logs)]
    arguments = {
        f"gen_args_{i}": {"arg_0": question["text"], "arg_1": f" {option}"}
        for i, option in enumerate(question["options"])
    }
    target = str(answer["gold"])
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": arguments,
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
        "filter": _FILTER,
        "metrics": ["acc"],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(question["text"]),
        "target_hash": _hash(target),
        "acc": float(answer["gold"] == answer["predicted"]),
    }


def _task_name(material: Material, task: int) -> str:
    names = [file_name(name) for name in material.tasks]
    if task >= len(names):
        return str(task)
    return names[task] if names.count(names[task]) == 1 else f"{names[task]}_{task}"


def _distinct(name: str, taken: Any) -> str:
    return f"{name}_category" if name in taken else name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
