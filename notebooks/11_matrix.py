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
# **What you will know at the end.** What all runs of a preset say together: the paper's Figures 2
# and 3 with intervals over prompts *and* runs, how large the effects are and how small an effect
# these runs could have missed, and what the prompters came to write.
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
import pandas as pd

from alignpro.figures import matrix, style
from alignpro.config import load_preset
from alignpro.statistics import paired_gain
from alignpro.report.kept_runs import kept_preset, matrix_cards, matrix_metrics, matrix_summary, matrix_table

style.use_style()
results_of = kept_preset(preset)
settings = load_preset(results_of)
cards = matrix_cards(results_of)
columns = ["architecture", "configuration", "seed", "training_seconds", "date", "commit"]
named = cards.assign(architecture=cards["architecture"].map("".join), date=cards["date"].str[:10])
named.set_index("dataset")[columns]

# %% [markdown]
# One row a training run, with its wall time. What is missing from the paper's matrix is missing
# here too: only what was run is shown.

# %%
wanted = pd.MultiIndex.from_product([settings.datasets, settings.seeds], names=["dataset", "seed"])
kept = cards[cards["configuration"] == "align-pro"].set_index(["dataset", "seed"]).index
print(f"{len(wanted.intersection(kept))} of the preset's {len(wanted)} prompter runs are kept")
print("missing:", ", ".join(f"{d}/seed{s}" for d, s in wanted.difference(kept)) or "none")

# %% [markdown]
# ## Mean reward and variance
#
# Intervals are over prompts and over runs, drawn apart, since all runs of a dataset answer the same
# prompts. With two or three runs the share of the runs is estimated from very little, and a
# bootstrap over so few is too sure of itself.

# %%
table = matrix_table(results_of)
cells = matrix_summary(table, settings.evaluation.resamples)
matrix.paper_figure(cells, "mean", "mean reward r*", "Mean held-out reward");

# %% [markdown]
# *Figure 2 of the paper: mean held-out reward by dataset and configuration, with 95 % intervals.*

# %%
matrix.paper_figure(cells, "variance", "variance of the reward", "Variance of the reward");

# %% [markdown]
# *Figure 3 of the paper: variance of the reward over all answers, with 95 % intervals.* It splits
# into the variance over answers to one prompt, over prompts, and over runs:

# %%
parts = ["variance", "within", "across", "runs_apart", "runs", "prompts"]
cells.set_index(["architecture", "dataset", "configuration"])[parts].round(4)

# %% [markdown]
# ## How large, and how sure
#
# Differences are paired by prompt and run. *Effect size* is Cohen's d of the prompts' differences.
# *Detectable* is the least true difference that so many prompts and runs find with a power of 80 %:
# a gain below it may have been missed, and its absence proves nothing.

# %%
rows = {}
prompted = table[table["configuration"] != "RLHF"]
for (architecture, name), part in prompted.groupby(["architecture", "dataset"]):
    for base in part["configuration"].unique().tolist():
        if base != "Align-Pro":
            runs = part.loc[part["configuration"] == base, "seed"]
            rows[architecture, name, base] = paired_gain(
                part[part["seed"].isin(runs)], "Align-Pro", base, settings.evaluation.resamples
            )
gains = pd.DataFrame(rows).T.rename_axis(["architecture", "dataset", "Align-Pro minus"])
gains[["gain", "low", "high", "effect_size", "detectable"]].round(3)

# %%
for (architecture, name, base), gain in gains.iterrows():
    found = "above" if gain["low"] > 0 else "below" if gain["high"] < 0 else "not told apart from"
    print(f"{architecture}, {name}: Align-Pro is {found} {base!r}")

# %% [markdown]
# ## Choosing, without training
#
# *Best of n rewrites* draws n rewrites of the untrained prompter, lets the frozen LLM answer each once,
# keeps the one whose answer scored best, and is measured on new answers to it. Only one answer speaks
# for each rewrite, so that what is kept may be the luckiest and not the best. What sixteen add to four:

# %%
chosen = table[table["configuration"].isin(["Best of 4 rewrites", "Best of 16 rewrites"])]
more = {
    key: paired_gain(part, "Best of 16 rewrites", "Best of 4 rewrites", settings.evaluation.resamples)
    for key, part in chosen.groupby(["architecture", "dataset"])
}
pd.DataFrame(more, index=["gain", "low", "high", "detectable"]).T.round(3)

# %% [markdown]
# *Best of 16 minus best of 4, with 95 % intervals.* A trained prompter has learned from the answers of all
# its steps, and pays for them once; choosing pays n answers for each new prompt.
#
# ## Every answer
#
# A mean hides its answers. Below each cloud of single answers stand the quartiles, and a dot for
# the mean of each prompt.

# %%
order = [n for n in style.COLORS if n in set(table["configuration"])]
matrix.reward_distributions(table, order);

# %% [markdown]
# *Rewards of single answers.* The rubric is a product, so that an answer that misses one of its
# terms falls far: the clouds have more than one bulge.
#
# ## Learning, run by run

# %%
metrics = matrix_metrics(results_of)
prompters = metrics[metrics["configuration"] == "Align-Pro"]
matrix.learning_bands(prompters);

# %% [markdown]
# *Reward and KL of training batches: the mean over runs, and the range from the lowest to the
# highest, smoothed over five steps.*
#
# ## What the prompter came to write

# %%
shown = table[table["dataset"] == dataset]
matrix.suffix_shares(shown, ["Untrained prompter", "Align-Pro"]);

# %% [markdown]
# *Share of each suffix within a kind of question, before and after training.* A prompter that reads
# the question writes different suffixes for different kinds.
#
# **Summary.** The figures are the paper's, the numbers are those of the runs in `results/`, with
# what they could not have seen named beside what they found.
