"""Metrics in a tracker: the same numbers as in the run's file, or a clear word before training."""

import dataclasses

import pytest
from accelerate import tracking

from alignpro.config import ConfigError, described
from alignpro.experiments import Cell
from alignpro.sources import trackers


class Notes(tracking.GeneralTracker):
    """A tracker that keeps what it is sent, where a service would be."""

    name, requires_logging_directory, tracker = "notes", False, None
    kept: list = []
    broken = False

    def __init__(self, run_name):
        super().__init__()
        self.run_name = run_name

    def start(self):
        self.kept.clear()

    def store_init_configuration(self, values):
        self.kept.append(values)

    def log(self, values, step):
        if self.broken and step == 2:
            raise OSError("the line is dead")
        self.kept.append({"step": step} | values)

    def finish(self):
        self.kept.append("finished")


@pytest.fixture
def notes(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notes", Notes)
    monkeypatch.setattr(trackers, "check_tracker", lambda name: None)
    monkeypatch.setattr(Notes, "broken", False)
    return Notes


def test_a_tracker_gets_every_number_and_no_text(quick, tmp_path, notes):
    cell = Cell(dataclasses.replace(quick, tracker="notes"), "help", 0, root=tmp_path)
    cell.train(progress=False)
    config, *rows, end = notes.kept
    assert rows == cell.run.read("metrics.jsonl") and len(rows) == 3 and end == "finished"
    assert config["ppo.lam"] == "0.02"


def test_training_goes_on_where_a_tracker_fails(quick, tmp_path, notes, capsys):
    notes.broken = True
    cell = Cell(dataclasses.replace(quick, tracker="notes"), "help", 0, root=tmp_path)
    cell.train(progress=False)
    assert cell.run.finished and len(cell.run.read("metrics.jsonl")) == 3
    assert "notes gets no more metrics: the line is dead" in capsys.readouterr().err


def test_a_tracker_is_no_part_of_a_run(quick):
    assert described(dataclasses.replace(quick, tracker="tensorboard")) == described(quick)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "no tracker 'tensorbord': use one of aim, .*tensorboard"),
        ("comet_ml", "needs its package: `pip install comet-ml`"),
    ],
)
def test_what_cannot_track_is_refused_before_training(quick, tmp_path, name, said, monkeypatch):
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    with pytest.raises(ConfigError, match=said):
        Cell(dataclasses.replace(quick, tracker=name), "help", 0, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_itself(quick, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cell = Cell(dataclasses.replace(quick, tracker="tensorboard"), "help", 0, root=tmp_path)
    cell.train(progress=False)
    events = EventAccumulator(str(cell.run.folder / "tracker" / cell.run.folder.name))
    events.Reload()
    drawn = [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("objective/scores")]
    rows = cell.run.read("metrics.jsonl")
    assert [(row["step"], row["objective/scores"]) for row in rows] == drawn
