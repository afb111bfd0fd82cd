#!/usr/bin/env python3
"""TensorBoard's event files, by the tensorboard package.

    make_tensorboard_golden.py            writes tests/data/record/tensorboard.tfevents
    make_tensorboard_golden.py FOLDER     prints the scalars that TensorBoard finds in a run's folder, as JSON:
                                          {"train/loss": [[step, value], ...], ...}

The golden file has the events that the C++ test writes: a version, the start of a resumed session, two events of
scalars. Times are fixed.
"""

import io
import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "record" / "tensorboard.tfevents"


def scalars(wall_time, step, values):
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=t, simple_value=v) for t, v in values])
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary)


def events():
    yield event_pb2.Event(wall_time=1700000000.25, file_version="brain.Event:2")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    yield event_pb2.Event(wall_time=1700000000.5, step=301, session_log=start)
    yield scalars(1700000001.0, 301, [("train/loss", 2.5), ("train/learning_rate", 1e-3)])
    yield scalars(1700000002.0, 1 << 40, [("eval/loss", float("nan")), ("eval/" + "long" * 50, -1.0)])


def read(folder):
    found = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.SCALARS: 0})
    found.Reload()
    return {tag: [[s.step, s.value] for s in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def main():
    if len(sys.argv) > 1:
        json.dump(read(sys.argv[1]), sys.stdout)
        return
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events():
        writer.write(event.SerializeToString(deterministic=True))
    FILE.write_bytes(file.getvalue())


if __name__ == "__main__":
    main()
