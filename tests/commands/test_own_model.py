"""The command line for a model of one's own: from `init` to rewrites, and every wrong turn."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from judge_server import JudgeServer, longer, say

from alignpro.commands.main import main
from alignpro.config import PRESETS, load_preset
from alignpro.runs import RESULTS
from alignpro.statistics import paired_gain

REWARD = "def score(prompts, responses):\n    return [len(y) / 100 for y in responses]\n"
INIT = "init my.yaml --model tiny:llama --prompter tiny:qwen2 --prompts asked.jsonl --reward tone:f"
# A run of seconds, in place of what `init` writes for a real model.
SHORT = {
    "  steps: 60 ": "  steps: 2 ",
    "    steps: 80 ": "    steps: 2 ",
    "batch_size: 48 ": "batch_size: 8 ",
    "minibatch_size: 24": "minibatch_size: 8",
    "minibatch_size: 12": "minibatch_size: 8",
    "max_new_tokens: 200 ": "max_new_tokens: 8 ",
    "lora_layers: 8 ": "lora_layers: 1 ",
}


@pytest.fixture
def alignpro(monkeypatch, capsys, tmp_path):
    """A function that runs a command in a folder of its own: (status, standard output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "tone", raising=False)

    def run(command, *more):
        monkeypatch.setattr(sys, "argv", ["alignpro", *command.split(), *more])
        status = main()
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def prompts(tmp_path):
    rows = [{"prompt": f"How do I repair part {n}?"} for n in range(90)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tone.py").write_text(REWARD.replace("score", "f"))
    return [row["prompt"] for row in rows]


def shorten(path):
    text = path.read_text()
    for old, new in SHORT.items():
        text = text.replace(old, new)
    path.write_text(text)


def test_from_nothing_to_rewrites(alignpro, prompts, tmp_path):
    status, out, _ = alignpro(INIT)
    assert status == 0 and "asked 2,880 times in training (60 steps of 48)" in out
    preset = load_preset("my.yaml")
    assert preset.name == "my" and preset.reward_function == "tone:f"
    shorten(tmp_path / "my.yaml")
    status, _, error = alignpro("evaluate --preset my.yaml")
    assert status == 2 and "run `alignpro train`" in error
    status, out, error = alignpro("train --preset my.yaml --save mine")
    assert status == 0 and out == "the prompter is in mine\n"
    status, out, _ = alignpro("evaluate --preset my.yaml --figure gain.png")
    assert status == 0 and (tmp_path / "gain.png").stat().st_size > 10_000
    [run] = (tmp_path / "runs").glob("*align-pro*")
    table = pd.read_parquet(run / "evaluation.parquet")
    for base in ("No Fine-Tuning", "Best constant suffix"):
        g = paired_gain(table, "Align-Pro", base, 10_000)
        assert f"{g['gain']:+8.3f}  [{g['low']:+.3f}, {g['high']:+.3f}]" in out
    (tmp_path / "twice.csv").write_text("asked\nWhy?\nHow?\nWhy?\n")
    status, out, _ = alignpro(
        "rewrite --prompter mine --file twice.csv --prompt-column asked", "What is it?"
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in rows] == ["What is it?", "Why?", "How?", "Why?"]
    assert rows[1] == rows[3] and all(r["rewrite"].startswith(r["prompt"]) for r in rows)


def test_neither_a_comment_nor_another_folder_trains_again_and_an_edit_asks_first(
    alignpro, prompts, tmp_path, monkeypatch
):
    alignpro(INIT)
    shorten(tmp_path / "my.yaml")
    assert alignpro("train --preset my.yaml")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delitem(sys.modules, "tone")
    (tmp_path / "tone.py").write_text("# A comment.\n" + REWARD.replace("score", "f"))
    status, _, error = alignpro("train --preset ../my.yaml")
    assert status == 0 and "training in" not in error
    monkeypatch.delitem(sys.modules, "tone")
    (tmp_path / "tone.py").write_text(REWARD.replace("score", "f").replace("100", "50"))
    status, _, error = alignpro("train --preset ../my.yaml")
    assert status == 2 and "changed since: the reward f (the code). To train again" in error
    assert alignpro("train --preset ../my.yaml --again")[0] == 0
    assert len([*(tmp_path / "runs").glob("*/card.json")]) == 2
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_init_takes_an_endpoint_another_column_and_a_reward_model(alignpro, tmp_path):
    rows = pd.DataFrame({"question": [f"What is {n}?" for n in range(90)], "kind": "sum"})
    rows.to_csv(tmp_path / "asked.csv", index=False)
    status, _, _ = alignpro(
        "init big.yaml --model gpt-x --endpoint http://localhost:1/v1 --prompts asked.csv "
        "--prompt-column question --reward owner/reward-model"
    )
    preset = load_preset("big.yaml")
    assert status == 0 and preset.models["F1"].endpoint == "http://localhost:1/v1"
    assert preset.data.prompt_column == "question" and preset.ppo.checkpoint_every == 1
    assert preset.reward == "RM" and preset.models["RM"].source == "owner/reward-model"
    commented = [line for line in (tmp_path / "big.yaml").read_text().splitlines() if "#" in line]
    assert len(commented) > 25


def test_init_on_every_hardware_gives_a_preset_that_loads(alignpro, prompts, monkeypatch):
    for hardware in ("cpu", "colab", "h100"):
        monkeypatch.setattr("alignpro.commands.init.preset_for_hardware", lambda h=hardware: h)
        assert alignpro(INIT.replace("my", hardware).replace("--prompter tiny:qwen2 ", ""))[0] == 0
        preset = load_preset(f"{hardware}.yaml")
        assert preset.ppo.minibatch_size == (12 if hardware == "colab" else 24)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tone:f", "tone:g", "has no function 'g'; it has f"),
        ("tone:f", "nowhere:f", "cannot import 'nowhere'"),
        ("asked.jsonl", "none.jsonl", "there is no file of prompts none.jsonl"),
        ("asked.jsonl", "few.jsonl", "too few prompts: the file has . train, . validation"),
        ("my.yaml", "my.yml.txt", "ends in .yaml"),
        ("my.yaml", "old.yaml", "old.yaml exists"),
    ],
)
def test_init_refuses_what_cannot_be_trained(alignpro, prompts, tmp_path, old, new, said):
    (tmp_path / "few.jsonl").write_text('{"prompt": "Why?"}\n{"prompt": "How?"}\n')
    (tmp_path / "old.yaml").write_text("")
    status, out, error = alignpro(INIT.replace(old, new))
    assert status == 2 and out == "" and re.search(said, error), error


def test_a_menu_and_a_meta_prompt_of_ones_own(alignpro, prompts, tmp_path):
    alignpro(INIT)
    shorten(tmp_path / "my.yaml")
    text = (tmp_path / "my.yaml").read_text()
    text = text.replace("# meta_prompt:", "meta_prompt:").replace("menu: all", "menu: own.txt")
    (tmp_path / "my.yaml").write_text(text.replace("batch_size: 18", "batch_size: 4"))
    (tmp_path / "own.txt").write_text("Be brief.\n\nBe kind.\n")
    (tmp_path / "meta.txt").write_text("Name a tone.\nOne sentence.\n")
    preset = load_preset("my.yaml")
    assert preset.prompter.warm_start.menu == ("Be brief.", "Be kind.")
    assert alignpro("train --preset my.yaml --save mine")[0] == 0
    facts = json.loads((tmp_path / "mine" / "prompter.json").read_text())
    assert facts["meta_prompt"] == "Name a tone.\nOne sentence."
    [run] = (tmp_path / "runs").glob("*align-pro*")
    coverage = json.loads((run / "coverage.json").read_text())
    assert list(coverage["shares"]) == ["Be brief.", "Be kind."]
    assert alignpro("evaluate --preset my.yaml")[0] == 0
    suffixes = pd.read_parquet(run / "suffixes.parquet")["configuration"].unique()
    assert list(suffixes) == ["(nothing)", "Be brief.", "Be kind."]
    written = yaml.safe_load((run / "config.json").read_text())["preset"]["prompter"]
    assert written["warm_start"]["menu"] == ["Be brief.", "Be kind."]
    (tmp_path / "own.txt").unlink()
    status, _, error = alignpro("train --preset my.yaml")
    assert status == 2 and "prompter.warm_start.menu: cannot read" in error
    (tmp_path / "own.txt").write_text("Be brief.\n")
    status, _, error = alignpro("train --preset my.yaml")
    assert status == 2 and "preset.prompter.warm_start.menu: " in error


def test_judge_compares_two_files(alignpro, tmp_path):
    for name, text in (("a", "A long answer."), ("b", "Short.")):
        rows = [{"prompt": f"Why {n}?", "response": text} for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with JudgeServer(then=say(longer)) as server:
        command = f"judge a.jsonl b.jsonl --model m --endpoint {server.url} --out verdicts.csv"
        status, out, _ = alignpro(command)
        assert status == 0 and "win rate             1.000" in out
        alignpro(command)
    assert len(server.requests) == 6, "no verdict is asked for twice"
    assert pd.read_csv(tmp_path / "verdicts.csv")["preference"].tolist() == [1.0, 1.0, 1.0]
    status, _, error = alignpro(command.replace("b.jsonl", "asked.jsonl"))
    assert status == 2 and "asked.jsonl" in error


def test_an_error_is_one_message_without_a_traceback(alignpro, prompts):
    status, out, error = alignpro("rewrite --prompter nowhere", "Why?")
    assert status == 2 and "nowhere holds no trained prompter" in error
    assert alignpro("rewrite --prompter nowhere")[2].startswith("no prompt: give texts")


def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(alignpro, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("alignpro.commands.use.rewrite", interrupted)
    status, out, error = alignpro("rewrite --prompter mine", "Why?")
    assert (status, out) == (130, "")
    assert error == "stopped. What is done is kept: the same command goes on from there\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --seed -1", "--seed: must be a whole number of at least 0, got -1"),
        ("train --seed 1.5", "--seed: must be a whole number of at least 0, got 1.5"),
        ("train --pair P1", "--pair: must be two roles of the preset"),
        ("train --pair P1-F1-F2", "--pair: must be two roles of the preset"),
        ("rehearse --pair -F1", "--pair: "),
        ("train --threads -3", "--threads: must be greater than 0 and finite, got -3"),
        ("plan --prompt-tokens -5", "--prompt-tokens: must be greater than 0"),
        ("plan --gpu-memory inf", "--gpu-memory: must be greater than 0 and finite, got inf"),
        ("plan --flops nan", "--flops: must be greater than 0 and finite, got nan"),
        ("judge a b --model m --prices -1 2", "--prices: "),
        ("judge a b --model m --prices 1 inf", "--prices: must be at least 0 and finite, got inf"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_option(alignpro, capsys, command, message):
    with pytest.raises(SystemExit, match="2"):
        alignpro(command)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "command", ["rewrite Why? --prompter mine", "judge a.jsonl b.jsonl --model m"]
)
def test_a_place_that_cannot_be_written_to_shows_before_the_work(alignpro, command):
    status, out, error = alignpro(f"{command} --out nowhere/out.file")
    assert (status, out) == (2, "") and error.startswith("cannot write nowhere/out.file: ")


def test_runs_and_results_of_a_preset_of_ones_own_are_beside_it(monkeypatch, alignpro, tmp_path):
    """The project's own results hold those of its own presets alone, unless they are named."""
    places = []
    monkeypatch.setattr(
        "alignpro.experiments.reproduce", lambda preset, *where: places.append(where[:2]) or []
    )
    (tmp_path / "own").mkdir()
    shutil.copy(PRESETS / "smoke.yaml", tmp_path / "own" / "mine.yaml")
    for arguments in (
        "--preset own/mine.yaml",
        "--preset own/mine.yaml --results r --runs x",
        "--preset smoke",
        f"--preset {PRESETS / 'smoke.yaml'}",
    ):
        assert alignpro(f"reproduce {arguments}")[0] == 0
    named, ours = (Path("x"), Path("r")), (Path("runs"), RESULTS)
    assert places == [(Path("own/runs"), Path("own/results")), named, ours, ours]


def test_serve_names_the_package_that_it_lacks(alignpro, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, _, error = alignpro("serve --prompter mine --endpoint http://localhost:8000/v1")
    assert status == 2 and "needs uvicorn: `pip install fastapi uvicorn`" in error
