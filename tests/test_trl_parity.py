"""Our PPO against TRL's own PPOTrainer: the same tokens in, the same numbers out.

Where the two differ on purpose, the difference itself is asserted, with both values. What each
detail is for stands in book/ppo_details.md, whose names the last tests check.
"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints
from unittest import mock

import pytest
import torch
from trl_adapter import PPOTrainer, run_trl

from alignpro import models, ppo
from alignpro.config import ModelSpec, SamplingConfig
from alignpro.fast.adapter import add_lora
from alignpro.fast.logprobs import Batch, forward, make_batch
from alignpro.generation import Policy
from alignpro.runs import Run
from alignpro.texts import Response

PROMPTS = [
    "Name a fruit.",
    "Why is the sky blue on a clear day?",
    "Tea or coffee?",
    "How do I boil an egg?",
    "What is a verb?",
    "Is water wet, and who says so?",
    "Bike or bus to work in the rain?",
    "How do I fold a shirt?",
]
LENGTH = 6
# Large steps and narrow clips: a parity of terms that are never active would prove nothing.
NUMBERS = {
    "lr_scheduler_type": "linear",  # TRL has no other
    "steps": 2,
    "batch_size": 4,
    "minibatch_size": 2,
    "epochs": 2,
    "learning_rate": 5e-3,
    "value_learning_rate": 5e-3,
    "lam": 0.3,
    "gamma": 0.97,
    "gae_lambda": 0.9,
    "clip": 0.02,
    "value_clip": 0.01,
    "value_coefficient": 0.4,
    "max_grad_norm": 1e9,  # TRL does not clip
}


def toy_score(rows):
    """Scores [B] in [0, 1] of rows of token ids, unlike for any two rows of a test."""
    return torch.tensor([sum((i + 1) * t for i, t in enumerate(row)) % 97 / 97 for row in rows])


def set_up(smoke, architecture):
    """A policy that has left its reference, its tokenizer, encoded prompts and a value head."""
    model, tokenizer = models.load(ModelSpec(f"tiny:{architecture}"))
    policy = add_lora(model.float(), smoke.prompter, seed=0)
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(policy.config.hidden_size, 1)
    trained = [p for p in policy.parameters() if p.requires_grad] + list(head.parameters())
    with torch.no_grad():
        for parameter in trained:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    queries = Policy(policy, tokenizer, SamplingConfig(1.0, 1.0, 0, LENGTH)).encode(
        [[{"role": "user", "content": p}] for p in PROMPTS]
    )
    return SimpleNamespace(policy=policy, tokenizer=tokenizer, queries=queries, head=head)


def trl(toy, responses=None, **changes):
    """TRL trained on `toy` with NUMBERS."""
    settings = {
        "per_device_train_batch_size": NUMBERS["batch_size"],
        "num_mini_batches": NUMBERS["batch_size"] // NUMBERS["minibatch_size"],
        "num_ppo_epochs": NUMBERS["epochs"],
        "total_episodes": NUMBERS["steps"] * NUMBERS["batch_size"],
        "response_length": LENGTH,
        "learning_rate": NUMBERS["learning_rate"],
        "kl_coef": NUMBERS["lam"],
        "gamma": NUMBERS["gamma"],
        "lam": NUMBERS["gae_lambda"],
        "cliprange": NUMBERS["clip"],
        "cliprange_value": NUMBERS["value_clip"],
        "vf_coef": NUMBERS["value_coefficient"],
        **changes,
    }
    return run_trl(
        toy.policy, toy.tokenizer, toy.queries, toy_score, toy.head, responses, **settings
    )


def completions(tokenizer, lengths, ended):
    """Token ids [B, LENGTH] of random completions; padded, and with an end where they `ended`."""
    generator = torch.Generator().manual_seed(3)
    special = max(tokenizer.all_special_ids)
    ids = torch.randint(special + 1, len(tokenizer), (len(lengths), LENGTH), generator=generator)
    for row, length, end in zip(ids, lengths, ended):
        row[length:] = tokenizer.pad_token_id
        if end:
            row[length - 1] = tokenizer.eos_token_id
    return ids


def without_pads(ids, pad_id):
    return [i for i in ids.tolist() if i != pad_id]


def rollout_of(seen, toy):
    """For each batch of TRL: prompt numbers, completions, and what it knew before the updates."""
    first = {}
    for entry in seen.backward:
        first.setdefault(entry["update"], entry)
    pad, batches = toy.tokenizer.pad_token_id, []
    for local in first.values():
        queries = [without_pads(q, pad) for q in local["queries"]]
        sampled = [without_pads(r, pad) for r in local["postprocessed_responses"]]
        batches.append(([toy.queries.index(q) for q in queries], sampled, local))
    return batches


def ours_on(toy, smoke, folder, batches, orders):
    """Our Trainer on the prompts, completions and minibatches of TRL, with all it computed."""
    preset = dataclasses.replace(smoke, ppo=dataclasses.replace(smoke.ppo, **NUMBERS))
    policy = Policy(toy.policy, toy.tokenizer, SamplingConfig(1.0, 1.0, 0, LENGTH))
    eos = toy.tokenizer.eos_token_id
    waiting = iter([[Response("", ids[-1] == eos, ids) for ids in rows] for _, rows, _ in batches])
    policy.generate_ids = lambda encoded, seed: next(waiting)

    def score(prompts, outputs, seed):
        queries = [toy.queries[PROMPTS.index(p)] for p in prompts]
        scores = toy_score([q + list(o.token_ids) for q, o in zip(queries, outputs)])
        return ppo.Scored(scores, [{} for _ in prompts], {})

    trainer = ppo.Trainer(
        policy,
        PROMPTS,
        lambda prompts: [[{"role": "user", "content": p}] for p in prompts],
        score,
        preset.ppo,
        Run(folder, preset, "help", ("P1", "F1"), "parity", 0),
    )
    trainer.value_head.load_state_dict(toy.head.state_dict())
    trainer._rows = lambda step: batches[step - 1][0]
    seen = SimpleNamespace(token_rewards=[], gae=[], ppo_losses=[], _update=[], parameters=[])

    def spied(owner, name):
        original = getattr(owner, name)

        def call(*arguments):
            result = original(*arguments)
            getattr(seen, name).append((arguments, result))
            return result

        return mock.patch.object(owner, name, call)

    def record_step(*_):
        state = trainer.adapter | {
            f"value/{n}": p for n, p in trainer.value_head.named_parameters()
        }
        seen.parameters.append({n: p.detach().clone() for n, p in state.items()})

    trainer.optimizer.register_step_post_hook(record_step)
    with (
        mock.patch("torch.randperm", side_effect=orders),
        spied(ppo, "token_rewards"),
        spied(ppo, "gae"),
        spied(ppo, "ppo_losses"),
        spied(trainer, "_update"),
    ):
        trainer.train(progress=False)
    seen.logs = trainer.run.read("metrics.jsonl")
    return seen


def orders_of(seen):
    """The order in which TRL took the rows, for each epoch."""
    per_epoch = NUMBERS["batch_size"] // NUMBERS["minibatch_size"]
    rows = [entry["rows"] for entry in seen.backward]
    return [torch.cat(rows[i : i + per_epoch]) for i in range(0, len(rows), per_epoch)]


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def close_parameters(mine, theirs):
    """Adam turns the rounding of a gradient near 0 into a visible part of a step."""
    assert (mine - theirs).abs().max() < 0.02 * NUMBERS["learning_rate"]
    assert (mine - theirs).abs().mean() < 1e-5


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def both(request, smoke, tmp_path_factory):
    """TRL's training, and ours on the same prompts and completions, which all have full length."""
    toy = set_up(smoke, request.param)
    cut = [False] * NUMBERS["batch_size"]
    responses = completions(toy.tokenizer, [LENGTH] * len(cut), cut)
    seen = trl(toy, responses)
    batches = rollout_of(seen, toy)
    fresh = set_up(smoke, request.param)
    orders, folder = orders_of(seen), tmp_path_factory.mktemp("run")
    return SimpleNamespace(
        architecture=request.param,
        trl=seen,
        ours=ours_on(fresh, smoke, folder, batches, orders),
        batches=batches,
        orders=orders,
        locals=[local for _, _, local in batches],
    )


def test_log_probs_and_kl_agree(both):
    for local, ((_, logp, reference, mask, _), _) in zip(both.locals, both.ours.token_rewards):
        assert mask.all()
        close(logp, local["logprobs"])
        close(reference, local["ref_logprobs"])
        close(logp - reference, local["kl"])
        assert local["kl"].abs().max() > 0.1


def test_rewards_values_advantages_and_returns_agree(both):
    for local, ((scores, *_), rewards), (_, advantages), (update, _) in zip(
        both.locals, both.ours.token_rewards, both.ours.gae, both.ours._update
    ):
        _, experience = update
        close(scores, local["scores"])
        close(rewards, local["rewards"])
        close(experience.values, local["values"])
        close(advantages, local["returns"] - local["values"])
        close(experience.returns, local["returns"])
        close(experience.advantages, local["advantages"])
        assert local["values"].abs().max() > 0.1


def test_losses_agree_in_every_minibatch(both):
    assert len(both.ours.ppo_losses) == len(both.trl.backward)
    for local, (_, (policy_loss, value_loss, _)) in zip(both.trl.backward, both.ours.ppo_losses):
        close(policy_loss.detach(), local["pg_loss"])
        close(value_loss.detach(), local["vf_loss"])


def test_parameters_agree_after_every_optimizer_step(both):
    """Eight steps of Adam, through two batches, two epochs, minibatches and the schedule."""
    assert len(both.trl.parameters) == len(both.ours.parameters) == 8
    for mine, theirs in zip(both.ours.parameters, both.trl.parameters):
        assert mine.keys() == theirs.keys()
        for name, parameter in mine.items():
            close_parameters(parameter, theirs[name])
    for name, parameter in both.trl.parameters[0].items():
        assert not torch.equal(parameter, both.trl.parameters[-1][name])


def test_metrics_agree_where_they_mean_the_same(both):
    for mine, theirs in zip(both.ours.logs, both.trl.logs):
        for name in (
            "episode",
            "lr",
            "objective/kl",
            "objective/scores",
            "objective/non_score_reward",
            "objective/rlhf_reward",
            "policy/approxkl_avg",
            "policy/clipfrac_avg",
            "val/ratio",
            "loss/policy_avg",
            "loss/value_avg",
        ):
            assert mine[name] == pytest.approx(theirs[name], abs=1e-5, rel=1e-4), name
        # Both clips are at work, or parity would say nothing about them.
        assert theirs["policy/clipfrac_avg"] > 0.05 and theirs["val/clipfrac_avg"] > 0.05


def test_entropies_are_counted_differently(both):
    """Ours sums exact entropies over a completion; TRL's is the one-sample estimate of that sum."""
    for mine, theirs, local in zip(both.ours.logs, both.trl.logs, both.locals):
        sampled = -local["logprobs"].sum(-1).mean().item()
        assert theirs["objective/entropy"] == pytest.approx(sampled, rel=1e-5)
        assert mine["objective/entropy"] != pytest.approx(sampled, rel=1e-3)


@pytest.fixture(scope="module")
def ragged(smoke):
    """One batch of TRL with completions that ended early, at the limit, at once, or were cut."""
    toy = set_up(smoke, "qwen2")
    toy.lengths, toy.ended = [3, LENGTH, 1, LENGTH], [True, True, True, False]
    toy.responses = completions(toy.tokenizer, toy.lengths, toy.ended)
    toy.local = one_batch(toy)
    return toy


def one_batch(toy, **changes):
    """What TRL knows at the last backward pass of one batch; no optimizer step is taken."""
    settings = {"total_episodes": 4, "num_mini_batches": 1, "num_ppo_epochs": 1, **changes}
    with mock.patch.object(torch.optim.AdamW, "step"):
        return trl(toy, toy.responses, **settings).backward[-1]


def ours_of(toy, local):
    """Our batch of the prompts and completions of `local`, its log-probs and the reference's."""
    pad = toy.tokenizer.pad_token_id
    batch = make_batch(
        [without_pads(q, pad) for q in local["queries"]],
        [r[:n].tolist() for r, n in zip(toy.responses, toy.lengths)],
        pad,
        "cpu",
    )
    with torch.no_grad():
        logp, hidden, _ = forward(toy.policy, batch, pad)
        with toy.policy.disable_adapter():
            reference, _, _ = forward(toy.policy, batch, pad)
    return batch, logp, reference, hidden


def test_log_probs_kl_and_values_agree_on_rows_of_any_length(ragged):
    local = ragged.local
    batch, logp, reference, hidden = ours_of(ragged, local)
    assert torch.equal(batch.mask, ~local["padding_mask"])
    close(logp * batch.mask, local["logprobs"] * batch.mask)
    close(reference * batch.mask, local["ref_logprobs"] * batch.mask)
    close((logp - reference) * batch.mask, local["kl"])
    close(ragged.head(hidden)[..., 0].detach() * batch.mask, local["values"] * batch.mask)


def test_what_trl_samples_has_our_log_probs(smoke):
    """TRL keeps the log-probs of sampling time; ours are computed afterwards, in one pass."""
    toy = set_up(smoke, "llama")
    toy.responses, pad = None, toy.tokenizer.pad_token_id
    local = one_batch(toy)
    queries = [without_pads(q, pad) for q in local["queries"]]
    sampled = [without_pads(r, pad) for r in local["postprocessed_responses"]]
    batch = make_batch(queries, sampled, pad, "cpu")
    logp, _, _ = forward(toy.policy, batch, pad)
    width = batch.mask.shape[1]
    close(logp.detach(), local["logprobs"][:, :width] * batch.mask)


def test_gae_is_trls_on_rows_of_any_length(ragged):
    """Given TRL's rewards, values and mask, our advantages and returns are TRL's."""
    local = ragged.local
    mask = ~local["padding_mask_p1"]
    advantages = ppo.gae(
        local["rewards"], local["values"], mask, NUMBERS["gamma"], NUMBERS["gae_lambda"]
    )
    close(advantages, (local["returns"] - local["values"]) * mask)


def test_whitening_is_trls_on_rows_of_any_length(ragged):
    local = ragged.local
    advantages, mask = local["returns"] - local["values"], ~local["padding_mask"]
    close(ppo.whiten(advantages, mask), local["advantages"])


def test_losses_are_trls_on_rows_of_any_length(ragged, smoke):
    """TRL's value loss counts one more step of each row that ended early than its policy loss."""
    seen = trl(set_up(smoke, "qwen2"), ragged.responses, num_mini_batches=1)
    local = seen.backward[1]
    config = dataclasses.replace(smoke.ppo, **NUMBERS)
    for name, mask in (("pg_loss", "padding_mask"), ("vf_loss", "padding_mask_p1")):
        rows = local["rows"]
        tokens = torch.zeros_like(local[mask][rows], dtype=torch.long)
        sampled = ppo.Experience(
            Batch([[0]] * len(tokens), tokens, ~local[mask][rows], shared=0),
            local["logprobs"][rows],
            local["values"][rows],
            local["advantages"][rows],
            local["returns"][rows],
        )
        losses = ppo.ppo_losses(local["new_logprobs"], local["vpred"], sampled, config)
        close(losses[name == "vf_loss"], local[name])
    assert (local["ratio"] != 1).any()
    counted = (~local["padding_mask_p1"]).sum(-1) - (~local["padding_mask"]).sum(-1)
    assert counted.tolist() == [n < LENGTH for n in ragged.lengths]


def test_trl_puts_the_score_one_step_after_the_end(ragged):
    """Where a row ended early, TRL's score stands after its last token, ours on it."""
    local = ragged.local
    batch, logp, reference, _ = ours_of(ragged, local)
    ours = ppo.token_rewards(local["scores"], logp, reference, batch.mask, NUMBERS["lam"])
    for row, (length, score) in enumerate(zip(ragged.lengths, local["scores"])):
        extra = torch.zeros(LENGTH)
        if length < LENGTH:
            extra[length], extra[length - 1] = score, -score
        close(ours[row] + extra, local["rewards"][row])

    # With values of 0, the last token of such a row gets gamma lambda times the score in TRL.
    def last(rewards, mask):
        zeros = torch.zeros_like(rewards)
        advantages = ppo.gae(rewards, zeros, mask, NUMBERS["gamma"], NUMBERS["gae_lambda"])
        return advantages[torch.arange(len(rewards)), torch.tensor(ragged.lengths) - 1]

    shrunk = 1 - NUMBERS["gamma"] * NUMBERS["gae_lambda"]
    early = torch.tensor([n < LENGTH for n in ragged.lengths])
    close(
        last(ours, batch.mask) - last(local["rewards"], ~local["padding_mask_p1"]),
        shrunk * local["scores"] * early,
    )


def test_a_penalty_for_a_missing_end_is_a_score_like_any_other(ragged):
    """TRL subtracts it from the score; ours leaves it to the score, which is told what was cut."""
    penalised, plain = one_batch(ragged, missing_eos_penalty=0.5), ragged.local
    outputs = [Response("", ended) for ended in ragged.ended]
    scores = plain["scores"] - 0.5 * torch.tensor([not o.ended for o in outputs])
    close(scores, penalised["scores"])
    assert torch.equal(penalised["queries"], plain["queries"])


def test_trls_k3_is_another_function_of_our_log_ratio(ragged):
    local = one_batch(ragged, kl_estimator="k3")
    batch, logp, reference, _ = ours_of(ragged, local)
    ratio = (logp - reference) * batch.mask
    close((-ratio).exp() - 1 + ratio, local["kl"])
    assert (local["kl"] >= 0).all() and (ratio < 0).any()


def test_trl_scales_logits_by_its_temperature(ragged):
    """At TRL's default of 0.7 its log-probs are those of a sharper policy than ours."""
    local = one_batch(ragged, temperature=0.7)
    batch, logp, _, _ = ours_of(ragged, local)
    head = ragged.policy.get_output_embeddings()
    scaling = head.register_forward_hook(lambda module, inputs, logits: logits / 0.7)
    _, scaled, _, _ = ours_of(ragged, local)
    scaling.remove()
    close(scaled, local["logprobs"] * batch.mask)
    assert (scaled - logp).abs().max() > 0.1


def test_trl_drops_the_end_where_it_is_also_the_padding(ragged, smoke):
    """With pad = eos TRL never trains the end of a completion; ours does."""
    toy = set_up(smoke, "qwen2")
    eos = toy.tokenizer.eos_token_id
    toy.responses = ragged.responses.masked_fill(
        ragged.responses == toy.tokenizer.pad_token_id, eos
    )
    toy.tokenizer.pad_token = toy.tokenizer.eos_token
    theirs = (~one_batch(toy)["padding_mask"]).sum(-1).tolist()
    batch, _, _, _ = ours_of(ragged, ragged.local)
    assert batch.mask.sum(-1).tolist() == ragged.lengths
    assert theirs == [n - e for n, e in zip(ragged.lengths, ragged.ended)]


def test_trl_can_whiten_rewards(ragged):
    """Off by default: it divides by the spread and puts the mean back, as a bonus of each token."""
    twice = SimpleNamespace(**{**vars(ragged), "responses": ragged.responses.repeat(2, 1)})
    settings = {"per_device_train_batch_size": 8, "total_episodes": 8}
    plain = one_batch(twice, **settings)
    local = one_batch(twice, whiten_rewards=True, **settings)
    counted = ~local["padding_mask_p1"]
    rewards = plain["rewards"][counted]
    mean, spread = rewards.mean(), rewards.std()
    assert spread < 0.8
    close(rewards / spread + mean * (1 - 1 / spread), local["rewards"][counted])


def test_trl_accumulates_over_its_minibatches(smoke):
    """Accumulating, TRL takes one optimizer step an epoch, however many minibatches it is told.

    On the last batch of its data loader it takes one for each micro-batch instead.
    """
    toy = set_up(smoke, "qwen2")
    seen = trl(
        toy,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_mini_batches=2,
        num_ppo_epochs=3,
        total_episodes=8,
    )
    assert [entry["update"] for entry in seen.backward] == [1] * 6 + [2] * 6
    assert len(seen.parameters) == 3 + 6


def test_only_our_trainer_clips_gradients(smoke, tmp_path):
    """TRL's PPOTrainer takes `max_grad_norm` and never uses it."""
    toy = set_up(smoke, "qwen2")
    start = {n: p.detach().clone() for n, p in toy.policy.named_parameters() if p.requires_grad}
    seen = trl(toy, max_grad_norm=1e-12)
    fresh = set_up(smoke, "qwen2")
    with mock.patch.dict(NUMBERS, max_grad_norm=1e-12):
        ours = ours_on(fresh, smoke, tmp_path, rollout_of(seen, toy), orders_of(seen))
    for name, parameter in start.items():
        assert (ours.parameters[-1][name] - parameter).abs().max() < 1e-4
        assert (seen.parameters[-1][name] - parameter).abs().max() > 5e-3


def test_nobody_drops_out(ragged, smoke):
    """TRL trains in training mode with every dropout at 0; our policy stays in evaluation."""
    toy = set_up(smoke, "qwen2")
    toy.responses, toy.lengths = ragged.responses, ragged.lengths
    mlp = toy.policy.get_base_model().get_decoder().layers[1].mlp
    mlp.act_fn = torch.nn.Sequential(mlp.act_fn, torch.nn.Dropout(0.5)).eval()
    _, logp, _, _ = ours_of(toy, ragged.local)
    close(logp, ours_of(ragged, ragged.local)[1])
    one_batch(toy)
    dropouts = [m for m in toy.policy.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts and all(m.training and m.p == 0 for m in dropouts)


def test_the_critic_has_no_say_in_the_policy_and_its_weight_none_in_adam(smoke, tmp_path, both):
    """Policy updates do not depend on the value loss, the critic's hardly on its coefficient."""

    def parameters(coefficient):
        fresh = set_up(smoke, both.architecture)
        with mock.patch.dict(NUMBERS, value_coefficient=coefficient):
            folder = tmp_path / str(coefficient)
            return ours_on(fresh, smoke, folder, both.batches, both.orders).parameters

    first_batch = len(both.trl.parameters) // NUMBERS["steps"]
    for step, (weak, strong) in enumerate(zip(parameters(0.1), parameters(10.0))):
        for name, parameter in weak.items():
            close_parameters(parameter, strong[name])
            if step < first_batch and not name.startswith("value/"):
                assert torch.equal(parameter, strong[name])


ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "book" / "ppo_details.md").read_text()


def test_every_test_that_the_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert named <= set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))


def test_every_preset_field_that_the_page_names_exists(smoke):
    named = set(re.findall(r"`((?:ppo|prompter|frozen|seeds)(?:\.\w+)*)`", PAGE))
    assert len(named) > 10
    for field in named:
        kind = type(smoke)
        for part in field.split("."):
            kind = get_type_hints(kind)[part]
            kind = next((k for k in get_args(kind) if dataclasses.is_dataclass(k)), kind)


def test_every_line_of_trl_that_the_page_quotes_says_so():
    lines = Path(inspect.getsourcefile(PPOTrainer)).read_text().splitlines()
    quoted = re.findall(r"`([^`]+)`\s+\(line\s(\d+)\)", PAGE)
    assert len(quoted) > 20
    for code, number in quoted:
        assert code in lines[int(number) - 1], f"line {number} is not {code!r}"


def test_everything_of_ours_that_the_page_names_exists():
    for module, name in re.findall(r"`alignpro\.(\w+)\.(\w+)`", PAGE):
        assert hasattr(importlib.import_module(f"alignpro.{module}"), name)
