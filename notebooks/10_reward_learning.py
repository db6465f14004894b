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
# **What you will know at the end.** How a reward model is learned from labelled pairs (the paper's
# Eq. 1) and how good it can become at all; whether its confidence can be believed; what optimising
# against it does to the *true* reward; and what of this carries over to a reward model whose truth
# nobody knows.

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
# The paper's reward comes from a reward model, RM-Gemma-2B, which was learned from pairs that
# people (and other models) labelled. So far this book has used the rubric instead. Here the rubric
# steps back: it is the oracle r\* that *labels* pairs, and all that a learner gets to see are the
# labels. What was learned can then be compared with what is true, which no real reward model
# allows.
#
# The whole study is one command, `python -m alignpro learn-reward` (about an hour with AMX tiles),
# which goes on where it was stopped. Its results (every answer, both rewards, every PPO step) are
# kept in `results/`, and this page reads them there. Where none are kept, the page makes the study
# of the smoke preset: tiny random models and seconds, which shows that every step works and nothing
# else. The first line printed says which of the two you see.

# %%
import pandas as pd

from alignpro.figures import rewards, style
from alignpro.config import load_preset
from alignpro.reward_learning.config import load_reward_learning
from alignpro.reward_learning.run_study import run_study
from alignpro.reward_learning.study import read_study, study_folder

style.use_style()
pd.set_option("display.max_colwidth", 160)
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
# The frozen LLM answers each training prompt several times, each time behind an instruction drawn
# from the neutral menu, or none: what the untrained prompter ρ_sft would send. Two answers to one
# prompt make a pair. The label is drawn, not computed: under Bradley–Terry the first answer is
# preferred with probability
#
# $$P(\text{first preferred}) = \sigma\!\left(\frac{r^*(x, y_1) - r^*(x, y_2)}{s}\right),$$
#
# and the scale *s* says how much the labellers err. The reward learned from such labels can at best
# be r\*/s plus a constant for each prompt, which no label can reveal.

# %%
pairs = study.train_pairs
print(f"{len(pairs)} training pairs of {pairs['id'].nunique()} prompts, s = {study.config.scale:g}")
shown = pairs.sample(3, random_state=seed)[["prompt", "first", "second", "p_first", "first_won"]]
shown.style.hide(axis="index").format({"p_first": "{:.2f}"}).set_properties(
    **{"text-align": "left", "vertical-align": "top", "white-space": "normal"}
)

# %%
contrary = ((pairs["first_won"] - 0.5) * (pairs["p_first"] - 0.5) < 0).mean()
close = pairs["p_first"].between(0.4, 0.6).mean()
print(f"labels that contradict r*: {contrary:.0%}; pairs that are nearly a coin toss: {close:.0%}")

# %% [markdown]
# Much of the noise sits in pairs of which neither answer is better. *s* was chosen before anything
# was learned, so that about as many labels follow r\* as labellers of InstructGPT agree with each
# other, not quite three of four.
#
# ## Learning
#
# An encoder, MiniLM with a scalar head on top, reads the text pair (prompt, response). TRL's
# `RewardTrainer` lowers −log σ(r(x, chosen) − r(x, rejected)), the likelihood of Eq. 1:
#
# ```python
# from alignpro.reward_learning.config import load_reward_learning
# from alignpro.reward_learning.learn import learn_reward
#
# reward = learn_reward("preferences.jsonl", "runs/my-reward", load_reward_learning("cpu"), seed=0)
# reward(["How do I boil an egg?"], ["Put it into boiling water for seven minutes."])
# ```
#
# The file has the columns prompt, chosen and rejected, as plain text or as the Hub's messages, so
# that UltraFeedback's binarized pairs go in as they are when there is a network. What is learned is
# a plain reward, which any `Cell(..., reward=...)` trains on.

# %%
if preference_file:
    from alignpro.reward_learning.learn import learn_reward

    mine = learn_reward(preference_file, "runs/my-reward", load_reward_learning("cpu"), seed)
    print(f"kept in runs/my-reward as {mine.name}")
else:
    print("no preference_file is set: the rubric's pairs are all that is learned from here")

# %% [markdown]
# ## How good can it be, and how good is it?
#
# A label that is partly a coin toss cannot be foretold. r\* itself agrees with it only with
# probability max(p, 1 − p), whose mean over pairs is the **noise ceiling**. The same holds for real
# preferences, where the ceiling is not known. Here it is, and so a second number can be given
# beside the accuracy on the drawn labels: the accuracy *expected* over all labels that might have
# been drawn, which has the luck of the labels taken out.

# %%
accuracy = study.accuracy()
rewards.accuracy_curve(accuracy);

# %% [markdown]
# *Held-out accuracy by number of training pairs, on prompts that no pair came from, with 95 %
# intervals over prompts; dashed, with its band, the noise ceiling.* Every point is a model of its
# own, learned from a random share of the pairs in the same number of epochs. What lies between the
# last point and the dashed line is what this encoder has not learned; nothing above the line can
# be.

# %%
table = accuracy.assign(
    value=[f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in accuracy[["value", "low", "high"]].values]
)
table.pivot(index="pairs", columns="measure", values="value")

# %%
final = accuracy[accuracy["pairs"] == len(pairs)].set_index("measure")["value"]
learned = (final["expected accuracy"] - 0.5) / (final["noise ceiling"] - 0.5)
print(f"of what can be known beyond a coin toss, the reward learned {learned:.0%}")

# %% [markdown]
# ## Is it calibrated?
#
# A difference of learned rewards is a log-odds: σ of it claims a probability. A reward model can
# order pairs well and still be far too sure, and an optimiser pays for that later, since it goes
# where the claims are largest.

# %%
from scipy.special import expit

from alignpro.reward_learning.held_out import calibration_error, reliability

tested = study.test_pairs
claimed = expit(study.margins())
by_bin = reliability(claimed, tested["first_won"].to_numpy())
rewards.reliability_diagram(by_bin);

# %% [markdown]
# *Claimed against observed preference on held-out pairs: dots with 95 % Wilson intervals, their
# area the number of pairs.* Dots on the dashed line mean that claims can be taken at their word.
# Dots below it on the right, and above it on the left, mean a reward that is surer than it may be.

# %%
truth = reliability(tested["p_first"].to_numpy(), tested["first_won"].to_numpy())
print(f"expected calibration error: {calibration_error(by_bin):.3f}")
print(f"the same for the true probabilities, by the noise of the bins: {calibration_error(truth):.3f}")
off = (claimed - tested["p_first"]).abs().mean()
print(f"mean distance of a claimed probability from the true one: {off:.3f}")

# %% [markdown]
# The last number is the one to worry about, and only an oracle can tell it. Calibration is a
# statement about averages: single claims can be far off in both directions and cancel in their bin.
#
# ## Over-optimisation, without training anything
#
# The simplest optimiser draws n answers and keeps the one that the learned reward likes best. It
# moves away from the answers' distribution by log n − (n − 1)/n nats, and what it expects can be
# computed exactly from the answers at hand, by both rewards. The learned one is multiplied by *s*,
# so that both have the unit of r\*, and both are shown as gains over a single answer.

# %%
shares = sorted({study.config.shares[0], 1.0})
curves = {f"{round(s * len(pairs))} pairs": study.best_of_n(s) for s in shares}
rewards.selection(curves);

# %% [markdown]
# *Gains of best-of-n by the reward learned from few pairs (left) and from all (right): squares,
# what the learned reward says was gained; dots, what r\* says, with 95 % intervals over prompts.*
# The squares rise by construction. The gap between the two is what the optimiser made out of the
# reward's errors: among n answers it finds the one that the reward overrates most.

# %%
for name, curve in curves.items():
    top = curve.loc[curve["gold"].idxmax()]
    end = curve.iloc[-1]
    print(f"{name}: gold is largest at n = {top['n']:.0f} ({top['gold']:+.3f}),", end=" ")
    print(f"at n = {end['n']:.0f} it is {end['gold']:+.3f} where {end['proxy']:+.3f} is claimed")

# %% [markdown]
# ## λ as the remedy
#
# The same answers, reweighted by exp(r/λ), estimate the *optimum* against the learned reward at
# each λ (Eq. 4). A long leash, to the right, lets it exploit every error. This is where a λ that is
# not too small earns its place: it costs reward that one can see, and saves reward that one cannot.

# %%
import numpy as np

leash = np.geomspace(1, 0.003, 12)
tilted = study.tilted(leash)
rewards.remedy(tilted);

# %% [markdown]
# *Gains of the optimum against the learned reward by λ: squares as claimed, dots as they are, with
# 95 % intervals.* The theory prices an error of the reward by ε²/(2λ), so that what a wrong reward
# can cost grows as λ falls; the distance between the curves is that price.

# %%
best = tilted.loc[tilted["gold"].idxmax()]
tilted.iloc[::2].round(3).set_index("lam").assign(overrated=lambda t: t["proxy"] - t["gold"])

# %%
print(f"largest true gain {best['gold']:+.3f} at λ = {best['lam']:.3g}, √KL = {best['sqrt_kl']:.2f}")
print(f"of {study.rewards()[0].shape[1]} answers a prompt, {best['ess']:.1f} carry the weight there")

# %% [markdown]
# Read the far right with care: where hardly one answer carries the weight, reweighting can go no
# further, however small λ becomes. A prompter that is trained can, since it writes what was never
# drawn.
#
# ## A prompter trained on the learned reward
#
# PPO as in the chapter on training, with two leashes and the learned reward in place of the rubric.
# The rubric is computed beside it at every step and changes nothing.

# %%
rewards.trained_prompters(study.metrics);

# %% [markdown]
# *Both rewards of the training batches against √KL, as gains over the first three batches; lines
# are running means in the order of the steps.* Over-optimisation is where the two lines part. Where
# the lower one bends down while the upper one goes on, every further step does harm.

# %%
rows = {}
for lam, run in study.metrics.groupby("lam"):
    both = run[["objective/scores", "objective/gold"]]
    gains = both - both.head(3).mean()
    ends = gains.tail(5).mean()
    peak = gains["objective/gold"].rolling(5, min_periods=3).mean().max()
    rows[f"λ = {lam:g}"] = {
        "√KL at the end": np.sqrt(max(run["objective/kl"].tail(5).mean(), 0)),
        "learned, gain": ends["objective/scores"],
        "gold, gain": ends["objective/gold"],
        "gold, best of the run": peak,
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Means of five batches, as gains over the first three. A gold gain at the end that lies clearly
# below the best of the run is a prompter that should have been stopped earlier; a learned gain that
# lies above the gold one is reward that exists on paper only.
#
# On held-out prompts, where nothing was optimised:

# %%
from alignpro.statistics import paired_gain

names = [n for n in study.prompters["configuration"].unique() if n != "No Fine-Tuning"]
measured = {}
for name in names:
    for label, values in {"gold": "reward", "learned": "proxy"}.items():
        judged = study.prompters.assign(reward=study.prompters[values])
        gain = paired_gain(judged, name, "No Fine-Tuning", resamples=2000)
        measured[name, label] = {key: gain[key] for key in ("gain", "low", "high")}
pd.DataFrame(measured).T.rename_axis(["prompter", "by the reward"]).round(3)

# %%
for name in names:
    claimed, true = (measured[name, label]["gain"] for label in ("learned", "gold"))
    print(f"{name}: {claimed:+.3f} by the learned reward, {true:+.3f} by r*")

# %% [markdown]
# Gains over no prompter, paired by prompt, with 95 % intervals over prompts, in units of r\*. The
# difference between the two lines of a prompter is the part of its success that only the learned
# reward sees. One run under each λ shows that it can happen, and not how often it does.
#
# What the prompters write, most frequent first:

# %%
written = study.prompters[study.prompters["configuration"].isin(names)]
suffix = [z.removeprefix(x).strip() for x, z in zip(written["prompt"], written["rewrite"])]
counts = written.assign(suffix=suffix).groupby("configuration", sort=False)["suffix"]
share = counts.value_counts(normalize=True).groupby(level=0, sort=False).head(3)
share = share.sort_index(level=0, sort_remaining=False)
share.round(2).to_frame("share of its rewrites")

# %% [markdown]
# ## What to conclude for a reward model whose gold is unknown
#
# Everything above that needed r\* is out of reach for RM-Gemma-2B, for the paper, and for you. What
# remains, and what it is worth:
#
# * **Accuracy on held-out pairs is not a grade out of 100.** Its ceiling is the agreement of the
#   labellers. Measure that, by labelling some pairs twice, before saying that a model is poor or
#   good.
# * **Calibration can be checked, and should be**, with nothing but held-out labels. A reward that
#   is too sure invites the optimiser. But it holds for the answers that the pairs came from, and
#   only for those: a trained prompter moves away from them.
# * **A rising learned reward proves that the optimiser works, and nothing more.** Only something
#   that was not optimised can say whether the answers got better: a second reward model learned
#   from other pairs, a judge that has been validated, or people.
# * **The KL is the one warning that is always there.** Report the reward together with it, as the
#   figures here do. Choose λ, and the step to stop at, by the independent measure, and prefer the
#   shorter leash where two do equally well.
# * **Bounds with r_max speak about the reward that is inside them.** Computed with a learned reward
#   they bound the learned gap, not the true one.
#
# In the paper, rewards are reported by the same model that they were trained on. Its Figure 2 shows
# that the optimiser works; the win rates of Table 1, by another judge, are the evidence that the
# answers got better.
#
# **Summary.** A reward model was learned from noisy labels, measured against the best that those
# labels allow, and then leaned on: by selection, by its own optimum, and by PPO. How far its word
# could be taken is in the figures above, and was visible only because here the truth is known.
