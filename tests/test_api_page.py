"""The page of the programming interface is what the code says, and its examples run."""

import os
import subprocess
import sys

import api_page
import pytest
from model_hub import hub

PUSH = "alignpro.prompter:Prompter.push_to_hub"
# The address of the Hub is read once, when a process imports its library.
LOADED = """\
from alignpro.prompter import Prompter
prompter = Prompter.load("my-prompter")"""


def test_the_page_is_the_one_that_the_tool_writes():
    assert api_page.PAGE.read_text("utf-8") == api_page.page(), "run `python tools/api_page.py`"


@pytest.mark.parametrize("place", api_page.EXAMPLES)
def test_an_entry_point_explains_its_arguments(place):
    value = api_page.found(place)
    assert len(value.__doc__) > 60
    assert api_page.imports(*place.split(":")) + api_page.EXAMPLES[place] in api_page.page()


def test_every_argument_of_every_command_is_explained():
    arguments = [a for command in api_page.commands().values() for a in command._actions]
    assert len(arguments) > 60
    unexplained = [a.dest for a in arguments if not a.help or a.help.startswith(("default", "in "))]
    assert unexplained == []


def test_an_argument_is_listed_with_its_default_filled_in():
    listed = [api_page.option(action) for action in api_page.commands()["plan"]._actions]
    assert "- `--prompt-tokens TOKENS`: the length of a prompt in tokens; default: 256" in listed
    assert any(line.startswith("- `--precision bfloat16 or float32`: ") for line in listed)
    assert any(line.startswith("- `--remote-frozen`: ") for line in listed)


def test_the_examples_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__"}
    exec(api_page.STORY, space)
    for place, example in api_page.EXAMPLES.items():
        if place != PUSH:
            exec(api_page.imports(*place.split(":")) + example, space)
    printed = capsys.readouterr().out
    assert "How do I boil an egg?" in printed and "2 calls to make" in printed
    assert (tmp_path / "my-prompter" / "adapter_model.safetensors").exists()
    (tmp_path / "uploads").mkdir()
    with hub(repositories := {}, tmp_path / "uploads") as url:
        done = subprocess.run(
            [sys.executable, "-c", f"{LOADED}\n{api_page.EXAMPLES[PUSH]}"],
            env=os.environ
            | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_x"}
            | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    [(commit, uploaded)] = repositories["me/my-prompter"].items()
    assert done.stdout.strip().endswith(f"me/my-prompter/commit/{commit}"), done.stderr
    assert (uploaded / "adapter_model.safetensors").exists()
