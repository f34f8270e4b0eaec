"""Event files for TensorBoard: a folder for each run, with scalars, task weights, hyperparameters and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accl.analysis.exports.material import Material
from accl.store.state import State

WEIGHTS = "curriculum_weight"


def write(material: Material, folder: Path) -> int:
    """Write a run as event files below ``folder``, and return the number of events.

    Wall times are those of the run. Values of evaluations stand beside the metrics, as ``validation/accuracy``.

    Raises:
        ImportError: tensorboard is not installed.
        OSError: the folder cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer, count, start = EventFileWriter(str(folder / material.folder)), 0, material.started
    try:
        for summary in _about(material):
            writer.add_event(Event(wall_time=start, step=0, summary=summary))
            count += 1
        for step, seconds, name, value in material.scalars:
            scalar = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=start + seconds, step=step, summary=scalar))
            count += 1
        for step, seconds, weights in material.task_weights():
            values = [Summary.Value(tag=f"{WEIGHTS}/{task}", simple_value=weight) for task, weight in weights.items()]
            writer.add_event(Event(wall_time=start + seconds, step=step, summary=Summary(value=values)))
            count += 1
    finally:
        writer.close()
    return count


def _about(material: Material) -> list[Any]:
    """Return the summaries that the plugins of hyperparameters and text read."""
    from google.protobuf.struct_pb2 import Value
    from tensorboard.compat.proto import types_pb2
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.plugins.text import metadata as text

    values: dict[str, Any] = {}
    for key, value in material.config.items():
        if isinstance(value, bool):
            values[key] = Value(bool_value=value)
        elif isinstance(value, (int, float)):
            values[key] = Value(number_value=value)
        else:
            values[key] = Value(string_value="null" if value is None else str(value))
    session = plugin_data_pb2.SessionStartInfo(
        hparams=values, group_name=material.summary.run.id, start_time_secs=material.started
    )
    state = material.summary.state
    statuses = {State.FINISHED: api_pb2.STATUS_SUCCESS, State.FAILED: api_pb2.STATUS_FAILURE}
    status = statuses.get(state.state, api_pb2.STATUS_UNKNOWN) if state else api_pb2.STATUS_UNKNOWN
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=state.ended if state else 0.0)
    data = plugin_data_pb2.HParamsPluginData
    infos = {
        metadata.SESSION_START_INFO_TAG: data(session_start_info=session),
        metadata.SESSION_END_INFO_TAG: data(session_end_info=end),
    }
    summaries = [
        Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(info))])
        for tag, info in infos.items()
    ]
    # Indented, so that the page shows it as it is: it reads text as Markdown.
    lines = "\n".join(f"    {key}: {value}" for key, value in material.config.items())
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[lines.encode()], tensor_shape=shape)
    about: SummaryMetadata = text.create_summary_metadata("config", "configuration of the run")
    summaries.append(Summary(value=[Summary.Value(tag="config/text_summary", metadata=about, tensor=tensor)]))
    return summaries
