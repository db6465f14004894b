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
# # Mean reward and variance on held-out prompts
#
# **The question.** Does the trained prompter earn more on prompts that played no part in any
# choice? At the end you will know by how much and how certainly, how it compares with fair
# baselines, and what happens to the variance.
#
# This page evaluates **this build's own run**: one dataset and one seed. One run proves little.
# [The page of all runs](11_matrix.ipynb) shows the kept runs of all datasets and seeds. Where the
# two differ, trust that page.

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
from alignpro.statistics import paired_gain, reward_summary
from alignpro.experiments import Cell
from alignpro.report.kept_runs import compare_runs, prompt_means, reference_tables

style.use_style()
settings = load_preset(preset)
cell = Cell(settings, dataset, seed)

# %% [markdown]
# ## Five configurations
#
# The paper compares *No Fine-Tuning* with *Align-Pro*. Three baselines keep the comparison honest:
#
# * **Untrained prompter**: $\rho_{\rm sft}$, the warm start alone. It shows what PPO added.
# * **Best constant suffix**: the hand-written suffix that was best on the *validation* prompts.
# * **Best suffix, told the kind**: this baseline is told the kind of each question. The prompter
#   is not.
#
# Every configuration answers every test prompt several times, with the paper's temperature and
# truncation. Each answer uses a new rewrite.

# %%
table = cell.evaluate()
result = reward_summary(table, settings.evaluation.resamples)
size = result.iloc[0]
print(f"{size['prompts']:.0f} held-out prompts, {size['samples']:.0f} answers to each")
columns = {"mean": "mean", "mean_low": "low", "mean_high": "high", "variance": "variance"}
result[[*columns]].rename(columns=columns).round(3)

# %%
training.mean_reward(result, dataset);

# %% [markdown]
# *Our counterpart of the paper's Figure 2, for this build's run: mean held-out reward, with 95 %
# bootstrap intervals over prompts.* All configurations answer the same prompts, so the intervals of
# single bars overlap too much. The paired difference is sharper:

# %%
resamples = settings.evaluation.resamples
gain = paired_gain(table, "Align-Pro", "No Fine-Tuning", resamples)
print(
    f"Align-Pro - No Fine-Tuning: {gain['gain']:+.3f}, "
    f"standard error {gain['standard_error']:.3f}, "
    f"95 % interval [{gain['low']:+.3f}, {gain['high']:+.3f}]"
)

# %%
others = [name for name in result.index if name != "Align-Pro"]
gains = [paired_gain(table, "Align-Pro", name, resamples) for name in others]
columns = {"gain": "difference", "low": "low", "high": "high", "effect_size": "effect size"}
pd.DataFrame(gains, index=others)[[*columns]].rename(columns=columns).round(3)

# %% [markdown]
# Align-Pro minus each other configuration, paired by prompt, with a 95 % interval. The effect
# size is the difference in standard deviations over prompts. A difference is told apart from zero
# if its whole interval is on one side of it. One row compares the prompter with the suffix that
# is told the kind.
#
# ## Where the gain comes from

# %%
training.reward_by_kind(table);

# %% [markdown]
# *Mean reward by kind of question, with 95 % intervals over prompts.* A prompter that always
# writes the same suffix would look like the best constant suffix. A prompter that reads the
# prompt gains on several kinds at once.

# %%
kinds = table.groupby("id")["kind"].first()
training.paired_change(prompt_means(table), "No Fine-Tuning", "Align-Pro", kinds);

# %% [markdown]
# *The change of the mean reward of each test prompt.* The average hides that some prompts lose.
#
# ## Variance
#
# The paper reports that the variance of the reward falls (its Figure 3). It does not say whether
# this is the variance over the answers to one prompt or over prompts. The law of total variance
# splits the total into these two parts.

# %%
training.reward_variance(result, dataset);

# %% [markdown]
# *Left: the variance over all answers, with 95 % intervals. Right: its two parts, within the
# answers to one prompt and across prompts.* A reward that starts low and is bounded below has
# little room to vary. A prompter that lifts some answers far and leaves others behind then
# *raises* the variance. The lines below show what happened here.

# %%
before, after = result.loc["No Fine-Tuning"], result.loc["Align-Pro"]
parts = {"variance": "all answers", "within": "answers to one prompt", "across": "across prompts"}
for part in parts:
    change = after[part] / before[part] - 1
    print(f"{parts[part]}: {before[part]:.4f} -> {after[part]:.4f} ({change:+.0%})")

# %% [markdown]
# ## More than one run
#
# One run proves little. Here is this build's run beside the kept runs of the same dataset in
# `results/`, each with its configuration, versions and date.

# %%
tables = {**reference_tables(preset, dataset), "this build": table}
runs = compare_runs(tables, resamples)
training.run_means(runs, f"One dot per run, held-out prompts of {dataset}");

# %% [markdown]
# *Mean held-out reward by configuration, one dot per training run.* Each run chooses its suffixes
# by its own answers to the validation prompts. So the suffixes differ from run to run, and with
# them the rewards of these baselines.

# %%
rows = {"gain": "gain over No Fine-Tuning", "standard_error": "its standard error",
        "low": "95 % interval from", "high": "95 % interval to", "effect_size": "effect size"}
runs[[*result.index, *rows]].T.rename(rows).round(3)

# %%
spread = runs["gain"]
print(
    f"gain over No Fine-Tuning in {len(spread)} runs: mean {spread.mean():+.3f}, "
    f"from {spread.min():+.3f} to {spread.max():+.3f}"
)
ahead = (runs["Align-Pro"] > runs["Best constant suffix"]).sum()
print(f"above the best constant suffix in {ahead} of {len(runs)} runs")

# %% [markdown]
# One column per run: the mean held-out reward of each configuration, and the paired gain of
# Align-Pro over No Fine-Tuning with its standard error and 95 % interval over prompts.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** How much wider does the interval of the gain become with half of the prompts? Predict a
# factor, then compute it.

# %% tags=["hide-cell"]
ids = sorted(table["id"].unique())
few = table[table["id"].isin(ids[::2])]
fewer = paired_gain(few, "Align-Pro", "No Fine-Tuning", resamples)
width, wider = gain["high"] - gain["low"], fewer["high"] - fewer["low"]
print(f"all {len(ids)} prompts: {width:.3f}; every other one: {wider:.3f}; about √2 is expected")

# %% [markdown]
# **2.** One run of the same recipe may look better than the best constant suffix by chance. What
# do the kept runs say together?

# %% tags=["hide-cell"]
from alignpro.report.kept_runs import kept_preset

kept = pd.concat(reference_tables(kept_preset(preset), dataset).values())
both = paired_gain(kept, "Align-Pro", "Best constant suffix", resamples)
told = "told apart" if both["low"] > 0 or both["high"] < 0 else "not told apart"
print(f"{both['gain']:+.3f} [{both['low']:+.3f}, {both['high']:+.3f}], {told} from zero")

# %% [markdown]
# **What was found.** The numbers above are those of this build's run, on prompts that played no
# part in any choice, beside baselines that a sceptic would ask for. The statement over all kept
# runs is on [the page of all runs](11_matrix.ipynb).
