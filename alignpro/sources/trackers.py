"""Metrics of training in a tracker that `accelerate` knows, such as TensorBoard, beside the run's.

`tracker: tensorboard` in a preset turns it on. A tracker gets the configuration and the numbers of
each step, and no prompts or answers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from alignpro.config import ConfigError, described
from alignpro.runs import Run
from alignpro.sources.finished_runs import flat


def check_tracker(name: str | None) -> None:
    """Raise ConfigError for an unknown tracker, and for one whose package is missing."""
    if name is None:
        return
    known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"no tracker {name!r}: use one of {known}, or leave `tracker` out")
    if name not in {str(tracker.value) for tracker in get_available_trackers()}:
        package = name.replace("_", "-")
        raise ConfigError(
            f"the tracker {name} needs its package: `pip install {package}`, or leave `tracker` "
            "out of the preset"
        )


@contextlib.contextmanager
def tracked(run: Run, name: str | None) -> Iterator[None]:
    """Send the rows that `run` writes to metrics.jsonl to the tracker `name` as well.

    Trackers that write files write them to the folder `tracker` of the run.
    """
    if name is None:
        yield
        return
    kind = LOGGER_TYPE_TO_CLASS[name]
    places = [str(run.folder / "tracker")] if kind.requires_logging_directory else []
    try:
        tracker = kind(run.folder.name, *places)
        tracker.start()
        tracker.store_init_configuration({key: str(v) for key, v in flat(described(run.preset))})
    except Exception as error:
        raise ConfigError(f"the tracker {name} does not start: {error}") from error

    def send(file: str, rows: Sequence[dict]) -> None:
        if file != "metrics.jsonl":
            return
        try:
            for row in rows:
                numbers = {k: v for k, v in row.items() if isinstance(v, (int, float))}
                tracker.log(numbers, step=row["step"])
        except Exception as error:  # training goes on without it
            run.watchers.remove(send)
            print(f"the tracker {name} gets no more metrics: {error}", file=sys.stderr)

    run.watchers.append(send)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            tracker.finish()
