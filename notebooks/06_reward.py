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
# # A reward that asks for different things
#
# **What you will know at the end.** What the reward of this book's experiments is, term by term;
# why no constant instruction can satisfy it; and how much there is to gain, *before* any training.

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

# %% [markdown]
# The paper scores responses with RM-Gemma-2B, a learned reward model. On a laptop we use a
# *rubric*: a reward that anyone can read, so that its true value is always known. It plays the
# oracle r\*(x, y) of the paper's Eq. 1.

# %%
import pandas as pd

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.evaluation import best_suffixes
from alignpro.experiments import Cell

style.use_style()
pd.set_option("display.max_colwidth", 120)
cell = Cell(load_preset(preset), dataset, seed)

# %% [markdown]
# ## Five kinds of question
#
# Each of the project's three sets of prompts mixes five kinds. The kind is a field of the row. The
# rubric reads it, the prompter never does: it has to read the prompt.

# %%
from alignpro.data import KINDS

prompts = cell.prompts("train")
first = [next(p for p in prompts if p.kind == kind) for kind in KINDS]
pd.DataFrame({"kind": KINDS, "a training prompt": [str(p) for p in first]})

# %% [markdown]
# Each kind wants its own form of answer: steps for a how-to, one complete sentence for a
# definition, both options named and weighed for a choice, up to three reasons, linked by a
# "because" or listed, for a why, and a Yes or No at the start for a closed question.
#
# ## The rubric, term by term
#
# r\*(x, y) = relevance × (¼ + ¾ form) × no repetition, in [0, 1]:
#
# * **relevance**: twice the cosine of the sentence embeddings of the *original* prompt and the
#   answer, at most 1;
# * **form**: whether the answer has the form that this kind of question asks for;
# * **no repetition**: the share of distinct word trigrams.
#
# Three answers to one prompt show what each term does.

# %%
from alignpro.texts import Prompt
from alignpro.texts import Response
from alignpro.rewards import form_score, no_repetition, relevance, rubric

question = Prompt("How do I boil an egg?", dataset, "train", "howto")
answers = [
    Response("1. Boil water. 2. Lower the egg in. 3. Wait seven minutes."),
    Response("You boil an egg in hot water for about seven minutes."),
    Response("1. Buy paint. 2. Buy paint. 3. Buy paint."),
]
pd.DataFrame(
    {
        "answer": answers,
        "relevance": relevance([question] * 3, answers).tolist(),
        "form": [form_score(question, y) for y in answers],
        "no repetition": [no_repetition(y) for y in answers],
        "reward": rubric([question] * 3, answers).tolist(),
    }
).round(2)

# %% [markdown]
# The steps on the right subject earn most. The correct answer in the wrong form earns a quarter of
# its relevance, and the right form on another subject earns little, however tidy it is. The form
# rewards what can be checked in a few lines, not whether the advice is *true*: keep that in mind
# for everything that follows.
#
# ## How much is there to gain?
#
# Before a prompter is trained, hand-written suffixes are tried on the validation prompts: the
# neutral ones, which the prompter will be started from, and some written for the rubric. If one suffix were best for every kind, there would be nothing to learn from the prompt.

# %%
table = cell.suffix_table()
training.suffix_heatmap(table);

# %% [markdown]
# *Mean reward on validation prompts by suffix (rows) and kind of question (columns).* Read it by
# column: the brightest cell sits on another row for nearly every kind.

# %%
best, by_kind = best_suffixes(table)
means = table.pivot_table(index="configuration", columns="kind", values="reward")
by_suffix = means.mean(axis=1)
print(f"no suffix: {by_suffix['(nothing)']:.3f}")
print(f"best constant suffix: {by_suffix[best or '(nothing)']:.3f} ({best or '(nothing)'!r})")
print(f"best suffix per kind: {means.max().mean():.3f}")
for kind, suffix in by_kind.items():
    print(f"  {style.KIND_LABELS[kind]}: {suffix or '(nothing)'!r}")

# %% [markdown]
# The first line is where we start. The second is what a prompt engineer with no knowledge of the
# question reaches, and the third what one reaches who is told its kind (both chosen on these very
# prompts, so both flatter themselves a little). The distance between the second and the third is
# what only a prompter that *reads* can earn.
#
# **Summary.** The reward is transparent and bounded, r_max = 1. No constant suffix is best for all
# kinds, so the best constant suffix, chosen on validation prompts, is the baseline to beat, and
# the best suffix per kind is an oracle to measure against.
