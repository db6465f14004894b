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
# **The question.** How much could a prompter gain, before we train one? At the end you will know
# the reward of this book's experiments term by term, why no constant instruction can satisfy it,
# and how large the possible gain is.

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
# *rubric*: a short piece of code that anyone can read, so the true reward is always known. It
# takes the place of the true reward $r^*(x,y)$ in the paper's Eq. 1.

# %%
import pandas as pd

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.evaluation import best_suffixes
from alignpro.experiments import Cell
from alignpro.report.html import text_table

style.use_style()
pd.set_option("display.max_colwidth", 120)
cell = Cell(load_preset(preset), dataset, seed)

# %% [markdown]
# ## Five kinds of question
#
# Each of the project's three datasets mixes five kinds of question. The kind is a field of each
# row. The rubric reads it. The prompter never sees it and has to read the prompt.

# %%
from alignpro.data import KINDS

prompts = cell.prompts("train")
first = [next(p for p in prompts if p.kind == kind) for kind in KINDS]
labels = [style.KIND_LABELS[kind] for kind in KINDS]
text_table(pd.DataFrame({"kind": labels, "a training prompt": first})).hide(axis="index")

# %% [markdown]
# Each kind asks for its own form of answer:
#
# * a how-to asks for steps;
# * a definition asks for one complete sentence;
# * a choice asks for both options, weighed against each other, and a verdict;
# * a why asks for up to three reasons, listed or introduced by "because";
# * a closed question asks for Yes or No at the start.
#
# ## The rubric, term by term
#
# $$ r^*(x,y)=\text{relevance}\times\bigl(\tfrac14+\tfrac34\,\text{form}\bigr)\times\text{no
# repetition}\in[0,1] $$
#
# * **relevance**: twice the cosine of the sentence embeddings of the *original* prompt and the
#   answer, at most 1;
# * **form**: whether the answer has the form that this kind of question asks for;
# * **no repetition**: of the answer's word trigrams (three words in a row), the share that is
#   distinct.
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
scores = {
    "relevance": relevance([question] * 3, answers).tolist(),
    "form": [form_score(question, y) for y in answers],
    "no repetition": [no_repetition(y) for y in answers],
    "reward": rubric([question] * 3, answers).tolist(),
}
text_table(pd.DataFrame({"answer": answers} | scores)).hide(axis="index")

# %% [markdown]
# Steps on the right subject earn most. The correct answer in the wrong form earns a quarter of
# its relevance. The right form on the wrong subject earns little. The rubric rewards what a few
# lines of code can check. It does not check whether the advice is *true*. Keep that in mind for
# everything that follows.
#
# ## How much is there to gain?
#
# A *suffix* is a short instruction added to the prompt. We first try hand-written suffixes on the
# validation prompts: neutral ones, and some written for one kind of question each. If one suffix
# were best for every kind, a prompter could learn nothing from the prompt.

# %%
table = cell.suffix_table()
training.suffix_heatmap(table);

# %% [markdown]
# *Mean reward on validation prompts by suffix (rows) and kind of question (columns).* Read it
# column by column: the brightest cell is in a different row for nearly every kind.

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
# The first line is the start. The second is what one fixed suffix reaches. The third is what
# suffixes reach if they are chosen knowing the kind of each question. Both were chosen on these
# prompts, so both look a little too good. Only a prompter that *reads* can earn the difference
# between the second and the third.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** Which kind of question gains most if the suffix is chosen for its kind, rather than one
# suffix for all? Predict it from the heat map. The solution is in sample: both choices were made
# on the same prompts.

# %% tags=["hide-cell"]
told = means.max() - means.loc[best or "(nothing)"]
told.rename(style.KIND_LABELS).sort_values(ascending=False).round(3).to_frame("gain over the constant")

# %% [markdown]
# **2.** Break the reward: write an answer to the question about the egg that is no help to
# anybody and earns more than 0.8.

# %% tags=["hide-cell"]
useless = Response("1. Boil an egg. 2. An egg can boil. 3. How do I boil an egg?")
print(f"reward {rubric([question], [useless]).item():.2f}: three numbered lines about eggs, and no advice")

# %% [markdown]
# **3.** What is the cheapest change that beats the best constant suffix? Try a rule with no
# training at all: one suffix per first word of the prompt. Choose on the answers of all kept runs
# but the first, and measure on the first.

# %% tags=["hide-cell"]
from alignpro.report.kept_runs import kept_preset, matrix_table

kept = matrix_table(kept_preset(preset), files=["suffixes"])
kept = kept[kept["dataset"] == dataset].copy()
kept["first word"] = kept["prompt"].str.split().str[0].str.lower()
first_run = kept["seed"] == kept["seed"].min()
for rule in ("dataset", "first word", "kind"):
    chosen = kept[~first_run].groupby([rule, "configuration"])["reward"].mean().unstack().idxmax(axis=1)
    picked = kept[first_run & (kept["configuration"] == kept[rule].map(chosen))]
    print(f"one suffix per {rule}: {picked['reward'].mean():.3f} on answers that did not choose it")

# %% [markdown]
# **What was found.** The reward is transparent and bounded, with $r_{\max}=1$. No constant suffix
# is best for all kinds. The best constant suffix, chosen on validation prompts, is the baseline
# to beat. The best suffix per kind shows how far reading alone could take a prompter.
