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
# # All runs together
#
# **The question.** What do all runs of a preset show together? At the end you will know the book's
# counterparts of the paper's Figures 2 and 3, with intervals over prompts *and* runs. You will know how
# large the effects are, how small an effect these runs could have missed, whether a trained prompter
# beats the best constant suffix, and what the prompters write.
#
# Nothing is trained on this page. It reads the repository's `results/`, where each run keeps its
# configuration, versions, commit, hardware and every generated text. `make reproduce` adds to them.

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

from alignpro.config import load_preset
from alignpro.figures import matrix, style
from alignpro.report.kept_runs import (
    TRAINED,
    kept_preset,
    matrix_cards,
    matrix_metrics,
    matrix_rewards,
    matrix_table,
    recipe_changes,
)
from alignpro.report.html import text_table
from alignpro.report.reading import with_pooled_choices
from alignpro.statistics import paired_gain

style.use_style()
results_of = kept_preset(preset)
settings = load_preset(results_of)
resamples = settings.evaluation.resamples

# %%
cards = matrix_cards(results_of)
columns = {"training_seconds": "seconds", "date": "date", "commit": "commit"}
named = cards.assign(
    trained=cards["configuration"].map(TRAINED),
    training_seconds=cards["training_seconds"].round().astype(int),
    date=cards["date"].str[:10],
    commit=cards["commit"].str[:7],
)
named.set_index(["dataset", "trained", "seed"])[[*columns]].rename(columns=columns).sort_index()

# %% [markdown]
# One row per training run. *Align-Pro* trains the prompter, *RLHF* the frozen LLM itself. *seconds* is the
# time that training took.

# %%
wanted = pd.MultiIndex.from_product([settings.datasets, settings.seeds], names=["dataset", "seed"])
kept = cards[cards["configuration"] == "align-pro"].set_index(["dataset", "seed"]).index
print(f"{len(wanted.intersection(kept))} of the preset's {len(wanted)} prompter runs are kept")
print("missing:", ", ".join(f"{d}/seed{s}" for d, s in wanted.difference(kept)) or "none")

# %% [markdown]
# A preset may change after its runs were kept. Which of them were trained with other settings than those
# of today?

# %%
changes = recipe_changes(settings)
older = changes.astype({"seed": str}).groupby("dataset")["seed"].unique()
print("older runs:", "; ".join(f"{d}, seeds {', '.join(s)}" for d, s in older.items()) or "none")
shown = changes[["setting", "kept", "today"]].astype(str).drop_duplicates()
text_table(shown).hide(axis="index")

# %% [markdown]
# The [page on training](07_train.ipynb) trains the recipe of today, and shows the study that led to it.
#
# ## Mean reward and variance
#
# The reward r\* is the rubric, between 0 and 1. Intervals cover prompts and runs. The two are resampled
# independently, since all runs of a dataset answer the same prompts. Two or three runs tell little about how runs differ, so the intervals are
# widened as Student's t requires.

# %%
table = with_pooled_choices(matrix_table(results_of), results_of)
cells = matrix_rewards(table, resamples)
matrix.paper_figure(cells, "mean", "mean reward r*", "Mean held-out reward");

# %% [markdown]
# *Our counterpart of the paper's Figure 2: mean held-out reward by dataset and configuration, with 95 %
# intervals.* Compare Align-Pro (blue) with the constant suffix (yellow) and RLHF (green). The suffixes were
# chosen on validation prompts. *Best suffix, told the kind* uses the best suffix for each kind of question; a
# prompter has to find out the kind by itself. A missing bar was not run.

# %%
matrix.paper_figure(cells, "variance", "variance of the reward", "Variance of the reward");

# %% [markdown]
# *Our counterpart of the paper's Figure 3: variance of the reward over all answers, with 95 % intervals.*
# The paper reports that Align-Pro (blue) is below No Fine-Tuning (grey). The variance is the sum of three
# parts: over the answers to one prompt (*within*), over the prompts of one run (*across*), and over the runs
# (*runs apart*). Each is an unbiased estimate, and may fall below zero where it is small.

# %%
columns = {"variance": "variance", "within": "within", "across": "across",
           "runs_apart": "runs apart", "runs": "runs"}  # fmt: skip
by_cell = cells.set_index(["dataset", "configuration"])
shown = by_cell[[*columns]].rename(columns=columns).round(3)
shown.map(lambda number: number + 0)  # no minus sign before a zero

# %% [markdown]
# ## How large, and how sure
#
# Differences are paired by prompt and run. *Effect size* is Cohen's d of the prompts' differences.
# *Detectable* is the smallest true difference that this many prompts and runs find with a power of 80 %.
# A smaller one may have been missed, so its absence proves nothing.

# %%
rows = {}
prompted = table[table["configuration"] != "RLHF"]
for name, part in prompted.groupby("dataset"):
    for base in part["configuration"].unique().tolist():
        if base != "Align-Pro":
            runs = part.loc[part["configuration"] == base, "seed"]
            both = part[part["seed"].isin(runs)]
            rows[name, base] = paired_gain(both, "Align-Pro", base, resamples)
gains = pd.DataFrame(rows).T.rename_axis(["dataset", "Align-Pro minus"])
columns = {"gain": "difference", "low": "low", "high": "high", "detectable": "detectable",
           "effect_size": "effect size"}  # fmt: skip
gains[[*columns]].rename(columns=columns).round({"effect size": 1}).round(3)

# %% [markdown]
# ## Choosing, without training
#
# *Best of n rewrites* draws n rewrites of the untrained prompter. The frozen LLM answers each once, and
# the rewrite with the best answer is kept. It is then measured on new answers. Each rewrite is scored on one
# answer only, so the one that is kept may be lucky rather than good. What do sixteen add to four?

# %%
chosen = table[table["configuration"].isin(["Best of 4 rewrites", "Best of 16 rewrites"])]
more = {
    name: paired_gain(part, "Best of 16 rewrites", "Best of 4 rewrites", resamples)
    for name, part in chosen.groupby("dataset")
}
shown = pd.DataFrame(more, index=["gain", "low", "high", "detectable"]).T.rename_axis("dataset")
shown.rename(columns={"gain": "difference"}).round(3)

# %% [markdown]
# *Best of 16 minus best of 4, with 95 % intervals, on the datasets where both were run.* A trained prompter pays for its training once.
# Choosing pays n answers for each new prompt.
#
# ## Every answer
#
# A mean hides its answers. This figure shows a cloud of single answers for each configuration, their
# quartiles below it, and one dot per prompt for its mean.

# %%
order = [n for n in style.COLORS if n in set(table["configuration"])]
matrix.reward_distributions(table, order);

# %% [markdown]
# *Rewards of single answers: density above the line, quartiles on it with the median in white, and the mean
# of each prompt below.* Look for the weight that moves from 0.25 to the right. The clouds have several
# bulges, because the score for form is nearly all or nothing: an answer that misses its form gets a low reward
# whatever else it does.
#
# ## Learning, run by run

# %%
metrics = matrix_metrics(results_of)
prompters = metrics[metrics["configuration"] == "Align-Pro"]
matrix.learning_bands(prompters);

# %% [markdown]
# *Reward and KL of the training batches: the mean over runs, and the range from the lowest run to the
# highest, smoothed over five steps.* A curve that still rises at its end has not converged.
#
# ## What the prompters write

# %%
shown = table[table["dataset"] == dataset]
matrix.suffix_shares(shown, ["Untrained prompter", "Align-Pro"]);

# %% [markdown]
# *Share of each suffix within a kind of question, before and after training.* A prompter that reads the
# question writes different suffixes for different kinds. [The next page](19_reading.ipynb) measures how much
# that earns.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** The variance changes from No Fine-Tuning to Align-Pro. Does the change come from answers to one prompt
# that differ more, or from prompts that differ more?

# %% tags=["hide-cell"]
parts = by_cell[["variance", "within", "across"]]
change = parts.xs("Align-Pro", level="configuration") - parts.xs("No Fine-Tuning", level="configuration")
change.round(3)

# %% [markdown]
# **2.** How many prompts would tell Align-Pro from the best constant suffix with a power of 80 %, if the
# difference were the one that was found? The detectable difference falls as one over the square root of the
# number of prompts, if there are as many more runs.

# %% tags=["hide-cell"]
against = gains.xs("Best constant suffix", level="Align-Pro minus")
factor = (against["detectable"] / against["gain"]) ** 2
needed = pd.DataFrame({"prompts": against["prompts"], "needed": np.ceil(against["prompts"] * factor)})
needed.astype(int)

# %% [markdown]
# **3.** Read a health sign: had the runs converged? Compare the mean reward of the last ten batches with that
# of the ten before. Batches differ by chance, so compare the change with its standard error.

# %% tags=["hide-cell"]
scores = prompters.pivot_table(index="step", columns=["dataset", "seed"], values="objective/scores")
change = scores.tail(10).mean() - scores.iloc[-20:-10].mean()
error = scores.tail(20).std() * np.sqrt(2 / 10)
pd.DataFrame({"change": change, "standard error": error}).round(3)

# %% [markdown]
# ## What was found
#
# Where is the trained prompter above a baseline, below it, or not told apart from it?

# %%
found = np.select([gains["low"] > 0, gains["high"] < 0], ["above", "below"], "not told apart")
found = pd.Series(found, gains.index).unstack("dataset").fillna("not run")
found = found.loc[gains.index.unique("Align-Pro minus")].reset_index().rename_axis(columns=None)
text_table(found).hide(axis="index")

# %%
for name, part in by_cell["variance"].groupby(level="dataset", sort=False):
    before, after = (part[name, base] for base in ("No Fine-Tuning", "Align-Pro"))
    print(f"{name}: the variance went from {before:.3f} to {after:.3f}")

# %% [markdown]
# **What was found.** The table and the lines above are this book's findings on the experiment. They hold for
# the runs in `results/`, with a small model and a rubric for a reward. The
# [scoreboard](15_scoreboard.ipynb) sets them beside the paper's claims.
