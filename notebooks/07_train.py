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
# # Training the prompter
#
# **The question.** Can PPO train a prompter through a frozen LLM that only returns text? At the
# end you will know how the training works, what its learning curve and its KL look like, and what
# the prompter learns to write.

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

# %%
import pandas as pd

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.experiments import Cell
from alignpro.report.formulas import formula_table

style.use_style()
pd.set_option("display.max_colwidth", None)
settings = load_preset(preset)
cell = Cell(settings, dataset, seed)

# %% [markdown]
# ## The loop
#
# Each PPO step samples a batch of rewrites from the prompter $\rho$, asks the frozen LLM $\pi_F$
# for one answer to each, scores the answers against the original prompts, and updates $\rho$. A
# rewrite is the prompt with a *suffix*, a short instruction that $\rho$ writes. The reward of a
# suffix is $r(x,y)$ at its last token, minus $\lambda$ times the log-ratio
# $\log(\rho/\rho_{\rm sft})$ at every token. The sum of these log-ratios over the suffix
# estimates $\mathrm{KL}(\rho\|\rho_{\rm sft})$. Here $\rho_{\rm sft}$ is the untrained prompter,
# and $\lambda$ the leash of the theory. The sections below take the parts one by one: the two
# models, what the prompter is asked, its warm start, and the run.
#
# ## Two models, one of them closed
#
# The preset names a model for each role. The prompter $\rho$ gets a LoRA adapter, a small trained
# addition to its weights. The frozen LLM $\pi_F$ gets none, and training reads neither its
# weights nor its probabilities.
#
# On a CPU with AMX tiles, both models compute in bfloat16. With `int8` in the preset and
# AVX512-VNNI but no AMX, the layers that are not trained multiply in 8 bits, and with AVX512-BF16
# the layers beside the adapter multiply in 16. A step is then faster, and $\pi_F$ is a slightly
# different, but still fixed, model. Otherwise both compute in float32. Each run's card records
# the formats that it used.

# %%
formula_table(pd.DataFrame(
    {
        "role": [r"prompter \(\rho\)", r"frozen LLM \(\pi_F\)"],
        "model": [settings.models[role].source for role in cell.pair],
    }
)).hide(axis="index")

# %% [markdown]
# ## What the prompter is asked
#
# Without a meta-prompt, a prompter answers the prompt instead of rewriting it (the paper's App.
# C.1). The paper's wording is not available. Ours asks for a short instruction, which is added to
# the prompt: $x'=x+\text{suffix}$. So a rewrite always keeps $x$ word for word. The meta-prompt
# is the system message, and the user's message is $x$ alone.

# %%
from alignpro.texts import META_PROMPT

print(META_PROMPT[settings.prompter.form])

# %% [markdown]
# A model this small needs a hint of what an instruction looks like. A short supervised start
# shows it a menu of suffixes. Each of them comes equally often, never twice for one prompt before
# all others have come, and the learning rate falls to zero. The result is $\rho_{\rm sft}$, the
# reference of the KL leash. It should write every suffix of the menu about equally often,
# whatever the prompt: which suffix serves which kind of question, PPO has to find out, and it can
# only learn about suffixes that it tries.

# %%
import json

from IPython.display import display

untrained = cell.untrained()
kept = cell.run.folder / "coverage.json"  # absent where the preset has no warm start
if kept.exists():
    coverage = json.loads(kept.read_text())
    shares = pd.Series({**coverage["shares"], "(not on the menu)": coverage["off_menu"]})
    display(shares.map("{:.1%}".format).to_frame("share"))

# %% [markdown]
# The share of each suffix among rewrites of training prompts, before PPO. Where one is hardly ever
# written, a warning appears.

# %% [markdown]
# ## What the adapter sees
#
# This section explains one detail of the recipe. You can skip it at first.
#
# A LoRA adapter adds $BAh$ to what a layer computes from its input $h$. The small matrices $A$
# and $B$ are what is trained. Before training, $B$ is zero. A gradient step for one prompt then
# changes the policy for another prompt in proportion to the similarity of their $Ah$.
#
# The suffix starts at the last token of a chat prompt. There, $Ah$ is nearly the same for all
# prompts. A reward earned by one kind of question then pushes all kinds, and this noise hides
# what tells the kinds apart. With `lora_centred` in the preset, $A$ starts at the principal
# directions in which the training prompts *differ*, without their mean.

# %%
import numpy as np

from alignpro.fast.adapter import adapter_similarity, centre_adapter

encode, ask = untrained.policy.encode, untrained.messages
unseen = sorted(cell.prompts("validation"), key=lambda x: str(x.kind))
views = {"A at random": adapter_similarity(untrained.policy.model, encode(ask(unseen)))}
centre_adapter(untrained.policy.model, encode(ask(cell.prompts("train"))))
views["A centred"] = adapter_similarity(untrained.policy.model, encode(ask(unseen)))
del untrained  # its memory is wanted for training
kinds = np.array([str(x.kind) for x in unseen])
training.similarity_maps(views, kinds);

# %% [markdown]
# *How similar validation prompts look to the adapter before training, sorted by kind.* On the
# left, nearly everything has one colour. On the right there are blocks: prompts of one kind learn
# together, and different kinds learn separately.

# %%
same = kinds[:, None] == kinds
pairs = {"same kind": same & ~np.eye(len(kinds), dtype=bool), "different kinds": ~same}
print("centred in this run:", bool(settings.prompter.lora_centred))
rows = {t: {n: v.numpy()[p].mean() for n, p in pairs.items()} for t, v in views.items()}
pd.DataFrame(rows).T.rename_axis("mean cosine").round(2)

# %% [markdown]
# ## The run
#
# All numbers of PPO are in the preset. They are listed by their names there, and [The details of
# PPO, one by one](../book/ppo_details.md) tells why. The run is kept on disk: if it stops,
# the same call resumes it.

# %%
import dataclasses

set_here = {k: v for k, v in dataclasses.asdict(settings.ppo).items() if v is not None}
pd.Series(set_here, dtype=object).rename_axis("setting, ppo.").to_frame("value")

# %%
trained = cell.train()
metrics = pd.DataFrame(cell.run.read("metrics.jsonl"))
episodes = metrics["episode"].iloc[-1]
print(f"{len(metrics)} steps, {episodes} episodes, in {cell.run.folder.name}")

# %%
training.learning_curve(metrics);

# %% [markdown]
# *Training batches against the PPO step: thin lines are single batches, thick lines a running
# mean of five.* Top left is the reward, which PPO maximises. Top right is the price, the KL in
# nats per sequence. The two lower panels are the health signs to watch: if entropy and variety
# fall to zero, the policy has collapsed onto one suffix.

# %%
scores, kl = metrics["objective/scores"], metrics["objective/kl"]
early, late = scores.head(5).mean(), scores.tail(5).mean()
print(f"mean reward of a batch: {early:.3f} (first five), {late:.3f} (last five)")
print(f"KL at the end: {kl.tail(5).mean():.2f} nats per sequence")

# %% [markdown]
# These are rewards on training prompts, and the policy still explores. The next chapter measures
# the prompter on prompts that it has never seen.
#
# ## Where the recipe comes from
#
# The numbers of the warm start and of PPO were chosen by a study on the training and validation
# prompts of `help`. The test prompts were not read. Each trial trains for 1,440 calls of the
# frozen LLM, half of a full run. Its prompter then writes 12 rewrites for each of the 30
# validation prompts, and the mean reward of their answers is the trial's result. The rule of
# decision was written down before the trials were read. It is at the top of
# `tools/recipe_study.py`, which runs the trials.

# %%
from alignpro.runs import RESULTS

trials = pd.read_json(RESULTS / "recipe" / "trials.jsonl", lines=True)
trials["trial"] = trials["trial"].str.replace("half lam", "half the leash")
gain = trials["gain_over_constant"].map("{:+.3f}".format)
trials["gain"] = gain + " ± " + trials["gain_error"].map("{:.3f}".format)
columns = {
    "reward": "reward",
    "gain": "minus constant",
    "on_menu": "on menu",
    "mutual_information": "information",
    "reading_accuracy": "top two",
    "kl": "KL",
    "entropy": "entropy",
    "clip_fraction": "clipped",
}
shown = trials.set_index(["trial", "seed"])[list(columns)].rename(columns=columns)
shown.round(3)

# %% [markdown]
# One row per trial. Three changes to an earlier recipe were tested: the menu of all 18 suffixes
# instead of 12 neutral ones, a balanced warm start whose rate falls to 0, and a PPO rate that
# stays constant. *All three* has all of them, and each *all but* trial leaves one out. The other
# trials change the rate or the leash of *all three*. "Minus constant" is the gain over the best
# constant suffix on the same prompts, with its standard error. "Information" is the mutual
# information between kind and suffix, in nats. "Top two" is the share of rewrites whose suffix is
# one of the two that earn most for their kind, by 48 answers each. KL and entropy (nats per
# sequence) and the share of clipped ratios are means of the last five training steps.

# %%
training.recipe_trials(trials);

# %% [markdown]
# *Trials of the recipe on validation prompts.* Left: the mean reward, with one standard error
# over prompts; dashed lines are the best constant suffix and the best suffix told the kind,
# chosen on the same prompts among the same 18 suffixes. Right: how much the suffix tells about
# the kind of the question. It is 0 where all kinds get the same suffixes; the axis ends at log 5,
# one suffix for each kind.

# %% [markdown]
# By the rule, a change of one setting counts when it is larger than one standard error, paired by
# prompt:

# %%
from alignpro.report.html import text_table

compared = pd.read_csv(RESULTS / "recipe" / "comparisons.csv").round(3)
compared["trial"] = compared["trial"].str.replace("half lam", "half the leash")
text_table(compared.rename(columns=lambda name: name.replace("_", " "))).hide(axis="index")

# %% [markdown]
# Four settings matter. The menu of all 18 suffixes earns more than the neutral one. At the lower
# rate, a rate that falls freezes the run: its entropy is high, and hardly any ratio is clipped.
# Twice the rate earns more again, and four times the rate does not add to it. Half the leash
# $\lambda$ earns less: the policy settles on few suffixes before it has tried enough of them. At
# twice the rate, falling and constant are not told apart, so the rate stays constant. The
# balanced warm start is not told apart from the one before. It stays because its shares of the
# menu do not depend on chance. Each trial is one training run, and the standard errors are over
# prompts alone. Trials of half the batch, of twice the steps and of second seeds are in the
# study's list and have not been run.

# %% [markdown]
# ## Where the time goes

# %%
training.step_times(metrics);

# %% [markdown]
# *Median seconds by stage of a step.* The frozen LLM's answers and the update take most of the
# time. The KL leash costs one more forward pass, because the reference is the same model with its
# adapter switched off.
#
# ## Before and after
#
# Three held-out prompts, chosen at random by the seed. The table shows the answer to the prompt
# itself, and the answer to the trained prompter's rewrite.

# %%
import random

from alignpro.evaluation import evaluate, unchanged
from alignpro.runs import stage_seed

drawn = random.Random(seed).sample(cell.prompts("test"), 3)
rewriters = {"before": unchanged, "after": trained}
draw_seed = stage_seed(seed, "examples")
examples = evaluate(rewriters, cell.frozen, cell.reward, drawn, 1, draw_seed, False)
columns = ["configuration", "rewrite", "response", "reward"]
shown = examples.sort_values("id", kind="stable")[columns]
shown = shown.assign(reward=shown["reward"].map("{:.2f}".format))
text_table(shown).hide(axis="index")

# %% [markdown]
# There are two rows per prompt. Each shows the text sent to the frozen LLM, its answer, and the
# reward against the original prompt. Answers have a limit of tokens, so some stop in the middle of a
# sentence. Single answers are noisy, so one of the three may well be worse.
#
# ## What it learned to write

# %%
outputs = trained.propose(cell.prompts("train"), stage_seed(seed, "suffixes"))
asked = [style.KIND_LABELS[p.kind] for p in cell.prompts("train")]
written = pd.Series([str(o) for o in outputs]).groupby(asked)
share = written.value_counts(normalize=True).groupby(level=0).head(3)
share.rename_axis(["kind", "suffix"]).round(2).to_frame("share of its kind")

# %% [markdown]
# One suffix per training prompt, counted by kind. Where the kinds get different suffixes, the
# prompter has learned to recognise the kind of a question. Nobody told it the kind.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** Read the health signs. Each of these would mean trouble: a mean KL clearly below zero, a
# clipped share near one, or a single rewrite for a whole batch. (One batch may have a KL slightly
# below zero, since its KL is an estimate from samples.) How do you expect the four numbers below
# to move during a healthy run? Compare the first five steps with the last five.

# %% tags=["hide-cell"]
signs = {
    "objective/kl": "KL, nats",
    "objective/entropy": "entropy, nats",
    "policy/clipfrac_avg": "share clipped",
    "val/distinct_outputs": "share of distinct rewrites",
}
ends = {"first five": metrics.head(5), "last five": metrics.tail(5)}
pd.DataFrame({name: part[[*signs]].mean() for name, part in ends.items()}).rename(signs).round(3)

# %% [markdown]
# **2.** PPO maximises the reward minus $\lambda$ KL. Did that objective rise as well, or did the
# KL eat the gain? Predict, then compute.

# %% tags=["hide-cell"]
objective = scores - settings.ppo.lam * kl
paid = settings.ppo.lam * kl.tail(5).mean()
print(f"reward: {late - early:+.3f}, paid for KL: {paid:.3f}")
print(f"objective: {objective.tail(5).mean() - objective.head(5).mean():+.3f}")

# %% [markdown]
# **What was found.** PPO trained a LoRA adapter on a small model through a frozen LLM that only
# returns text. The curve, the KL and the texts above come from this build's own run.
