"""Models of a hub: pinned or newest, gated, missing, and offline, over the hub's own protocol."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from checkpoints import save_reward_model
from model_hub import hub
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

NEW, OLD = "b" * 40, "a" * 40

LOAD = """
import json, sys
from alignpro.config import ModelSpec
from alignpro.sources.reward_model import RewardModel
from alignpro.sources.weights import ModelError
for source, revision in json.loads(sys.argv[1]):
    reward = RewardModel(ModelSpec(source, revision))
    try:
        print(json.dumps([reward.name, reward(["Why?"], ["Because."]).item()]))
    except ModelError as error:
        print(json.dumps(str(error)))
"""


def save_adapter(base, folder):
    """An adapter for the checkpoint `base`, with its config and tokenizer beside it."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    return folder


def loaded(sources, **environment):
    """For each (source, revision), in a fresh process: [name, score], or the error's message."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(sources)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_hubs_models_are_pinned_and_its_refusals_explained(tmp_path):
    commits = {NEW: save_reward_model(tmp_path / "new", seed=1)}
    commits |= {OLD: save_reward_model(tmp_path / "old", seed=0)}
    adapter = {NEW: save_adapter(commits[NEW], tmp_path / "adapter")}
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    with hub({"org/open": commits, "org/gated": None, "org/adapter": adapter}) as url:
        newest, pinned, gated, unknown, absent, on_top = loaded(
            [
                ("org/open", None),
                ("org/open", OLD),
                ("org/gated", None),
                ("org/open", "v9"),
                ("org/absent", None),
                ("org/adapter", None),
            ],
            HF_ENDPOINT=url,
            **home,
        )
    assert newest[0] == f"org/open@{NEW}" and pinned[0] == f"org/open@{OLD}"
    directories = loaded([(str(commits[NEW]), None), (str(commits[OLD]), None)])
    assert [newest[1], pinned[1]] == [score for _, score in directories] and newest[1] != pinned[1]
    assert "'org/gated' is gated: accept its licence on https://huggingface.co/org/gated" in gated
    assert "`hf auth login`" in gated
    assert "cannot load 'org/open'" in unknown and "v9 is not a valid git identifier" in unknown
    assert "cannot load 'org/absent'" in absent and "set `source` in the preset" in absent

    assert "'org/adapter' is an adapter, not a model" in on_top

    again, offline = loaded(
        [("org/open", OLD), ("org/other", None)], **home | {"HF_HUB_OFFLINE": "1"}
    )
    assert again == pinned, "what was downloaded once needs no network"
    assert "`hf download org/other`" in offline and "We couldn't connect" in offline
