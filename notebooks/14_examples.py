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
# # Examples, chosen by rules
#
# **The question.** What do the answers behind the means look like? At the end you will have seen prompts
# as they were asked and as the prompter rewrote them, with both answers and both rewards, as in the
# paper's App. C.3. You will know what a prompter gains where it gains most, and what can be learned from
# where it loses most.
#
# Nobody picked these examples. A page of hand-picked answers can prove anything. So fixed rules choose
# from the runs in `results/`, and losses are shown just like gains.

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
import numpy as np
import pandas as pd
from IPython.display import display

from alignpro.config import load_preset
from alignpro.figures.style import use_style
from alignpro.report.examples import (
    LARGEST_GAIN,
    LARGEST_LOSS,
    RANDOM,
    choose_examples,
    example_table,
)
from alignpro.report.html import text_table
from alignpro.report.kept_runs import kept_preset, matrix_table, prompt_means

use_style()
results_of = kept_preset(preset)
settings = load_preset(results_of)
answers = matrix_table(results_of, files=["evaluation"])
answers = answers[answers["configuration"].isin(["No Fine-Tuning", "Align-Pro"])]
several = answers["architecture"].nunique() > 1
cells = {
    f"{dataset}, {architecture}" if several else dataset: part
    for (architecture, dataset), part in answers.groupby(["architecture", "dataset"])
}

# %%
print(f"results of the preset {results_of}: {', '.join(cells)}")
missing = [name for name in settings.datasets if name not in set(answers["dataset"])]
print("not run:", ", ".join(missing) or "nothing is missing")

# %% tags=["answers-data", "remove-cell"]
# The page on which readers browse the answers takes them from here.
from IPython.display import JSON
from alignpro.report.browse import kept_answers

JSON(kept_answers(matrix_table(results_of, files=["evaluation"])) if settings.reward is None else {})

# %% [markdown]
# ## The rules
#
# A *pair* is an answer without a prompter and one with it, from the same run and sample. For each
# dataset we choose:
#
# * **two prompts at random**, by the seed of this page, each with its first pair;
# * **the largest gain**: the held-out prompt whose mean reward over all pairs rose most, with the pair
#   that rose most;
# * **the largest loss**: the prompt whose mean fell most (or rose least, if none fell), with the pair
#   that fell most.
#
# The last two rules show the most extreme pair of an extreme prompt. The mean of the prompt is given
# beside it, so that you can see how typical the pair is. Ties go to the first.

# %%
chosen = pd.concat([choose_examples(part, seed) for part in cells.values()])
columns = ["dataset", "rule", "kind", "prompt", "own", "change", "pairs"]
names = {"own": "change of this pair", "change": "mean change"}
text_table(chosen[columns].rename(columns=names), decimals=2).hide(axis="index")

# %% [markdown]
# *change of this pair* is that of the reward, from No Fine-Tuning to Align-Pro, in the pair that is shown
# below. *mean change* is its mean over all *pairs* of the prompt.
#
# ## Drawn at random

# %%
for _, example in chosen[chosen["rule"] == RANDOM].iterrows():
    display(example_table(example))

# %% [markdown]
# *What was sent to the frozen LLM, and what it answered. Left: the prompt itself. Right: the prompt as
# the prompter rewrote it.* Both answers are scored against the prompt on the left. Many end in the
# middle of a sentence, since answers are short on a laptop. The rubric asks for a complete sentence, so
# it lowers their reward.
#
# Expect answers like these for the next prompt. The other two rules show the ends of the range.
#
# ## The largest gain

# %%
for _, example in chosen[chosen["rule"] == LARGEST_GAIN].iterrows():
    display(example_table(example))

# %% [markdown]
# *The held-out prompt of each dataset that gained most.* The answer on the right has a higher reward.
# The reward checks form and subject. It does not check whether an answer is *true*.
#
# ## The largest loss

# %%
for _, example in chosen[chosen["rule"] == LARGEST_LOSS].iterrows():
    display(example_table(example))

# %% [markdown]
# *The held-out prompt of each dataset that lost most.*
#
# ## What a loss teaches
#
# A reward can fall for several reasons, and each has its own remedy. The rubric is a product, so its
# terms tell the reasons apart:

# %%
from alignpro.data import load_prompts
from alignpro.rewards import form_score, no_repetition, relevance
from alignpro.texts import Response

rows = []
if settings.reward is None:
    for _, row in chosen[chosen["rule"] == LARGEST_LOSS].iterrows():
        x = next(p for p in load_prompts(row["dataset"], "test") if p.id == row["id"])
        for side in ("before", "after"):
            y = Response(row[f"response_{side}"], row[f"ended_{side}"])
            terms = relevance([x], [y]).item(), form_score(x, y), no_repetition(y)
            rows.append([row["dataset"], x.kind, side, *terms, row[f"reward_{side}"]])
names = ["dataset", "kind", "answer", "relevance", "form", "no repetition", "reward"]
text_table(pd.DataFrame(rows, columns=names), decimals=2).hide(axis="index")

# %% [markdown]
# The table is empty if the reward is a reward model, which is one number without terms.
#
# * If **form** falls, the prompter asked for the wrong kind of answer. It misread the question, or its
#   suffix serves the average question and not this one. More training or a looser leash may mend that.
# * If **relevance** or **no repetition** falls, the prompter asked for something that the frozen LLM does
#   badly. The answer follows the suffix and loses the subject. No prompter can mend that: an answer that
#   the frozen LLM cannot give to any rewrite is out of reach (C7).
# * If hardly any term changes, the change may be **chance**.
#
# How much of the extremes is chance? We choose the extreme prompts again, on every other sample only,
# and look at the same prompts on the remaining samples.

# %%
luck = {}
for cell, part in cells.items():
    halves = [prompt_means(part[part["sample"] % 2 == half]) for half in (0, 1)]
    chose, other = (means["Align-Pro"] - means["No Fine-Tuning"] for means in halves)
    for rule, name in ((LARGEST_GAIN, chose.idxmax()), (LARGEST_LOSS, chose.idxmin())):
        luck[cell, rule] = {"on the half that chose it": chose[name], "other half": other[name]}
text_table(pd.DataFrame(luck).T.rename_axis(["dataset", "rule"]).reset_index()).hide(axis="index")

# %% [markdown]
# Where the first column is more extreme than the second, luck had a part. The most extreme of many
# noisy means is always partly luck. So the examples at the ends of the range are no evidence for the
# method or against it.

# %%
for cell, part in cells.items():
    means = prompt_means(part)
    change = (means["Align-Pro"] - means["No Fine-Tuning"]).round(9)
    print(f"{cell}: {(change > 0).sum()} prompts gained, {(change < 0).sum()} lost, "
          f"{(change == 0).sum()} stayed the same; mean change {change.mean():+.3f}")

# %% [markdown]
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** When the reward of a pair falls, which term of the rubric falls most often? Predict it, then count
# over the first answers of the first run.

# %% tags=["hide-cell"]
kept = kept_answers(matrix_table(results_of, files=["evaluation"])) if settings.reward is None else {}
terms, falls = ["relevance", "form", "no repetition"], []
for part in kept.values():
    for before, after in zip(part["answers"]["No Fine-Tuning"], part["answers"]["Align-Pro"]):
        if after[6] < before[6]:
            falls.append([after[3 + i] < before[3 + i] for i in range(3)])
print(f"of {len(falls)} pairs whose reward fell:")
for name, share in zip(terms, np.mean(falls, axis=0) if falls else []):
    print(f"  {name} fell in {share:.0%}")

# %% [markdown]
# **2.** Are the answers longer after training? And is the gain larger where they are?

# %% tags=["hide-cell"]
for cell, part in cells.items():
    means = part.pivot_table(index="id", columns="configuration", values=["tokens", "reward"])
    change = {name: means[name]["Align-Pro"] - means[name]["No Fine-Tuning"] for name in ("tokens", "reward")}
    print(f"{cell}: {change['tokens'].mean():+.1f} tokens; correlation with the change of the reward "
          f"{change['tokens'].corr(change['reward']):+.2f}")

# %% [markdown]
# **What was found.** Examples show *what* a prompter changes: which suffix it adds, and how the frozen
# LLM responds. They cannot show *how often*. The counts above, and the intervals on
# [the page of all runs](11_matrix.ipynb), do that. A prompter that is better on average still makes some
# prompts worse, and the terms of the reward tell whether the prompter or the frozen LLM is the cause.
