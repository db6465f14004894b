"""Finished runs of the same name: so that a small change never trains again unnoticed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from alignpro.runs import Run, RunError, write_json

HASH = re.compile(r"-[0-9a-f]{8,10}$")  # at the end of the name of a prompt file or of a reward
OWN_CODE = "the code of alignpro itself"


def note_parts(run: Run, parts: dict[str, str]) -> None:
    """Keep the hashes of the parts of a reward (`own_reward.reward_parts`) with the run."""
    if parts and not (run.folder / "reward.json").exists():
        write_json(run.folder / "reward.json", parts)


def before_training(run: Run, own: bool, again: bool) -> None:
    """Tell of a finished run of the same name before `run` is trained from the start.

    own: whether the reward or the prompts are the user's own.
    again: whether the user has asked for another training.

    Prints which run it is and what differs. Raises RunError instead where the user's own work has
    changed and `again` is False: training may be long, or paid for.
    """
    if (run.folder / "checkpoints").exists() or (run.folder / "warm_start").exists():
        return
    found = _newest_of_the_same_name(run)
    if found is None:
        return
    different = [*_differences(found, run.folder)]
    text = (
        f"a finished run of this name is in {found.resolve()}. What has changed since: "
        f"{'; '.join(different) or OWN_CODE}."
    )
    if own and different and not again:
        raise RunError(
            f"{text} To train again, add `--again` (in Python: Cell(..., again=True)). To go on "
            f"with the finished one, use its prompter: {(found / 'prompter').resolve()}"
        )
    print(f"{text} Training again", file=sys.stderr)


def _newest_of_the_same_name(run: Run) -> Path | None:
    wanted = _name(run.cell)
    found = []
    for card in run.folder.parent.glob("*/card.json"):
        try:
            config = json.loads((card.parent / "config.json").read_text(encoding="utf-8"))
            same = _name(config["cell"]) == wanted and card.parent != run.folder
        except (OSError, ValueError, KeyError):  # not a run of this version
            continue
        if same:
            found.append(card)
    return max(found, key=lambda card: card.stat().st_mtime).parent if found else None


def _name(cell: dict) -> dict:
    """The cell without the hashes of its prompt file, its reward and its weights."""
    plain = {key: HASH.sub("", cell[key]) for key in ("dataset", "reward")}
    return {key: value for key, value in cell.items() if key != "weights"} | plain


def _differences(old: Path, new: Path) -> Iterator[str]:
    """What a reader would say has changed between two runs, one phrase for each change."""
    before, after = (_read(folder / "config.json") for folder in (old, new))
    if before["cell"]["dataset"] != after["cell"]["dataset"]:
        yield "the content of the prompt file"
    if before["cell"]["reward"] != after["cell"]["reward"]:
        parts, now = (_read(folder / "reward.json") for folder in (old, new))
        changed = sorted(key for key in parts.keys() | now if parts.get(key) != now.get(key))
        name = HASH.sub("", after["cell"]["reward"])
        yield f"the reward {name} ({', '.join(changed) or 'its code'})"
    was, now = (config["cell"].get("weights", {}) for config in (before, after))
    for role in sorted(was.keys() | now):
        if was.get(role) != now.get(role):
            yield f"the weights of {role}"
    was, now = (dict(flat(config["preset"])) for config in (before, after))
    for key in sorted(was.keys() | now):
        if was.get(key) != now.get(key):
            yield f"the preset's {key}: {was.get(key, 'unset')} -> {now.get(key, 'unset')}"


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def flat(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """The values of nested dicts, each with its keys, as in `ppo.lam`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, (*path, key))
    else:
        yield ".".join(path), node
