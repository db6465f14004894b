# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Noise, chains, variance: by computation
#
# **The question.** What if the frozen model is noisy, what if prompters work in sequence, and
# what does rewriting do to the variance of the reward?
#
# **What you will know at the end.** What a prompter loses when it was trained on a noisy copy of
# the frozen model, and how much more RLHF can lose; why a chain of prompters is trained from its
# last stage to its first; and why the variance of the reward rises in this book, where the paper's
# falls. First on random instances, then from the kept runs, and at the end on a real language
# model, exactly. The proofs are in the chapter [Noise, chains,
# variance](../book/noise_chains_variance.md).

# %% tags=["setup", "hide-cell"]
# On Colab (and anywhere else without alignpro): fetch the project and install its pinned versions.
import importlib.util, os, subprocess, sys

if importlib.util.find_spec("alignpro") is None:
    repository = "https://github.com/alignpro/alignpro"
    release = "main"
    clone = ["git", "clone", "--depth", "1", "--branch", release, repository, "alignpro-book"]
    if not os.path.exists("alignpro-book"):
        subprocess.run(clone, check=True)
    subprocess.run(["sh", "alignpro-book/install.sh", sys.executable, "", "keep"], check=True)
    os.chdir("alignpro-book")
    sys.path.insert(0, os.getcwd())

# %% tags=["parameters"]
from alignpro.config import preset_for_hardware

preset = preset_for_hardware()  # or a name: "cpu", "colab", "h100"
seed = 0

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from alignpro.figures import theory as draw
from alignpro.figures.style import use_style
from alignpro.report.formulas import formula_table
from alignpro.theory import chains, gibbs, instances, noise, variance

use_style()
rng = np.random.default_rng(seed)

# %% [markdown]
# ## Noise in the frozen model
#
# Ten prompts with eight rewrites each. The prompter is trained on mean rewards $\hat g$ that differ
# from the true $g$ by noise of size 0.05. The identity of C17: what the prompter loses in the true
# objective, plus what it believes to have gained in the noisy one, is the noise, averaged under one
# optimum minus under the other.

# %%
inst = instances.random_instance(rng, prompts=10, rewrites=8, responses=6)
g, rho_sft = inst.g, inst.rho_sft
error = 0.05 * rng.normal(size=g.shape)
n = noise.noise(rho_sft, g, g + error, lam=0.05)
rho_star = gibbs.tilt(rho_sft, g, 0.05).p
identity = n.loss + n.regret_hat - ((n.rho_hat - rho_star) * error).sum(axis=1)
assert np.abs(identity).max() < 1e-14
print(f"largest difference of the two sides: {np.abs(identity).max():.0e}")

# %% [markdown]
# The identity holds to rounding, for each prompt. Against the leash:

# %%
rows = []
for lam in np.geomspace(1e-3, 10, 81):
    n = noise.noise(rho_sft, g, g + error, lam)
    values = [n.loss, n.loss_ceiling, np.abs(n.reward_change), n.reward_ceiling]
    rows += [{"lam": lam, "what": w, "value": v.mean()} for w, v in zip(draw.NOISE_STYLES, values)]
    assert (n.loss <= n.loss_ceiling + 1e-15).all()
    assert (np.abs(n.reward_change) <= n.reward_ceiling + 1e-15).all()
draw.noise_cost(pd.DataFrame(rows));

# %% [markdown]
# *Figure: the mean cost of noise over ten prompts, and its ceilings (dashed). See that all curves
# fall for a stiff leash, on the right, and level off for a loose one; and that with a stiff leash
# the loss of plain reward is larger than the loss in the objective.* The ceilings know the range of
# the noise alone.

# %% [markdown]
# Two kinds of noise are harmless, or nearly. Noise that is the same for all rewrites costs
# nothing. And if the model ignores the rewrite at rate $\eta$ and answers at random
# (*contamination*), then the prompter is the optimum of a stiffer leash, $\lambda/(1-\eta)$.

# %%
common = noise.noise(rho_sft, g, g + rng.normal(size=(10, 1)), lam=0.05)
print(f"noise common to all rewrites, loss: {common.loss.max():.0e}")
eta, constant = 0.3, rng.random((10, 1))
contaminated = noise.noise(rho_sft, g, (1 - eta) * g + eta * constant, lam=0.05)
stiffer = gibbs.tilt(rho_sft, g, 0.05 / (1 - eta)).p
print(f"contamination, distance from the optimum at λ / (1 - η): "
      f"{np.abs(contaminated.rho_hat - stiffer).max():.0e}")

# %% [markdown]
# Both numbers are rounding.

# %% [markdown]
# ### RLHF is fragile
#
# Now the same noise for both: with probability $\eta$ the frozen model gives the best answer
# instead of its own, to the prompt and to each rewrite. RLHF multiplies that by up to
# $e^{1/\beta}$. The prompter sees it through means alone.

# %%
lam = beta = 0.1
pool, reward = inst.pi_F_rewrites, inst.reward
best = np.eye(6)[reward.argmax(axis=1)]
pi_star = gibbs.tilt(inst.pi_F, reward, beta).p
rho_star = gibbs.tilt(rho_sft, g, lam).p


def answers(rho, pool):
    return np.einsum("xk,xky->xy", rho, pool)


rows = []
for eta in np.geomspace(1e-5, 0.3, 41):
    noisy = (1 - eta) * pool + eta * best[:, None]
    pi_hat = gibbs.tilt((1 - eta) * inst.pi_F + eta * best, reward, beta).p
    size = gibbs.total_variation(noisy, pool)
    n = noise.noise(rho_sft, g, np.einsum("xky,xy->xk", noisy, reward), lam)
    moved = gibbs.total_variation(answers(n.rho_hat, noisy), answers(rho_star, pool))
    bend = n.reward_ceiling / np.ptp(g, axis=1)  # tanh(osc(e) / 4 lambda)
    ceiling = (rho_star * size).sum(axis=1) + bend
    at_x = gibbs.total_variation((1 - eta) * inst.pi_F + eta * best, inst.pi_F)
    rlhf = gibbs.total_variation(pi_hat, pi_star)
    for policy, what, tv in [
        ("RLHF", "moved", rlhf), ("RLHF", "ceiling", noise.rlhf_shift_ceiling(at_x, 1.0, beta)),
        ("Align-Pro", "moved", moved), ("Align-Pro", "ceiling", ceiling),
    ]:
        rows.append({"eta": at_x.mean(), "policy": policy, "what": what, "tv": tv.mean()})
draw.fragility(pd.DataFrame(rows));

# %% [markdown]
# *Figure: how far a rare change of the frozen model moves the answers of each optimum, with the
# ceilings of C17 (dashed), at λ = β = 0.1. See that RLHF moves farther than the prompter,
# and that its ceiling is close to 1 already where one answer in a thousand changed.* The worst case
# for RLHF is a frozen model that never gives the best answer; the random models here do give it, so
# they stay far below the ceiling.

# %%
for eta in (1e-4, 1e-3, 1e-2):
    moved = gibbs.tilt([1 - eta, eta], [0.0, 1.0], beta).p[1]
    print(f"the worst case, η = {eta}: RLHF moves by {moved:.3f}, "
          f"ceiling {noise.rlhf_shift_ceiling(eta, 1.0, beta):.3f}")

# %% [markdown]
# In the worst case the ceiling is attained: one changed answer in ten thousand moves two thirds of
# the answers of RLHF.

# %% [markdown]
# ### Rewards from a few sampled answers
#
# In training $g$ is estimated from $M$ sampled answers to each rewrite. For rewards of range one,
# C17 bounds the expected loss by $1/(2\lambda M)$, for any number of rewrites. We sample. (The
# *leading term* is the loss for large $M$.)

# %%
lam, rows = 0.1, []
for K in (4, 64):
    one = instances.random_instance(rng, 1, K, 5)
    edges = np.cumsum(one.pi_F_rewrites[0], axis=1)[:, None, :-1]
    spread = one.pi_F_rewrites[0] @ one.reward[0] ** 2 - one.g[0] ** 2
    star = gibbs.tilt(one.rho_sft, one.g, lam).p[0]
    leading = (star * (1 - star) * spread).sum() / (2 * lam)
    for M in (1, 4, 16):
        picks = (rng.random((2000, K, M, 1)) > edges).sum(axis=-1)
        g_hat = one.reward[0][picks].mean(axis=2)
        rows_of = np.ones((2000, 1))
        n = noise.noise(one.rho_sft * rows_of, one.g * rows_of, g_hat, lam)
        rows.append([K, M, n.loss.mean(), leading / M, 1 / (2 * lam * M)])
columns = ["rewrites", r"\(M\)", "loss", "leading term", r"bound \(1/(2\lambda M)\)"]
formula_table(pd.DataFrame(rows, columns=columns)).hide(axis="index")

# %% [markdown]
# The loss hardly grows with the number of rewrites. It is far below the bound, and close to its
# leading term where $M$ is large.

# %% [markdown]
# ## Prompters in sequence
#
# Two prompters, each with its own reference and its own leash: the first writes one of four
# rewrites, the second turns it into one of six. `solve_chain` works from the last stage to the
# first. We compare four ways to train the chain. Trained for the mean reward alone, a stage does
# not know what the other one will do.

# %%
R1, R2 = rng.dirichlet(np.ones(4), size=(10, 1)), rng.dirichlet(np.ones(6), size=(10, 4))
g, lams = rng.random((10, 6)), (0.1, 0.05)
best = chains.solve_chain([R1, R2], g, lams)
untrained = (R2 @ g[:, :, None])[..., 0]
first = gibbs.tilt(R1[:, 0], untrained, lams[0]).p[:, None]
last = best.policies[1]
ways = {
    "untrained": [R1, R2],
    "first stage only": [first, R2],
    "first stage first": [first, last],
    "last stage only": [R1, last],
    "last stage first": best.policies,
}
rows = {
    name: {"reward": (chains.last_rewrite(p)[:, 0] * g).sum(axis=1).mean(),
           "objective": best.objective(p).mean(), "regret": best.regret(p).mean()}
    for name, p in ways.items()
}
pd.DataFrame(rows).T.round(4) + 0.0

# %% [markdown]
# In each row the regret is the optimum minus the objective. It is the sum of the regrets of the
# two stages. "Last stage first" is exact. "First stage first" is worse in the objective than
# training the last stage alone: the first stage moved towards what an untrained second stage
# would do with its rewrites, and paid KL for it. The chapter bounds this loss, and the gain of
# training the first stage alone:

# %%
width = np.ptp(g, axis=1)
d = lams[1] * gibbs.kl_of_range(width / lams[1])
sharp = lams[0] * gibbs.kl_of_range(d / lams[0])
plain = width**4 / (512 * lams[0] * lams[1] ** 2)
loss = best.regret(ways["first stage first"])
assert (loss <= sharp).all() and (sharp <= plain).all()
w = width * chains.dobrushin(R2)
gain = ((first - R1)[:, 0] * untrained).sum(axis=1)
most = w * np.tanh(w / (4 * lams[0]))
assert (gain <= most).all()
print(f"first stage first loses {loss.mean():.4f}, "
      f"bound {sharp.mean():.3f} (with 512: {plain.mean():.1f})")
print(f"first stage only gains {gain.mean():.4f}, bound {most.mean():.4f} (Dobrushin)")

# %% [markdown]
# The bound with h says something at these loose leashes, the one with 512 does not.
#
# With one leash for both stages the chain is one prompter, leashed to the composed reference. With
# different leashes its value is between the two.

# %%
composed = chains.last_rewrite([R1, R2])[:, 0]
for pair in ((0.1, 0.1), (0.1, 0.05), (0.05, 0.05)):
    value = chains.solve_chain([R1, R2], g, pair).value
    one = pair[0] * gibbs.tilt(composed, g, pair[0]).log_Z
    print(f"leashes {pair}: value {value.mean():.6f}, one prompter at {pair[0]}: {one.mean():.6f}")

# %% [markdown]
# So what does a chain add? A wider pool. Let each stage either keep its input or move to a
# neighbour in a row of eleven rewrites, of which the last is the best. The prompt itself is the
# first.

# %%
step = 0.7 * np.eye(11) + 0.3 * np.eye(11, k=1)
step[-1, -1] = 1.0
start, ladder = np.eye(11)[None, :1] @ step, np.linspace(0, 1, 11)[None]
rows = []
for depth in (1, 2, 4, 8, 10):
    references = [start] + [step[None]] * (depth - 1)
    chain = chains.solve_chain(references, ladder, [0.02] * depth)
    law = chains.last_rewrite(references)[0, 0]
    rows.append([depth, ladder[0, law > 0].max(), chain.value[0]])
pd.DataFrame(rows, columns=["stages", "best rewrite in reach", "value"]).round(3)

# %% [markdown]
# Each stage brings one more rewrite into reach, and the value grows with it.

# %% [markdown]
# A later stage has to see the original prompt. Two prompts on which the same rewrites earn opposite
# rewards (the coin and its mirror image), and a first stage that drops the prompt:

# %%
coin, lam = instances.coin(), 1 / (4 * np.log(2))
both = np.concatenate([coin.g, coin.g[:, ::-1]])
erase, stage = np.ones((2, 1, 1)), np.repeat(coin.rho_sft[:, None], 2, axis=0)
sees = chains.solve_chain([erase, stage], both, [lam, lam])
seen = (chains.last_rewrite(sees.policies)[:, 0] * both).sum(axis=1).mean()
blind = (gibbs.tilt(coin.rho_sft, both.mean(axis=0, keepdims=True), lam).p * both).sum(axis=1).mean()
print(f"the second stage sees the prompt: {12 * seen:.1f}/12, it does not: {12 * blind:.1f}/12")

# %% [markdown]
# Blind, it earns what no rewriting earns.

# %% [markdown]
# ## When does prompting lower the variance?
#
# C19 gives the slope of the variance of the reward in $t=1/\lambda$. For a rewrite, $g$ is the
# mean and $v$ the variance of the reward of its answers. The slope is the covariance of $g$ and
# $v$ within a prompt, plus the third central moment $\kappa_3(g)$, plus a term across prompts.
# Against finite differences:

# %%
def moments(inst):
    """g and v [X, K]: mean and variance of the reward of the answers to each rewrite."""
    second = np.einsum("xky,xy->xk", inst.pi_F_rewrites, inst.reward**2)
    return inst.g, second - inst.g**2


def parts(inst, lam):
    """The three parts of the variance of the reward at the optimal prompter."""
    g, v = moments(inst)
    rho = gibbs.tilt(inst.rho_sft, g, lam).p
    J = (rho * g).sum(axis=1)
    between = (rho * (g - J[:, None]) ** 2).sum(axis=1)
    across = inst.P @ (J - inst.P @ J) ** 2
    return np.array([inst.P @ (rho * v).sum(axis=1), inst.P @ between, across])


# %%
inst = instances.random_instance(rng, prompts=10, rewrites=8, responses=6)
g, v = moments(inst)
rows = []
for lam in (10.0, 0.3, 0.1, 0.03):
    drift = variance.variance_drift(inst.P, gibbs.tilt(inst.rho_sft, g, lam).p, g, v)
    t, step = 1 / lam, 1e-4 / lam
    slope = (parts(inst, 1 / (t + step)) - parts(inst, 1 / (t - step))).sum() / (2 * step)
    terms = [inst.P @ term for term in (drift.within, drift.skew, drift.across, drift.total)]
    rows.append([lam, *terms, slope])
    assert abs(terms[-1] - slope) < 1e-6
columns = [r"\(\lambda\)", r"\(\mathrm{Cov}(g,v)\)", r"\(\kappa_3(g)\)", "across", "sum",
           "finite difference"]
shown = pd.DataFrame(rows, columns=columns).map("{:.6f}".format)
shown[columns[0]] = [f"{row[0]:g}" for row in rows]
formula_table(shown).hide(axis="index")

# %% [markdown]
# The sum of the three terms is the slope, at every leash.
#
# Now two instances that differ in where the reward starts. Rewards are 0 or 1. In the first the
# frozen model succeeds rarely, in the second nearly always.

# %%
def start_at(low, high):
    """Thirty prompts with ten rewrites whose success rates are between low and high."""
    rate = rng.uniform(low, high, size=(30, 10, 1)) ** 1.5
    pool = np.concatenate([1 - rate, rate], axis=2)
    tables = np.full(30, 1 / 30), np.full((30, 10), 0.1), pool[:, 0], pool
    return instances.instance.Instance(*tables, np.tile([0.0, 1.0], (30, 1)))


lams = np.geomspace(3e-3, 10, 121)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
kinds = {"starts low": (0, 0.6), "near its ceiling": (0.8, 1)}
for ax, (name, ends) in zip(axes, kinds.items()):
    made = start_at(*ends)
    frame = pd.DataFrame([parts(made, lam) for lam in lams], columns=list(draw.PART_STYLES))
    draw.variance_parts(frame.assign(lam=lams), f"The reward {name}", ax)

# %% [markdown]
# *Figure: the parts of the variance of the reward against the leash, for two kinds of frozen model.
# See that the black line rises to the left (looser leash) where the reward starts low, and falls
# where it is near its ceiling.* With rewards of 0 and 1 that is all there is to it: the variance
# over the answers to one prompt is $J(1-J)$, largest at $J=\frac12$.

# %% [markdown]
# ## The sign for this book's rubric
#
# The terms can be estimated before anything is trained, from several answers to each rewrite of an
# untrained pool. The kept runs hold such answers: each validation prompt with every suffix, scored
# by the rubric. The estimates have no bias: a product of two moments takes each from answers of its
# own.

# %%
from alignpro.report import kept_runs, rlhf_cost
from alignpro.statistics import bootstrap

kept = kept_runs.kept_preset(preset)
suffixes = kept_runs.matrix_table(kept, files=["suffixes"])
rows, slopes = [], {}
for dataset, part in suffixes.groupby("dataset"):
    rewards = rlhf_cost.rewrite_rewards(part, sorted(part["configuration"].unique()))
    drift = variance.variance_drift_from_samples(rewards)
    terms = {"Cov(g, v)": drift.within, "κ₃(g)": drift.skew, "across": drift.across,
             "sum": drift.total}
    slopes[dataset] = drift.total.mean() / drift.gain.mean()
    for term, value_x in terms.items():
        low, high = bootstrap(value_x[None])
        rows.append({"dataset": dataset, "term": term, "value": value_x.mean(), "low": low,
                     "high": high})
    X, K, M = rewards.shape
    print(f"{dataset}: {X} prompts x {K} suffixes x {M} answers, "
          f"mean reward {rewards.mean():.3f}")
terms = pd.DataFrame(rows)
draw.drift_terms(terms);

# %% [markdown]
# *Figure: the terms of C19 for each dataset of the kept runs, at a stiff leash, with 95 %
# intervals over prompts. See the sign of the first two terms and of the sum.* The reference is
# uniform over the pool of suffixes.

# %%
shown = terms.pivot(index="dataset", columns="term", values=["low", "high"])
signs = pd.DataFrame({
    term: np.select([shown["low", term] > 0, shown["high", term] < 0], ["rises", "falls"], "open")
    for term in terms["term"].unique()
}, index=shown.index)
signs

# %% [markdown]
# The table gives the verdict of each interval, *open* where it covers zero. The first two terms
# are both positive for this rubric. Suffixes that earn more also vary more, since the reward of a
# good form depends on whether the model follows it. And a few suffixes earn far more than the
# rest. So the variance has to rise, and the paper's sign cannot be expected here. Its own reward
# model may well start near its ceiling on easy prompts, where the same formula gives the other
# sign.
#
# Does the prediction hold for the trained prompters? The ratio of two slopes, variance per unit of
# reward gained, does not depend on the leash. We compare it with what training did.

# %%
evaluation = kept_runs.matrix_table(kept, files=["evaluation"])
rows = []
for dataset, part in evaluation.groupby("dataset"):
    before, after = (rlhf_cost.answer_rewards(part, name)
                     for name in ("Untrained prompter", "Align-Pro"))
    gained, rose = after.mean() - before.mean(), after.var() - before.var()
    rows.append([dataset, gained, rose, slopes[dataset] * gained])
columns = ["dataset", "reward gained", "variance rose by", "predicted, first order"]
pd.DataFrame(rows, columns=columns).set_index("dataset").round(4)

# %% [markdown]
# Compare the last two columns: the variance rose where it was predicted to rise, by an amount of
# the predicted order. The prediction is a first-order one. It was made on other prompts, from a
# uniform pool instead of the untrained prompter, and the trained prompter is not the optimum.
#
# RLHF has the same formula with one term: the third central moment of the reward of the frozen
# model's answers to one prompt.

# %%
rows = []
for dataset, part in evaluation.groupby("dataset"):
    r = rlhf_cost.answer_rewards(part, "No Fine-Tuning")
    M = r.shape[1]
    third = ((r - r.mean(axis=1, keepdims=True)) ** 3).sum(axis=1) * M / ((M - 1) * (M - 2))
    rows.append([dataset, r.mean(), third.mean(), *bootstrap(third[None])])
columns = ["dataset", "mean reward", r"\(\kappa_3(r)\)", "low", "high"]
shown = pd.DataFrame(rows, columns=columns).set_index("dataset")
formula_table(shown.map("{:.4f}".format))

# %% [markdown]
# A positive value predicts that RLHF, too, raises the variance at first.

# %% [markdown]
# ## All three on a real language model
#
# As in [The theorem on a real language model](05_real_model.ipynb), answers are one token long,
# so that nothing is sampled. A chain of two prompters writes two suffixes one after another, each
# of five. The reference of each is the model's own taste: how likely it finds the suffix after
# what is already there.

# %%
import torch

from alignpro import config, data, models
from alignpro.theory import next_token

setting = config.load_preset(preset)
closed = [p for p in data.load_prompts("chat", "train") if p.kind == "yesno"]
closed = closed[: 4 if preset == "smoke" else 8]
answer_is_yes = "whales Eiffel Welsh octopuses passport swim".split()
truth = np.array([any(word in str(p) for word in answer_is_yes) for p in closed])
stage1 = ["", "Think about it.", "Be honest.", "You are an expert.", "This is a quiz."]
stage2 = ["", "Answer yes or no.", "Yes or no?", "Answer with one word.", "Explain why."]
pairs = [" ".join(s for s in (a, b) if s) for a in stage1 for b in stage2]
print(f"{len(closed)} questions, {truth.sum()} with the answer yes; {len(pairs)} rewrites each")

# %%
model, tokenizer = models.load(setting.models["F1"])
logits, likelihood = next_token.next_token_logits(model.float(), tokenizer, closed, pairs)
del model
words = np.array([tokenizer.decode([i]).strip().lower() for i in range(logits.shape[2])])
yes, no = np.isin(words, ["yes", "y"]), np.isin(words, ["no", "n"])
right = np.where(truth[:, None], yes, no)
reward = right + 0.25 * (yes | no) * ~right
X = len(closed)


def mean_rewards(table):
    return np.einsum("xky,xy->xk", table, reward)


# %% [markdown]
# **Noise.** Two ways in which the model that answers can differ from the one of the training: its
# logits are rounded to bfloat16, or it samples as the paper does, at temperature 1.5 with top-p 0.6
# and top-k 20.

# %%
table = next_token.next_token_table(logits)
g = mean_rewards(table)
taste = np.exp(likelihood.reshape(X, 5, 5))
R1 = taste[:, None, :, 0] / taste[:, None, :, 0].sum(axis=-1, keepdims=True)
R2 = np.zeros((X, 5, 25))
for a in range(5):
    R2[:, a, 5 * a : 5 * a + 5] = taste[:, a] / taste[:, a].sum(axis=-1, keepdims=True)
rho_sft, lam, beta = chains.last_rewrite([R1, R2])[:, 0], 0.05, 0.3
rho_star, pi_star = gibbs.tilt(rho_sft, g, lam).p, gibbs.tilt(table[:, 0], reward, beta).p
coarse = torch.from_numpy(logits).bfloat16().float().numpy()
others = {
    "rounded to bfloat16": next_token.next_token_table(coarse),
    "sampled as in the paper": next_token.next_token_table(logits, setting.frozen),
}
columns = {}
for name, other in others.items():
    eta = gibbs.total_variation(other, table)
    n = noise.noise(rho_sft, g, mean_rewards(other), lam)
    pi_hat = gibbs.tilt(other[:, 0], reward, beta).p
    columns[name] = {
        r"\(\eta\), mean over rewrites": eta.mean(),
        "loss in the objective": n.loss.mean(),
        "its ceiling": n.loss_ceiling.mean(),
        "loss of reward": -n.reward_change.mean(),
        "RLHF: TV moved": gibbs.total_variation(pi_hat, pi_star).mean(),
        "RLHF: ceiling": noise.rlhf_shift_ceiling(eta[:, 0], 1.0, beta).mean(),
    }
formula_table(pd.DataFrame(columns).map("{:.4f}".format))

# %% [markdown]
# Compare the columns. The paper's sampling moves far more of the model's mass than rounding does. A
# prompter trained on it still loses little in the objective of the full model, and stays far below
# the ceiling: much of what sampling changes is common to all rewrites, and that is free.

# %% [markdown]
# **Chains.** The two stages, trained in the right order, in the wrong order, and alone:

# %%
best = chains.solve_chain([R1, R2], g, [lam, lam])
untrained = (R2 @ g[:, :, None])[..., 0]
first, last = gibbs.tilt(R1[:, 0], untrained, lam).p[:, None], best.policies[1]
ways = {
    "untrained": [R1, R2], "first stage only": [first, R2], "first stage first": [first, last],
    "last stage only": [R1, last], "last stage first": best.policies,
}
rows = {
    name: {"reward": (chains.last_rewrite(p)[:, 0] * g).sum(axis=1).mean(),
           "objective": best.objective(p).mean(), "regret": best.regret(p).mean()}
    for name, p in ways.items()
}
one = lam * gibbs.tilt(rho_sft, g, lam).log_Z
assert np.abs(best.value - one).max() < 1e-12
pd.DataFrame(rows).T.round(4) + 0.0

# %% [markdown]
# The last stage does most of the work here, since it asks for a closed answer. The assertion checks
# that with one leash the chain has exactly the value of one prompter over all 25 rewrites.

# %% [markdown]
# **Variance.** All terms of C19, exactly, at a stiff leash and at ours:

# %%
v = np.einsum("xky,xy->xk", table, reward**2) - g**2
rows = {}
for name, rho in {"untrained prompter": rho_sft, f"optimum at λ = {lam}": rho_star}.items():
    drift = variance.variance_drift(np.full(X, 1 / X), rho, g, v)
    rows[name] = {
        "mean reward": (rho * g).sum(axis=1).mean(),
        r"\(\mathrm{Cov}(g,v)\)": drift.within.mean(), r"\(\kappa_3(g)\)": drift.skew.mean(),
        "across": drift.across.mean(), "sum": drift.total.mean(),
    }
formula_table(pd.DataFrame(rows).T.map("{:.5f}".format))

# %% [markdown]
# The sum in the first row is the slope of the variance before training, in the second row at the
# optimum. Its sign follows from where the mean reward is. A term of 0.01 means: for a small step in
# $1/\lambda$, the variance grows by a hundredth of the step.

# %% [markdown]
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1. A better model.** Replace the frozen model by one that is right more often: mix each row of
# `table` with the right answer at rate 0.2. Is the prompter still optimal? What do the chapter's
# formulas predict?

# %% tags=["hide-cell"]
sure = right / right.sum(axis=1, keepdims=True)
better = 0.8 * table + 0.2 * sure[:, None]
n = noise.noise(rho_sft, g, mean_rewards(better), lam)
stiffer = gibbs.tilt(rho_sft, g, lam / 0.8).p
print(f"largest loss of the old prompter's objective: {n.loss.max():.5f}")
print(f"distance from the optimum at λ / 0.8: {np.abs(n.rho_hat - stiffer).max():.0e}")

# %% [markdown]
# It is contamination at rate 0.2, with the same answers for all rewrites: the optimum for the new
# model is that of the old one at the leash $\lambda/0.8$.
#
# **2. Where does the sign change?** The rewrites of `start_at(0, 0.9)` succeed rarely on average,
# and some of them often. At which leash is the slope of the variance zero?

# %% tags=["hide-cell"]
made = start_at(0, 0.9)
g, v = moments(made)
rows = []
for lam in np.geomspace(0.01, 10, 8):
    rho = gibbs.tilt(made.rho_sft, g, lam).p
    drift = variance.variance_drift(made.P, rho, g, v)
    rows.append([f"{lam:.3f}", made.P @ (rho * g).sum(axis=1), f"{made.P @ drift.total:+.5f}"])
columns = [r"\(\lambda\)", r"mean reward \(J_\lambda\)", "slope of the variance"]
formula_table(pd.DataFrame(rows, columns=columns)).hide(axis="index")

# %% [markdown]
# Near the leash at which the mean reward passes one half: for each prompt the part within it
# changes its sign there, and the part across prompts is small.

# %% [markdown]
# ## What was found
#
# - Noise costs a prompter at most the square of the noise's range over the rewrites, divided by
#   eight times the leash. Noise common to all rewrites costs nothing. RLHF can amplify noise by
#   $e^{1/\beta}$.
# - A chain is trained from its last stage to its first, in one pass. With one leash it is one
#   prompter. It helps where it widens the pool.
# - Two moments within a prompt and one across prompts give the slope of the variance of the
#   reward. For this book's rubric they predict a rise, and it rose.
