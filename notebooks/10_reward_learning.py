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
# # Learning the reward, and what happens when one believes it
#
# **The question.** Can a reward be learned from labelled pairs, and what happens if a prompter is
# trained on it? At the end you will know how a reward model is learned (the paper's Eq. 1), how
# good it can become, whether its confidence can be trusted, and what optimising it does to the
# *true* reward.

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
dataset = "help"
seed = 0
preference_file = ""  # JSONL or Parquet with prompt, chosen, rejected: learns from it, live

# %% [markdown]
# The paper's reward comes from a reward model, RM-Gemma-2B. It was learned from pairs of answers
# that people and other models labelled. So far this book has used the rubric $r^*$ instead. In
# this chapter the rubric only *labels* pairs, and a learner sees nothing but the labels. We can
# then compare what was learned with what is true. No real reward model allows that.
#
# The study is one command, `python -m alignpro learn-reward`. It takes about an hour with AMX
# tiles and can be stopped and resumed. Every answer, both rewards and every PPO step are kept in
# `results/`, and this page reads them there. If none are kept for your preset, the page runs the
# study of the `smoke` preset: tiny random models that show that every step works, and nothing
# else. The first line printed tells which of the two you see.

# %%
import numpy as np
import pandas as pd

from alignpro.config import load_preset
from alignpro.figures import rewards, style
from alignpro.report.html import text_table
from alignpro.reward_learning.config import load_reward_learning
from alignpro.reward_learning.run_study import run_study
from alignpro.reward_learning.study import read_study, study_folder
from alignpro.statistics import paired_gain

style.use_style()
folder = study_folder(preset, dataset, seed)
study_of = preset if folder.exists() else "smoke"
if study_of == "smoke":
    tiny, config = load_preset(study_of), load_reward_learning(study_of)
    folder = run_study(tiny, config, dataset, seed, "runs", "runs", progress=False)
study = read_study(folder)
print(f"{study_of} preset, {dataset}, seed {seed}; made on {study.card['date'][:10]}")
print(f"commit {study.card['commit']}, {study.card['hardware']['cpu']}")

# %% [markdown]
# ## Pairs
#
# The frozen LLM answers each training prompt several times. Each time the prompt ends with a
# neutral instruction such as "Keep it short.", drawn at random, or with none. Two answers to one
# prompt make a pair. The label is drawn at random. Under Bradley–Terry, the first answer is
# preferred with probability
#
# $$P(\text{first preferred}) = \sigma\!\left(\frac{r^*(x, y_1) - r^*(x, y_2)}{s}\right).$$
#
# The scale $s$ sets how often the labels are wrong. The best reward that can be learned from such
# labels is $r^*/s$ plus a constant for each prompt, which no label can reveal.

# %%
pairs = study.train_pairs
print(f"{len(pairs)} training pairs of {pairs['id'].nunique()} prompts, s = {study.config.scale:g}")
shown = pairs.sample(3, random_state=seed)[["prompt", "first", "second", "p_first", "first_won"]]
text_table(shown).hide(axis="index")

# %% [markdown]
# *p_first* is the probability that the first answer is preferred, *first_won* the label drawn
# from it.

# %%
contrary = ((pairs["first_won"] - 0.5) * (pairs["p_first"] - 0.5) < 0).mean()
close = pairs["p_first"].between(0.4, 0.6).mean()
print(f"labels that contradict r*: {contrary:.0%}; pairs that are nearly a coin toss: {close:.0%}")

# %% [markdown]
# Much of the noise is in pairs of which neither answer is better. We chose $s$ before anything
# was learned, so that about as many labels follow $r^*$ as InstructGPT's labellers agree with one
# another: a little less than three in four.
#
# ## Learning
#
# MiniLM, an encoder, gets a scalar head and reads the pair (prompt, response). TRL's
# `RewardTrainer` minimises $-\log\sigma(r(x,\text{chosen})-r(x,\text{rejected}))$, the negative
# log-likelihood of Eq. 1:
#
# ```python
# from alignpro.reward_learning.config import load_reward_learning
# from alignpro.reward_learning.learn import learn_reward
#
# reward = learn_reward("preferences.jsonl", "runs/my-reward", load_reward_learning("cpu"), seed=0)
# reward(["How do I boil an egg?"], ["Put it into boiling water for seven minutes."])
# ```
#
# The file has the columns prompt, chosen and rejected, as plain text or as the Hub's messages.
# With a network, UltraFeedback's binarized pairs can be used unchanged. The learned reward is a
# plain reward: any `Cell(..., reward=...)` can train on it.

# %%
if preference_file:
    from alignpro.reward_learning.learn import learn_reward

    mine = learn_reward(preference_file, "runs/my-reward", load_reward_learning("cpu"), seed)
    print(f"kept in runs/my-reward as {mine.name}")
else:
    print("no preference_file is set: this page uses the rubric's pairs alone")

# %% [markdown]
# ## How good can it be, and how good is it?
#
# A label that is partly a coin toss cannot be predicted. Even $r^*$ agrees with it only with
# probability $\max(p,1-p)$, where $p$ is the probability that the first answer is preferred. The
# mean over pairs is the **noise ceiling**. Real preferences have such a ceiling too, but nobody
# knows it. Here we know it. So we can also give the *expected accuracy*: the accuracy over all
# labels that might have been drawn, without the luck of those that were.

# %%
accuracy = study.accuracy()
rewards.accuracy_curve(accuracy);

# %% [markdown]
# *Held-out accuracy by number of training pairs, on prompts that no pair came from, with 95 %
# intervals over prompts. The dashed line with its band is the noise ceiling.* Each point is a
# model of its own, learned from a random share of the pairs in the same number of epochs. The
# distance from the last point to the dashed line is what this encoder has not learned. In
# expectation, no reward can be above the line.

# %%
ends = accuracy[["value", "low", "high"]].to_numpy()
shown = accuracy.assign(value=[f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in ends])
shown.pivot(index="pairs", columns="measure", values="value")

# %%
final = accuracy[accuracy["pairs"] == len(pairs)].set_index("measure")["value"]
learned = (final["expected accuracy"] - 0.5) / (final["noise ceiling"] - 0.5)
print(f"of what can be known beyond a coin toss, the reward learned {learned:.0%}")

# %% [markdown]
# ## Is it calibrated?
#
# A difference of learned rewards is a log-odds: its $\sigma$ is a probability. A reward model can
# order pairs well and still be far too sure. An optimiser makes use of that, since it goes where
# the reward is highest.

# %%
from scipy.special import expit

from alignpro.reward_learning.held_out import calibration_error, reliability

tested = study.test_pairs
claimed = expit(study.margins())
by_bin = reliability(claimed, tested["first_won"].to_numpy())
rewards.reliability_diagram(by_bin);

# %% [markdown]
# *Predicted against observed preference on held-out pairs. Dots have 95 % Wilson intervals, and
# their area is the number of pairs.* Dots on the dashed line mean that the predictions can be
# taken at face value. Dots below it on the right and above it on the left mean that the reward is
# too sure.

# %%
truth = reliability(tested["p_first"].to_numpy(), tested["first_won"].to_numpy())
print(f"expected calibration error: {calibration_error(by_bin):.3f}")
print(f"the same for the true probabilities: {calibration_error(truth):.3f}")
off = (claimed - tested["p_first"]).abs().mean()
print(f"mean distance of a predicted probability from the true one: {off:.3f}")

# %% [markdown]
# Even the true probabilities have an error above zero, from the noise of the bins. The last number
# matters most, and it can be computed only where the truth is known. Calibration is about averages:
# single predictions can be far off in both directions and cancel within their bin.
#
# ## Over-optimisation, without training anything
#
# From here on the learned reward is optimised, and $r^*$ is the *gold* reward, the one that
# counts. The learned reward is *over-optimised* where it still rises while the gold reward falls.
#
# The simplest optimiser draws $n$ answers and keeps the one with the highest learned reward. It
# moves away from the distribution of answers by $\log n-(n-1)/n$ nats. Its expected reward, by
# both rewards, follows exactly from the answers that are kept. We multiply the learned reward by
# $s$, so that both have the unit of $r^*$, and show gains over a single answer.

# %%
shares = sorted({study.config.shares[0], 1.0})
curves = {f"{round(s * len(pairs))} pairs": study.selection_curve(s) for s in shares}
rewards.selection(curves);

# %% [markdown]
# *Gains of the best of n answers by the reward learned from few pairs (left) and from all
# (right). Squares: gain by the learned reward. Dots: gain by the gold reward, with 95 % intervals
# over prompts.* The squares rise by construction. Where they are above the dots, the optimiser
# has used the errors of the learned reward: among $n$ answers, it finds the one that is overrated
# most. The reward learned from few pairs hardly tells answers apart, and even underrates what it
# gains.

# %%
for name, curve in curves.items():
    top = curve.loc[curve["gold"].idxmax()]
    end = curve.iloc[-1]
    print(f"{name}: the gold gain is largest at n = {top['n']:.0f} ({top['gold']:+.3f});", end=" ")
    print(f"at n = {end['n']:.0f} it is {end['gold']:+.3f}, and the learned gain {end['proxy']:+.3f}")

# %% [markdown]
# ## Does a stiffer leash help?
#
# The same answers, reweighted by $e^{r/\beta}$, estimate the *optimum* of fine-tuning against the
# learned reward at each leash $\beta$ (Eq. 4). A small $\beta$, to the right, is a loose leash.
# The theory bounds what an error $\varepsilon$ of the reward can cost by $\varepsilon^2/(2\beta)$
# (C13). The bound grows as $\beta$ falls, so one might expect that the gold gain rises at first,
# and then falls. Does it?

# %%
betas = np.geomspace(1, 0.003, 12)
by_beta = study.leash_curve(betas)
rewards.leash(by_beta);

# %% [markdown]
# *Gains of the estimated optimum against the learned reward, by β. Squares: by the learned reward.
# Dots: by the gold reward, with 95 % intervals.*

# %%
names = {"lam": "β", "sqrt_kl": "√KL", "ess": "effective answers", "proxy": "learned", "gold": "gold"}
shown = by_beta[[*names]].rename(columns=names).iloc[::2]
shown.assign(difference=shown["learned"] - shown["gold"]).round(3).set_index("β")

# %%
best, widest = by_beta["gold"].idxmax(), (by_beta["proxy"] - by_beta["gold"]).idxmax()
print(f"largest gold gain: {by_beta['gold'][best]:+.3f} at β = {by_beta['lam'][best]:.3g}")
print(f"smallest β tried: {by_beta['lam'].min():.3g}")
print(f"largest difference of the two: at β = {by_beta['lam'][widest]:.3g}")
effective, drawn = by_beta["ess"][best], study.rewards()[0].shape[1]
print(f"of {drawn} answers per prompt, {effective:.1f} carry the weight at the best β")

# %% [markdown]
# If the largest gold gain is at the smallest $\beta$, then a stiffer leash is no remedy here: it
# lowers the gain that is real along with the gain that is not. The bound allows for harm, but
# these answers do not show it. One reason is in the last line. Where a single answer carries the
# weight, the estimate is the best of the answers drawn, and reweighting can go no further. A
# trained prompter can: it can write what was never drawn. So the next section trains one.
#
# ## A prompter trained on the learned reward
#
# This is PPO as in the [chapter on training](07_train.ipynb), with the learned reward in place of
# the rubric and two values of the prompter's leash $\lambda$. The rubric is computed beside it at
# every step, and changes nothing.

# %%
rewards.trained_prompters(study.metrics);

# %% [markdown]
# *Both rewards of the training batches against √KL, as gains over the first three batches. Lines
# are running means in the order of the steps.* Over-optimisation is where the two lines part.
# Where the gold line falls while the learned one rises, each further step does harm.

# %%
rows = {}
for lam, run in study.metrics.groupby("lam"):
    both = run[["objective/scores", "objective/gold"]]
    gains = both - both.head(3).mean()
    rows[f"λ = {lam:g}"] = {
        "√KL at the end": np.sqrt(max(run["objective/kl"].tail(5).mean(), 0)),
        "learned gain": gains["objective/scores"].tail(5).mean(),
        "gold gain": gains["objective/gold"].tail(5).mean(),
        "best gold gain of the run": gains["objective/gold"].rolling(5, min_periods=3).mean().max(),
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Means of five batches, as gains over the first three. If the gold gain at the end is clearly
# below the best of the run, training should have stopped earlier. If the learned gain is above
# the gold one, the difference exists on paper only.
#
# On held-out prompts, where nothing was optimised:

# %%
names = [n for n in study.prompters["configuration"].unique() if n != "No Fine-Tuning"]
measured = {}
for name in names:
    for label, values in {"learned": "proxy", "gold": "reward"}.items():
        scored = study.prompters.assign(reward=study.prompters[values])
        gain = paired_gain(scored, name, "No Fine-Tuning", resamples=2000)
        measured[name, label] = {key: gain[key] for key in ("gain", "low", "high")}
pd.DataFrame(measured).T.rename_axis(["prompter", "by the reward"]).round(3)

# %% [markdown]
# Gains over No Fine-Tuning, paired by prompt, with 95 % intervals over prompts, in the unit of
# $r^*$. The difference between the two rows of a prompter is the part of its success that only
# the learned reward sees. Do the two prompters differ by the gold reward?

# %%
if len(names) == 2:
    gain = paired_gain(study.prompters, names[1], names[0], resamples=2000)
    interval = f"[{gain['low']:+.3f}, {gain['high']:+.3f}]"
    apart = "told apart" if gain["low"] * gain["high"] > 0 else "not told apart"
    print(f"gold reward, {names[1]} minus {names[0]}: {gain['gain']:+.3f} {interval}, {apart}")

# %% [markdown]
# There is one run for each $\lambda$, so the interval covers prompts but not the luck of
# training. It shows what can happen, and not how often.
#
# What the prompters write, most frequent first:

# %%
written = study.prompters[study.prompters["configuration"].isin(names)]
suffix = [z.removeprefix(x).strip() for x, z in zip(written["prompt"], written["rewrite"])]
counts = written.assign(suffix=suffix).groupby("configuration", sort=False)["suffix"]
share = counts.value_counts(normalize=True).groupby(level=0, sort=False).head(3)
share = share.sort_index(level=0, sort_remaining=False)
text_table(share.rename("share of its rewrites").reset_index()).hide(axis="index")

# %% [markdown]
# ## What this means for a reward model whose truth is unknown
#
# Everything above that needed $r^*$ is out of reach for RM-Gemma-2B, for the paper, and for you.
# This is what remains, and what it is worth:
#
# * **Held-out accuracy is not a grade out of 100.** Its ceiling is the agreement of the labellers.
#   Label some pairs twice to measure the ceiling, before you call a model poor or good.
# * **Calibration can be checked, and should be.** It needs only held-out labels. But it holds
#   only for answers like those in the pairs, and a trained prompter moves away from them.
# * **A rising learned reward proves that the optimiser works, and nothing more.** Only something
#   that was not optimised can show that the answers got better: a second reward model learned
#   from other pairs, a judge that has been validated, or people.
# * **The KL can always be measured.** Report it beside the reward, as the figures here do. Choose
#   the leash and the step to stop at by the independent measure. The learned reward itself cannot
#   choose them.
# * **Bounds with $r_{\max}$ are about the reward inside them.** Computed with a learned reward,
#   they bound the learned gap and not the true one.
#
# The paper reports rewards by the same model that it trains on. Its Figure 2 shows that the
# optimiser works. The win rates of its Table 1, by another judge, are the evidence that the
# answers got better.

# %%
print(f"The reward learned {learned:.0%} of what its labels allow.")
for name in names:
    on_paper, true = (measured[name, label]["gain"] for label in ("learned", "gold"))
    print(f"{name}: {on_paper:+.3f} by the learned reward, {true:+.3f} by r*")
smallest = by_beta["lam"][best] == by_beta["lam"].min()
print(f"Estimated optimum: the gold gain is {'' if smallest else 'not '}largest at the smallest β.")

# %% [markdown]
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** How much of the noise ceiling is our choice of $s$? Predict the ceiling for labels with
# half the scale and with three times the scale, on the same held-out pairs.

# %% tags=["hide-cell"]
from scipy.special import logit

apart = study.config.scale * logit(tested["p_first"])  # r*(x, y1) - r*(x, y2)
for s in (study.config.scale / 2, study.config.scale, 3 * study.config.scale):
    p = expit(apart / s)
    print(f"s = {s:.2g}: noise ceiling {np.maximum(p, 1 - p).mean():.3f}")

# %% [markdown]
# **2.** A perfect selector keeps the answer with the highest gold reward. Which share of its gain
# does the learned reward reach, if both choose among all answers to a held-out prompt? The
# learned reward predicts single pairs badly. Does it select badly, too?

# %% tags=["hide-cell"]
proxy, gold = study.rewards()
picked = gold[np.arange(len(gold)), proxy.argmax(axis=1)]
reached, possible = (picked - gold.mean(axis=1)).mean(), (gold.max(axis=1) - gold.mean(axis=1)).mean()
print(f"gain by the learned reward {reached:.3f}, by the gold reward {possible:.3f}")
print(f"share {reached / possible:.0%}, among {gold.shape[1]} answers to each of {len(gold)} prompts")

# %% [markdown]
# **3.** Break the learned reward: for how many prompts is the answer that it likes best worse
# than an average answer, by the gold reward? Find the one where it is most wrong, and read the
# answer.

# %% tags=["hide-cell"]
worse = picked < gold.mean(axis=1)
print(f"worse than the average answer on {worse.sum()} of {len(gold)} prompts")
ids = study.test.pivot(index="id", columns="sample")["reward"].index
most = (gold.mean(axis=1) - picked).argmax()
answers = study.test[study.test["id"] == ids[most]].sort_values("sample", ignore_index=True)
columns = {"prompt": "prompt", "response": "the answer that the learned reward likes best"}
wrong = answers.loc[[proxy[most].argmax()], [*columns]].rename(columns=columns)
text_table(wrong.assign(**{"learned": proxy[most].max(), "gold": picked[most]})).hide(axis="index")

# %% [markdown]
# **What was found.** A reward can be learned from noisy labels, and how good it can become
# depends on the labels' noise. We then optimised it in three ways. In selection and reweighting,
# the gold gain and the learned gain differ, and the figures above show by how much. The last line
# tells whether a stiffer leash was a remedy for the estimated optimum. Two single runs cannot
# tell whether it protects a trained prompter.
