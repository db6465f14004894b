"""PPO: each piece against an independent computation, then the loop as a whole.

That it learns is tested in `test_learning`.
"""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro import ppo
from alignpro.config import PRESETS, AdaptiveKLConfig, SamplingConfig, load_preset
from alignpro.evaluation import RewardError
from alignpro.fast.adapter import add_lora
from alignpro.fast.logprobs import Batch
from alignpro.generation import Policy
from alignpro.runs import Run, RunError
from alignpro.sources import health, reference
from alignpro.texts import Response

QUERIES = ["Name a fruit.", "Why is the sky blue on a clear day?", "Tea or coffee?"]


def gae_by_definition(rewards, values, gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, as in Schulman et al. 2016."""
    steps = len(rewards)
    following = [*values[1:], 0.0]
    delta = [rewards[t] + gamma * following[t] - values[t] for t in range(steps)]
    return [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, steps)) for t in range(steps)]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=7),
        min_size=1,
        max_size=4,
    ),
    gamma=st.floats(0.5, 1),
    lam=st.floats(0, 1),
)
def test_gae_is_its_definition_on_rows_of_any_length(rows, gamma, lam):
    width = max(map(len, rows))
    pad = [(9.0, 9.0)]  # what stands on padding must not matter
    table = torch.tensor([r + pad * (width - len(r)) for r in rows], dtype=torch.float64)
    mask = torch.tensor([[i < len(r) for i in range(width)] for r in rows])
    advantages = ppo.gae(table[..., 0] * mask, table[..., 1] * mask, mask, gamma, lam)
    for row, got in zip(rows, advantages.tolist()):
        expected = gae_by_definition([r for r, _ in row], [v for _, v in row], gamma, lam)
        assert got[: len(row)] == pytest.approx(expected, abs=1e-9)
        assert not any(got[len(row) :])


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.2, 0.5, 0.9]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages = ppo.gae(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(advantages, torch.tensor([[0.8, 0.5, 0.1]]))


def test_token_rewards_sum_to_the_leashed_reward():
    logp = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.0, 0.0], [-2.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    rewards = ppo.token_rewards(torch.tensor([1.0, 3.0]), logp, reference, mask, lam=0.1)
    expected = torch.tensor([[-0.05, 0.1 + 1.0, 0.0], [-0.2 + 3.0, 0.0, 0.0]])
    torch.testing.assert_close(rewards, expected)


def test_losses_of_a_case_by_hand(smoke):
    config = dataclasses.replace(smoke.ppo, clip=0.2, value_clip=0.5)
    mask = torch.tensor([[True, True, True, False]])
    logp = torch.tensor([[0.0, 0.0, 0.0, 5.0]], requires_grad=True)
    old = torch.log(torch.tensor([[1 / 1.5, 1 / 1.5, 1 / 0.5, 1.0]]))
    advantages = torch.tensor([[1.0, -1.0, 2.0, 7.0]])
    values = torch.tensor([[1.0, 0.0, 0.0, 3.0]], requires_grad=True)
    returns = torch.tensor([[2.0, 0.0, 1.0, 9.0]])
    batch = Batch([[0]], torch.zeros(1, 4, dtype=torch.long), mask, shared=0)
    sampled = ppo.Experience(batch, old, torch.zeros(1, 4), advantages, returns)
    policy_loss, value_loss, stats = ppo.ppo_losses(logp, values, sampled, config)
    # Ratios 1.5, 1.5, 0.5: gain clipped at 1.2, loss not clipped, ratio 0.5 pessimistically kept.
    assert policy_loss.item() == pytest.approx((-1.2 + 1.5 - 1.0) / 3)
    # First value moved by 1, clipped to 0.5: the larger of (1 - 2)^2 and (0.5 - 2)^2 counts.
    assert value_loss.item() == pytest.approx(0.5 * (1.5**2 + 0 + 1) / 3)
    assert stats["policy/clipfrac_avg"] == pytest.approx(1 / 3)
    policy_loss.backward()
    assert logp.grad[0].tolist() == pytest.approx([0.0, 0.5, -1 / 3, 0.0])


class Toy:
    """A trainer on a tiny model whose score is the share of letters e in the output."""

    def __init__(self, load_tiny, preset, folder, score=None, architecture="qwen2"):
        model, tokenizer = load_tiny(architecture)
        sampling = SamplingConfig(1.0, 1.0, 0, 8)
        self.policy = Policy(add_lora(model, preset.prompter, 0), tokenizer, sampling)
        self.run = Run(folder, preset, "help", ("P1", "F1"), "toy", 0)
        self.trainer = ppo.Trainer(
            self.policy,
            QUERIES * 4,
            lambda prompts: [[{"role": "user", "content": p}] for p in prompts],
            score or self.letters,
            preset.ppo,
            self.run,
        )

    @staticmethod
    def letters(prompts, outputs, seed):
        share = torch.tensor([o.count("e") / max(len(o), 1) for o in outputs])
        return ppo.Scored(share, [{"output": str(o)} for o in outputs], {})

    def state(self):
        return {n: p.clone() for n, p in self.trainer.adapter.items()}


def without_times(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def test_a_stopped_run_goes_on_to_the_same_result(load_tiny, quick, tmp_path):
    whole = Toy(load_tiny, quick, tmp_path / "whole")
    whole.trainer.train(progress=False)

    calls = []

    def dies_in_step_3(prompts, outputs, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return Toy.letters(prompts, outputs, seed)

    stopped = Toy(load_tiny, quick, tmp_path / "stopped", dies_in_step_3)
    with pytest.raises(KeyboardInterrupt):
        stopped.trainer.train(progress=False)
    resumed = Toy(load_tiny, quick, tmp_path / "stopped")
    resumed.trainer.train(progress=False)

    assert resumed.state().keys() == whole.state().keys()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name
    for file in ("metrics.jsonl", "samples.jsonl"):
        assert without_times(resumed.run.read(file)) == without_times(whole.run.read(file))
    assert [row["step"] for row in resumed.run.read("metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1.01), (5.4, 0.99), (7.2, 1.02), (60.0, 1.02), (4.8, 0.98), (-3.0, 0.98)],
)
def test_the_adaptive_coefficient_moves_with_the_kl(kl, factor):
    """Classic TRL's AdaptiveKLController: a tenth above the target is a tenth of n / horizon."""
    config = AdaptiveKLConfig(target=6, horizon=10000)
    assert ppo.adapted_lam(0.2, kl, 1000, config) == pytest.approx(0.2 * factor)


def test_an_adaptive_coefficient_follows_its_recursion_through_a_resume(
    load_tiny, quick, tmp_path, monkeypatch
):
    used, token_rewards = [], ppo.token_rewards

    def spied(scores, logp, ref_logp, mask, lam):
        used.append(lam)
        return token_rewards(scores, logp, ref_logp, mask, lam)

    monkeypatch.setattr(ppo, "token_rewards", spied)
    adaptive = AdaptiveKLConfig(target=0.3, horizon=20)
    config = dataclasses.replace(
        quick.ppo, steps=6, learning_rate=2e-2, lam=0.05, adaptive_kl=adaptive
    )
    preset = dataclasses.replace(quick, ppo=config)
    whole = Toy(load_tiny, preset, tmp_path / "whole")
    whole.trainer.train(progress=False)
    rows = whole.run.read("metrics.jsonl")
    assert used == [row["objective/kl_coef"] for row in rows]
    lam = 0.05
    for row in rows:
        assert row["objective/kl_coef"] == pytest.approx(lam, rel=1e-12)
        assert row["objective/non_score_reward"] == pytest.approx(-lam * row["objective/kl"])
        lam *= 1 + min(max(row["objective/kl"] / 0.3 - 1, -0.2), 0.2) * config.batch_size / 20
    moved = [b["objective/kl_coef"] > a["objective/kl_coef"] for a, b in zip(rows, rows[1:])]
    assert set(moved) == {True, False}, "λ has to fall at first and to rise later"

    calls = []

    def dies_in_step_4(prompts, outputs, seed):
        calls.append(seed)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return Toy.letters(prompts, outputs, seed)

    with pytest.raises(KeyboardInterrupt):
        Toy(load_tiny, preset, tmp_path / "cut", dies_in_step_4).trainer.train(progress=False)
    resumed = Toy(load_tiny, preset, tmp_path / "cut")
    resumed.trainer.train(progress=False)
    assert without_times(resumed.run.read("metrics.jsonl")) == without_times(rows)
    assert all(torch.equal(p, resumed.state()[n]) for n, p in whole.state().items())


def test_the_papers_numbers_train(load_tiny, smoke, tmp_path):
    """The fragment on a tiny model, its batch cut: λ falls, since hardly anything moves."""
    text = (PRESETS / "smoke.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"^ppo:\n(  .*\n)+", "ppo: paper\n", text, flags=re.MULTILINE))
    paper = load_preset(path)
    assert paper.ppo.minibatch_size == 1 and paper.ppo.epochs == 4
    preset = dataclasses.replace(paper, ppo=dataclasses.replace(paper.ppo, batch_size=4, steps=3))
    toy = Toy(load_tiny, preset, tmp_path)
    start = toy.state()
    toy.trainer.train(progress=False)
    rows = toy.run.read("metrics.jsonl")
    assert [r["lr"] for r in rows] == [1.41e-5] * 3
    assert [r["objective/kl_coef"] for r in rows] == pytest.approx(
        [0.2, 0.2 * (1 - 0.2 * 4 / 10000), 0.2 * (1 - 0.2 * 4 / 10000) ** 2], rel=1e-12
    )
    assert any((p - start[n]).abs().max() > 1e-5 for n, p in toy.state().items())


def test_training_starts_at_the_reference(load_tiny, quick, tmp_path):
    toy = Toy(load_tiny, quick, tmp_path)
    toy.trainer.train(progress=False)
    first = toy.run.read("metrics.jsonl")[0]
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert first["val/ratio"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_stops_the_run_and_is_blamed(load_tiny, quick, tmp_path, bad):
    """Not the learning rate: no checkpoint of a state at fault is written."""

    def broken(prompts, outputs, seed):
        return ppo.Scored([0.5] * (len(outputs) - 1) + [bad], [{} for _ in outputs], {})

    toy = Toy(load_tiny, quick, tmp_path, broken)
    last = quick.ppo.batch_size - 1
    with pytest.raises(RewardError, match=f"the score at step 1 is {bad} in row {last}, .* prompt"):
        toy.trainer.train(progress=False)
    assert not (toy.run.folder / "checkpoints").exists()


def test_one_score_is_not_spread_over_the_batch(load_tiny, quick, tmp_path):
    def one(prompts, outputs, seed):
        return ppo.Scored(torch.ones(1), [{} for _ in outputs], {})

    with pytest.raises(RewardError, match="the score at step 1 returned 1 values for"):
        Toy(load_tiny, quick, tmp_path, one).trainer.train(progress=False)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_scores_of_every_kind_train_alike(load_tiny, quick, tmp_path, kind):
    def score(prompts, outputs, seed):
        counts = [o.count("e") for o in outputs]  # integers
        return ppo.Scored(kind(counts), [{} for _ in outputs], {}, gold=kind(counts))

    toy = Toy(load_tiny, quick, tmp_path, score)
    toy.trainer.train(progress=False)
    rows = toy.run.read("metrics.jsonl")
    samples = [row for row in toy.run.read("samples.jsonl") if row["step"] == 1]
    assert [row["objective/gold"] for row in rows] == [row["objective/scores"] for row in rows]
    assert all(row["score"] == row["gold"] for row in samples) and len(samples) == 8

    def floats(prompts, outputs, seed):
        counts = torch.tensor([float(o.count("e")) for o in outputs])
        return ppo.Scored(counts, [{} for _ in outputs], {})

    reference = Toy(load_tiny, quick, tmp_path / "floats", floats)
    reference.trainer.train(progress=False)
    assert all(torch.equal(p, toy.state()[n]) for n, p in reference.state().items())


def test_the_rows_of_an_experience_are_trimmed_alike():
    tokens = torch.arange(12).reshape(3, 4)
    mask = torch.arange(4) < torch.tensor([4, 2, 3])[:, None]
    batch = Batch([[1], [2], [3]], tokens, mask, shared=0)
    whole = ppo.Experience(batch, *(tokens + 100 * i for i in range(4)))
    part = whole.rows(torch.tensor([2, 1]))
    assert part.batch.queries == [[3], [2]]
    for i, column in enumerate((part.logp, part.values, part.advantages, part.returns)):
        assert torch.equal(column, part.batch.tokens + 100 * i)
    assert part.batch.tokens.tolist() == [[8, 9, 10], [4, 5, 6]]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_gradients_added_up_over_parts_are_those_of_one_pass(load_tiny, quick, tmp_path, rows):
    """With completions of 1 to 8 tokens: each token weighs the same, wherever its row runs."""
    found = []
    for accumulate in (None, rows):
        numbers = dataclasses.replace(
            quick.ppo, steps=1, epochs=1, minibatch_size=8, accumulate=accumulate
        )
        toy = Toy(load_tiny, dataclasses.replace(quick, ppo=numbers), tmp_path / str(accumulate))
        whole = toy.policy.generate_ids

        def cut(encoded, seed, whole=whole):
            outputs = enumerate(whole(encoded, seed), 1)
            return [Response(str(y), token_ids=y.token_ids[:n]) for n, y in outputs]

        toy.policy.generate_ids = cut
        gradients = []
        toy.trainer.optimizer.register_step_pre_hook(
            lambda optimizer, *_, seen=gradients: seen.extend(
                p.grad.clone() for g in optimizer.param_groups for p in g["params"]
            )
        )
        toy.trainer.train(progress=False)
        found.append((gradients, without_times(toy.run.read("metrics.jsonl"))))
    (once, metrics), (parts, same) = found
    assert any(gradient.abs().max() > 1e-3 for gradient in once)
    for a, b in zip(once, parts, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    assert same == [pytest.approx(row, rel=1e-4, abs=1e-6) for row in metrics]


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(load_tiny, quick, tmp_path):
    toy = Toy(load_tiny, quick, tmp_path)
    before = toy.state()
    next(iter(toy.trainer.adapter.values())).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(RunError, match="gradient is not finite at step 1"):
        toy.trainer.train(progress=False)
    assert all(torch.equal(p, before[n]) for n, p in toy.state().items())
    assert toy.run.load_checkpoint() is None


def test_a_policy_that_truncates_is_refused(load_tiny, quick, tmp_path):
    toy = Toy(load_tiny, quick, tmp_path)
    toy.policy.sampling = dataclasses.replace(toy.policy.sampling, top_p=0.9)
    with pytest.raises(ValueError, match="without truncation, got .*top_p=0.9"):
        ppo.Trainer(toy.policy, QUERIES, None, None, quick.ppo, toy.run)


def test_every_prompt_comes_once_before_any_comes_again(load_tiny, quick, tmp_path):
    trainer = Toy(load_tiny, quick, tmp_path).trainer
    size, count = quick.ppo.batch_size, len(trainer.prompts)
    drawn = [i for step in range(1, 7) for i in trainer._rows(step)]
    assert len(drawn) == 6 * size
    for epoch in range(len(drawn) // count):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_tighter_leash_stays_closer(load_tiny, smoke, tmp_path):
    """With an enormous lam the policy hardly leaves the reference."""
    ends = {}
    for lam in (0.0, 50.0):
        config = dataclasses.replace(smoke.ppo, steps=8, learning_rate=1e-2, lam=lam)
        toy = Toy(load_tiny, dataclasses.replace(smoke, ppo=config), tmp_path / str(lam))
        toy.trainer.train(progress=False)
        ends[lam] = sum(r["objective/kl"] for r in toy.run.read("metrics.jsonl")[-3:]) / 3
    assert ends[50.0] < ends[0.0]


def quiet(**changes) -> dict:
    """Metrics of a step that nothing is wrong with, but for `changes`."""
    row = {"objective/kl": 1.0, "val/distinct_outputs": 0.5}
    row |= {"objective/scores": 0.5, "objective/scores_std": 0.1, "policy/approxkl_avg": 0.004}
    return row | {"objective/entropy": 3.0, "policy/clipfrac_avg": 0.05} | changes


def test_a_frozen_run_is_reported_once():
    moving, still = quiet(), quiet(**{"policy/clipfrac_avg": 0.002})
    history = [moving] * 3 + [still] * (health.FROZEN_STEPS + 3)
    told = [health.warnings_for(history[:n]) for n in range(1, len(history) + 1)]
    assert sum(map(len, told)) == 1
    assert "frozen" in told[3 + health.FROZEN_STEPS - 1][0]


def test_a_run_that_made_up_its_mind_is_not_frozen():
    sure = quiet(**{"policy/clipfrac_avg": 0.0, "objective/entropy": 1.4})
    assert not health.is_frozen([quiet()] + [sure] * 10)
    unsure = sure | {"objective/entropy": 1.6}
    assert health.is_frozen([quiet()] + [unsure] * 10)
    assert not health.is_frozen([unsure] * (health.FROZEN_STEPS - 1)), "too short to tell"


def test_a_constant_reward_is_reported_once():
    same = quiet(**{"objective/scores": 0.25, "objective/scores_std": 0.0})
    history = [quiet()] * 2 + [same] * (health.FROZEN_STEPS + 3)
    told = [health.warnings_for(history[:n]) for n in range(1, len(history) + 1)]
    assert sum(map(len, told)) == 1
    assert "0.25 for every response of 5 steps" in told[2 + health.FROZEN_STEPS - 1][0]
    moving = [same | {"objective/scores": k / 8} for k in range(8)]
    assert not health.is_constant(moving), "another constant in each step is not one"


def test_a_far_too_large_learning_rate_is_reported():
    fast = quiet(**{"policy/approxkl_avg": 0.6})
    (told,) = health.warnings_for([fast])
    assert "0.6 nats per token" in told and "smaller learning_rate" in told
    assert health.warnings_for([fast] * 2) == []


def test_a_far_too_large_learning_rate_shows_in_the_metrics(load_tiny, smoke, tmp_path):
    config = dataclasses.replace(smoke.ppo, steps=1, learning_rate=0.3)
    toy = Toy(load_tiny, dataclasses.replace(smoke, ppo=config), tmp_path)
    toy.trainer.train(progress=False)
    assert health.is_too_fast(toy.run.read("metrics.jsonl"))


def test_a_broken_kl_and_a_collapse_are_reported():
    (broken,) = health.warnings_for([quiet(**{"objective/kl": -0.6})])
    assert "-0.60 < 0" in broken
    (collapsed,) = health.warnings_for([quiet(**{"val/distinct_outputs": 0.04})])
    assert "collapsed" in collapsed
    assert health.warnings_for([quiet()]) == []


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 40),
    entries=st.integers(1, 12),
    count=st.integers(1, 300),
    seed=st.integers(0),
)
def test_rows_and_entries_of_a_warm_start_come_equally_often(rows, entries, count, seed):
    pairs = reference.balanced_pairs(rows, entries, count, seed)
    assert pairs.shape == (count, 2)
    for column, size in enumerate((rows, entries)):
        for start in range(0, count, size):
            block = pairs[start : start + size, column].tolist()
            assert len(set(block)) == len(block) and set(block) <= set(range(size))


@pytest.mark.parametrize("seed", range(5))
def test_no_row_of_the_cpu_presets_warm_start_meets_an_entry_twice(seed):
    pairs = reference.balanced_pairs(150, 18, 1440, seed).tolist()
    assert len({tuple(pair) for pair in pairs}) == 1440
    assert pairs != reference.balanced_pairs(150, 18, 1440, seed + 1).tolist()


def test_coverage_counts_what_is_written_and_names_what_is_not():
    outputs = ["a"] * 40 + ["b"] * 40 + ["c"] * 6 + ["a b"] * 14
    coverage = reference.menu_coverage(outputs, ["a", "b", "c", "d"])
    assert coverage["samples"] == 100
    assert coverage["off_menu"] == pytest.approx(0.14)
    assert coverage["shares"] == {"a": 0.4, "b": 0.4, "c": 0.06, "d": 0.0}
    assert reference.rarely_written(coverage) == ["d"], "6 % is more than a fifth of a quarter"
