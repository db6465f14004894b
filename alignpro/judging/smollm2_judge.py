"""SmolLM2 as a judge, served on this machine by `transformers serve`: how poor can a judge be?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pandas as pd

from alignpro.data import load_prompts
from alignpro.judging.llm_judge import Judge
from alignpro.judging.report import reward_judge
from alignpro.rewards import rubric
from alignpro.runs import atomic_write, write_json
from alignpro.sources.provenance import provenance
from alignpro.sources.weights import smollm2_folder
from alignpro.texts import Response

PROGRAM = "from transformers.cli.transformers import main; main()"
SERVER_VERSIONS = ("openai", "fastapi", "uvicorn")


class ServerError(RuntimeError):
    """A server that did not start; the message ends with the end of its log."""


@contextmanager
def local_server(model: Path, patience: float = 180.0) -> Iterator[tuple[str, str]]:
    """Serve the model in the folder `model` as long as the context lasts.

    Gives (base_url, name of the model). `patience` is how long to wait for the server, in seconds.
    `transformers serve` needs fastapi and uvicorn, answers one request after another, and ignores
    `response_format` and `n` without an error. Raises ServerError where it ends, or does not answer
    in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # From the parent folder, so that the model's name is no path of this machine.
    command = [sys.executable, "-c", PROGRAM, "serve", model.name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command,
            cwd=model.parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            end = time.monotonic() + patience
            while not _answers(address):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise ServerError(f"`transformers serve` did not start:\n{log.read()[-2000:]}")
                time.sleep(0.2)
            yield f"{address}/v1", model.name
        finally:
            server.terminate()
            server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def measure(
    table: pd.DataFrame, system_prompts: dict[str, str], folder: Path, pairs: int, max_tokens: int
) -> None:
    """Write SmolLM2's verdicts on pairs of `table` to `folder`, one file per system prompt.

    - table: an evaluation table. A is Align-Pro and B is No Fine-Tuning; the first sample for each
      of the first `pairs` prompts is judged.
    - system_prompts: by name; the name becomes the file's.
    - max_tokens: the limit on one reply, in tokens.

    The columns ended_a and ended_b tell whether a response was complete, which the rubric needs.
    `card.json` records how the verdicts were made.
    """
    first = table[table["sample"] == 0].set_index("prompt")
    a, b = (first[first["configuration"] == n] for n in ("Align-Pro", "No Fine-Tuning"))
    prompts = list(a.index[:pairs])
    asked = [(p, a["response"][p], b["response"][p]) for p in prompts]
    folder.mkdir(parents=True, exist_ok=True)
    with local_server(smollm2_folder()) as (url, model):
        for name, system in system_prompts.items():
            judge = Judge(
                model,
                url,
                "none",
                system=system,
                max_tokens=max_tokens,
                concurrency=1,
                timeout=600,
                max_unreadable=None,  # how many replies are no verdict is what the page shows
            )
            verdicts = judge.compare(asked, "runs/local_judge.sqlite")
            verdicts.insert(3, "ended_a", a["ended"][prompts].tolist())
            verdicts.insert(4, "ended_b", b["ended"][prompts].tolist())
            with atomic_write(folder / f"{name.replace(' ', '_')}.jsonl") as partial:
                verdicts.to_json(partial, orient="records", lines=True, force_ascii=False)
    dataset = a["dataset"].iloc[0]
    write_json(folder / "card.json", card(model, dataset, system_prompts, pairs, max_tokens))


def rubric_judge(verdicts: pd.DataFrame, dataset: str, margin: float) -> pd.DataFrame:
    """The table of verdicts of today's rubric, as a reward judge, on the pairs of a kept table.

    `verdicts` is a table that `measure` wrote, on the test prompts of `dataset`. Rewards within
    `margin` of each other are a tie.
    """
    by_text = {str(prompt): prompt for prompt in load_prompts(dataset, "test")}
    prompts = [by_text[text] for text in verdicts["prompt"]]
    rewards = [
        rubric(
            prompts,
            [Response(y, bool(e)) for y, e in zip(verdicts[side], verdicts[f"ended_{side}"])],
        )
        for side in ("a", "b")
    ]
    pairs = zip(verdicts["prompt"], verdicts["a"], verdicts["b"])
    return reward_judge(pairs, *(r.tolist() for r in rewards), margin)


def card(
    model: str, dataset: str, system_prompts: dict[str, str], pairs: int, max_tokens: int
) -> dict:
    """The facts beside the verdicts: judge, settings, versions, hardware and date."""
    facts = provenance()
    facts["versions"] |= {name: metadata.version(name) for name in SERVER_VERSIONS}
    return {
        "judge": model,
        "dataset": dataset,
        "server": "transformers serve, CPU",
        "temperature": 0,
        "max_tokens": max_tokens,
        "pairs": pairs,
        "orders": 2,
        "system_prompts": system_prompts,
        **facts,
    }
