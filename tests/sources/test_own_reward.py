"""A reward of one's own: tried first, told apart by what it does, never trained again unasked."""

import dataclasses
import enum
import functools
import importlib
import os
import re
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from alignpro.config import ConfigError
from alignpro.evaluation import RewardError
from alignpro.experiments import Cell
from alignpro.rewards import rubric
from alignpro.runs import RunError
from alignpro.sources.own_reward import load_reward, reward_name, reward_parts

ROOT = Path(__file__).parents[2]
PROMPTS, ANSWERS = ["a", "b"], ["one", "three"]


def holding(value):
    """A reward with `value` in its closure."""

    def score(prompts, responses):
        return [len(y) if value is not None else 0 for y in responses]

    return score


class Scorer:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, prompts, responses):
        return [self.weight * len(y) for y in responses]

    def shorter(self, prompts, responses):
        return [-self.weight * len(y) for y in responses]


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Weights:
    length: float
    color: Color = Color.RED


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


def weighted(prompts, responses, *, weight=1):
    return [weight * len(y) for y in responses]


def layer(value):
    made = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(made.weight, value)
    torch.nn.init.zeros_(made.bias)
    return made


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (holding, 1, -1),
        (holding, "a", "b"),
        (holding, [1, {"k": (2, 3)}], [1, {"k": (2, 4)}]),
        (holding, np.arange(3), np.arange(4)),
        (holding, torch.ones(2), torch.zeros(2)),
        (holding, torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        (holding, layer(1.0), layer(2.0)),
        (holding, re.compile("a"), re.compile("a", re.I)),
        (holding, Weights(1.0), Weights(1.0, Color.BLUE)),
        (holding, Slotted(1), Slotted(2)),
        (holding, {1, 2, 3}, {1, 2, 4}),
        (holding, "x" * 1000, "x" * 999 + "y"),
        (holding, holding(1), holding(2)),
        (holding, np.mean, np.median),
        (holding, len, max),
        (Scorer, 1, 2),
        (lambda w: Scorer(w).shorter, 1, 2),
        (lambda w: functools.partial(weighted, weight=w), 1, 2),
    ],
)
def test_rewards_that_differ_in_what_they_reach_have_other_names(make, one, other):
    assert reward_name(make(one)) == reward_name(make(one))
    assert reward_name(make(one)) != reward_name(make(other))
    assert reward_parts(make(one)) == reward_parts(make(one)) != reward_parts(make(other))


def test_an_object_and_its_method_and_two_lambdas_on_a_line_are_told_apart():
    assert reward_name(Scorer(1)) != reward_name(Scorer(1).shorter)
    one, other = (lambda x, y: [1.0] * len(y)), (lambda x, y: [2.0] * len(y))
    assert reward_name(one) != reward_name(other)


SOURCE = '''
import helpers
LIMIT = 3
WORDS = {"a", "bc", "def"}

def bonus(text):
    return len(text) > LIMIT and text not in WORDS

def score(prompts, responses, scale=2):
    """Longer is better."""
    # A comment.
    return [scale * bonus(y) + helpers.words(y) for y in responses]
'''
HELPERS = "def words(text):\n    return len(text.split())\n\ndef unused():\n    return 1\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes two modules and returns the name and parts of the reward."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files of one second look alike

    def name_and_parts(score=SOURCE, helpers=HELPERS):
        (tmp_path / "mine.py").write_text(score)
        (tmp_path / "helpers.py").write_text(helpers)
        importlib.invalidate_caches()
        for module in ("mine", "helpers"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        reward = load_reward("mine:score")
        return reward_name(reward), reward_parts(reward)

    return name_and_parts


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("# A comment.", "# Another one,\n    # and longer.\n", None),
        ("Longer is better.", "Longer is still better.", None),
        ("import helpers\n", "import helpers\n\n\n", None),
        ("scale=2", "scale=3", "the default scale"),
        ("LIMIT = 3", "LIMIT = 4", "the global LIMIT of the global bonus"),
        ("text) > LIMIT", "text) < LIMIT", "the code of the global bonus"),
        ("scale * bonus", "scale + bonus", "the code"),
    ],
)
def test_an_edit_counts_where_it_changes_what_the_reward_does(written, old, new, changed):
    name, parts = written()
    edited, now = written(SOURCE.replace(old, new))
    assert (edited == name) is (changed is None)
    assert [key for key in parts if parts[key] != now[key]] == ([changed] if changed else [])


def test_a_function_of_a_file_of_ones_own_counts_and_an_unused_one_does_not(written):
    name, _ = written()
    other, _ = written(helpers=HELPERS.replace("split()", "split('e')"))
    same, _ = written(helpers=HELPERS.replace("return 1", "return 2"))
    assert same == name != other


def test_a_name_is_the_same_in_another_process(written, tmp_path):
    name, _ = written()
    code = (
        "from alignpro.sources.own_reward import *; print(reward_name(load_reward('mine:score')))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == name, done.stderr


@pytest.mark.parametrize("hidden", [threading.Lock(), (n for n in "ab")])
def test_what_cannot_be_read_needs_a_name_and_the_message_says_how(hidden):
    reward = holding(hidden)
    with pytest.raises(RunError, match=r'it reaches a \w+.*`reward.name = "mine-1"`'):
        reward_name(reward)
    reward.name = "mine-1"
    assert reward_name(reward) == "mine-1" and reward_parts(reward) == {}


def test_functions_that_call_each_other_end():
    def even(prompts, responses):
        return odd(prompts, responses)

    def odd(prompts, responses):
        return even(prompts, responses)

    assert reward_name(even).startswith(
        "test_functions_that_call_each_other_end.<locals>.even-"
    ) and reward_name(even) != reward_name(odd).replace("odd", "even")


# In a cell


def fails_on_empty(prompts, responses):
    return [1 / len(y) for y in responses]


def one_short(prompts, responses):
    return [1.0]


def counts(numbers):
    return lambda prompts, responses: [float(next(numbers))] * len(responses)


@pytest.mark.parametrize(
    ("reward", "error", "said"),
    [
        (fails_on_empty, RewardError, "an empty answer: ZeroDivisionError: division by zero"),
        (one_short, RewardError, "1 values for 2 responses. It was tried before"),
        (lambda x, y: [float("nan")] * 2, RewardError, "is nan in row 0"),
        (counts(count()), RunError, "changes what it reaches when it is called, as a counter"),
    ],
)
def test_a_reward_is_tried_before_anything_is_made(quick, tmp_path, reward, error, said):
    with pytest.raises(error, match=said):
        Cell(quick, "help", 0, reward=reward, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "reward",
    [
        lambda x, y: tuple(len(t) for t in y),
        functools.partial(weighted, weight=np.float32(2)),
        Scorer(0.5).shorter,
        Scorer(torch.tensor(2.0)),
    ],
)
def test_any_callable_is_a_reward(quick, tmp_path, reward):
    cell = Cell(quick, "help", 0, reward=reward, root=tmp_path)
    table = cell.suffix_table(progress=False)
    expected = [float(v) for v in reward(list(table["prompt"]), list(table["response"]))]
    assert table["reward"].tolist() == pytest.approx(expected)


def test_a_changed_reward_is_not_trained_again_unasked(quick, tmp_path, capsys):
    first = Cell(quick, "help", 0, reward=holding(1), root=tmp_path)
    first.train(progress=False)
    assert "finished run" not in capsys.readouterr().err
    Cell(quick, "help", 0, reward=holding(1), root=tmp_path).train(progress=False)
    changed = Cell(quick, "help", 0, reward=holding(2), root=tmp_path)
    said = f"{first.run.folder}.*the reward holding.<locals>.score .the variable value.*--again"
    with pytest.raises(RunError, match=said):
        changed.train(progress=False)
    lam = dataclasses.replace(quick, ppo=dataclasses.replace(quick.ppo, lam=0.5))
    with pytest.raises(RunError, match=r"the preset's ppo.lam: 0.02 -> 0.5. To train again"):
        Cell(lam, "help", 0, reward=holding(1), root=tmp_path).train(progress=False)
    again = Cell(quick, "help", 0, reward=holding(2), root=tmp_path, again=True)
    again.train(progress=False)
    assert "is in " in capsys.readouterr().err
    changed.train(progress=False)  # finished by now: it is loaded
    assert len(list(tmp_path.glob("*/card.json"))) == 2


def test_another_reward_or_cell_is_no_run_of_the_same_name(quick, tmp_path, capsys):
    Cell(quick, "help", 0, reward=holding(1), root=tmp_path).train(progress=False)
    Cell(quick, "help", 0, reward=Scorer(1), root=tmp_path).train(progress=False)
    Cell(quick, "help", 1, reward=holding(2), root=tmp_path).train(progress=False)
    assert "finished run" not in capsys.readouterr().err


def test_new_code_of_the_project_trains_again_and_says_so(quick, tmp_path, capsys, monkeypatch):
    Cell(quick, "help", 0, root=tmp_path).train(progress=False)
    monkeypatch.setattr("alignpro.runs.code_digest", lambda: "changed")
    Cell(quick, "help", 0, root=tmp_path).train(progress=False)
    assert "since: the code of alignpro itself. Training again" in capsys.readouterr().err


def test_a_prompt_file_has_one_run_wherever_it_is_named_from(quick, tmp_path, monkeypatch):
    path = tmp_path / "tickets.csv"
    path.write_text("prompt\n" + "\n".join(f"How do I fix part {n}?" for n in range(200)))
    full = dataclasses.replace(quick, datasets=(str(path),))
    here = dataclasses.replace(quick, datasets=("tickets.csv",))
    one = Cell(full, str(path), 0, reward=weighted, root=tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert Cell(here, "tickets.csv", 0, reward=weighted, root="runs").run.folder.name == (
        one.run.folder.name
    )


# By its name


def test_a_reward_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "found_by_name.py").write_text(
        "def score(prompts, responses):\n    return [0.0] * len(responses)\nNUMBER = 3\n"
    )
    assert load_reward("found_by_name:score")(PROMPTS, ANSWERS) == [0.0, 0.0]
    monkeypatch.chdir("/")
    assert load_reward(f"{tmp_path / 'found_by_name.py'}:score")(PROMPTS, ANSWERS) == [0.0, 0.0]
    with pytest.raises(ConfigError, match="has no function 'NUMBER'; it has score"):
        load_reward("found_by_name:NUMBER")
    with pytest.raises(ConfigError, match="cannot import 'nowhere_at_all'"):
        load_reward("nowhere_at_all:score")
    assert load_reward("alignpro.rewards:rubric") is rubric
    assert load_reward("weqweasdas/RM-Gemma-2B").spec.source == "weqweasdas/RM-Gemma-2B"


def test_a_preset_names_a_function(quick, tmp_path):
    preset = dataclasses.replace(quick, reward_function="alignpro.rewards:rubric")
    assert Cell(preset, "help", 0, root=tmp_path).reward is rubric
    with pytest.raises(ConfigError, match="cannot import 'nowhere_at_all'"):
        Cell(
            dataclasses.replace(quick, reward_function="nowhere_at_all:f"), "help", 0, root=tmp_path
        )
