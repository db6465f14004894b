"""Write the page of the programming interface, book/api.md, from docstrings and examples.

python tools/api_page.py

The examples are one story, and a test runs them in this order.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

from alignpro.commands.main import parser

PAGE = Path(__file__).resolve().parent.parent / "book" / "api.md"
HEAD = """\
(ch-api)=
# The programming interface

These are the entry points for your own work. Their texts come from the code, and the examples run
from top to bottom in a test. The chapter {doc}`/notebooks/18_own_model` tells the same story with
words. The commands, which need no Python, are at the end of this page.

The examples use the preset `smoke`, whose models are tiny and random, and this file and reward:

```python
{story}
```
"""
STORY = """\
import json

rows = [{"prompt": f"How do I change part {n}?"} for n in range(90)]
with open("questions.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\\n" for row in rows)


def helpful(prompts, answers):
    return [min(len(answer), 100) / 100 for answer in answers]"""
# Each entry point by its module and name, with an example.
EXAMPLES = {
    "alignpro.config:load_preset": 'preset = load_preset("smoke")\nprint(preset.ppo.lam)',
    "alignpro.commands.init:write_preset": """\
cost = write_preset(Path("mine.yaml"), model="tiny:llama", prompts=Path("questions.jsonl"))
print(cost)""",
    "alignpro.sources.prompt_files:read_prompts": """\
prompts = read_prompts(Path("questions.jsonl"))
print(prompts[0], prompts[0].split)""",
    "alignpro.sources.own_reward:load_reward": 'rubric = load_reward("alignpro.rewards:rubric")',
    "alignpro.sources.own_reward:reward_name": "print(reward_name(helpful))",
    "alignpro.experiments:Cell": """\
cell = Cell(preset, "questions.jsonl", seed=0, reward=helpful)
print(cell.prompts("test")[0])""",
    "alignpro.experiments:Cell.train": "prompter = cell.train(progress=False)",
    "alignpro.experiments:Cell.suffix_table": """\
suffixes = cell.suffix_table(progress=False)
print(suffixes.groupby("configuration")["reward"].mean().idxmax())""",
    "alignpro.experiments:Cell.evaluate": "table = cell.evaluate(progress=False)",
    "alignpro.statistics:reward_summary": """\
print(reward_summary(table, resamples=1000)[["mean", "mean_low", "mean_high"]])""",
    "alignpro.statistics:paired_gain": """\
gain = paired_gain(table, "Align-Pro", "Best constant suffix", resamples=1000)
print(gain["gain"], gain["low"], gain["high"])""",
    "alignpro.prompter:Prompter.save": 'prompter.save("my-prompter")',
    "alignpro.prompter:Prompter.push_to_hub": """\
print(prompter.push_to_hub("me/my-prompter"))  # log in before: `hf auth login`""",
    "alignpro.prompter:Prompter.load": 'prompter = Prompter.load("my-prompter")',
    "alignpro.prompter:Prompter.rewrite": """\
print(prompter.rewrite(["How do I boil an egg?"]))  # greedy
print(prompter.rewrite(["How do I boil an egg?"], seed=1))  # sampled""",
    "alignpro.commands.proxy:make_app": """\
app = make_app(prompter, "http://localhost:8000/v1")  # run it with uvicorn""",
    "alignpro.judging.pairs:read_pairs": """\
for name, text in (("ours", "Turn it."), ("theirs", "I do not know.")):
    Path(f"{name}.jsonl").write_text(json.dumps({"prompt": "How?", "response": text}) + "\\n")
pairs = read_pairs("ours.jsonl", "theirs.jsonl")""",
    "alignpro.judging.llm_judge:Judge": """\
judge = Judge("gpt-4", base_url="http://localhost:8000/v1", prices=(30, 60))
print(judge.estimate(pairs, "verdicts.sqlite"))""",
}


def page() -> str:
    """Return the whole page."""
    parts = [HEAD.replace("{story}", STORY)]
    for place, example in EXAMPLES.items():
        module, _, name = place.partition(":")
        value = found(place)
        parts.append(f"## {name}\n\n```python\n{signature(name, value)}\n```\n")
        parts.append(markdown(inspect.getdoc(value)))
        parts.append(f"```python\n{imports(module, name)}{example}\n```\n")
    parts.append("## The commands\n\n`python -m alignpro` is another name for `alignpro`.\n")
    for name, command in commands().items():
        listed = "\n".join(option(action) for action in command._actions if action.dest != "help")
        parts.append(f"### alignpro {name}\n\n{command.description}\n\n{listed}\n")
    return "\n".join(parts)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name. argparse has no public way to list them."""
    [found] = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def option(action: argparse.Action) -> str:
    """Return an argument of a command with its explanation, as an item of a list."""
    values = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    values = values if isinstance(values, str) else " ".join(values)
    values = " or ".join(action.choices) if action.choices else values
    shown = " ".join([*action.option_strings[-1:], values]).strip()
    return f"- `{shown}`: {(action.help or '') % vars(action)}"


def found(place: str) -> Callable:
    """Return the function, class or method at MODULE:NAME."""
    module, _, name = place.partition(":")
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def imports(module: str, name: str) -> str:
    """Return the lines that the example of an entry point needs first."""
    paths = "from pathlib import Path\n\n" if name in ("write_preset", "read_prompts") else ""
    return f"{paths}from {module} import {name}\n\n" if "." not in name else _method(module, name)


def _method(module: str, name: str) -> str:
    static = name == "Prompter.load"
    return f"from {module} import {name.partition('.')[0]}\n\n" if static else ""


def signature(name: str, value: Callable) -> str:
    """Return `name` with its parameters, one on each line where they do not fit on one."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))
    text = re.sub(r"= '(?:[^'\\]|\\.){40,}'", "= ...", text)
    text = re.sub(r"\(self, ", "(", text).replace("(self)", "()")
    if len(name + text) <= 96:
        return name + text
    inside, _, result = text[1:].rpartition(")")
    return f"{name}(\n    " + re.sub(r", (?=\*|\w+:)", ",\n    ", inside) + f",\n){result}"


def markdown(doc: str) -> str:
    """Return a docstring as Markdown: its lines `name: text` become a list."""
    lines, listed = [], False
    for line in doc.split("\n"):
        argument = re.match(r"(?:- )?([a-zA-Z_]\w*(?:, \w+)*): (?=\S)", line)
        if argument:
            line, listed = f"- `{argument[1]}`: {line[argument.end() :]}", True
        elif listed and line and not line.startswith(" "):
            listed = False
            if lines[-1]:
                lines.append("")
        lines.append(line.replace(":func:", "").replace(":class:", ""))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
