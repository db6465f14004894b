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
# **What you will know at the end.** Whether the trained prompter earns more than no prompter on
# prompts that chose nothing, by how much and with which uncertainty; how it compares with honest
# baselines; and what happens to the variance.

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
from alignpro.statistics import compare_runs, paired_gain, prompt_means, summary
from alignpro.experiments import Cell
from alignpro.report.kept_runs import reference_tables

style.use_style()
settings = load_preset(preset)
cell = Cell(settings, dataset, seed)

# %% [markdown]
# ## Five configurations
#
# The paper compares *No Fine-Tuning* with *Align-Pro*. Three baselines keep the comparison honest:
#
# * **Untrained prompter**: ρ_sft, the warm start alone. What PPO added is measured against it.
# * **Best constant suffix**: the hand-written suffix that was best on the *validation* prompts.
# * **Best suffix per kind**: an oracle, since it is told the kind of each question.
#
# Every configuration answers every test prompt several times, at the paper's temperature and
# truncation, and each answer comes from a rewrite of its own.

# %%
table = cell.evaluate()
result = summary(table, settings.evaluation.resamples)
size = result.iloc[0]
print(f"{size['prompts']:.0f} held-out prompts, {size['samples']:.0f} answers to each")
result[["mean", "mean_low", "mean_high", "variance", "within", "across"]].round(3)

# %%
training.mean_reward(result, dataset);

# %% [markdown]
# *Figure 2 of the paper, for the one cell trained here: mean held-out reward; bars are 95 %
# bootstrap intervals over prompts.* The intervals of single bars overlap more than the differences
# deserve, since all configurations answer the same prompts. The paired difference is sharper:

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
pd.DataFrame(gains, index=[f"Align-Pro − {name}" for name in others]).round(3)

# %% [markdown]
# The gain and its interval, paired by prompt: above zero where the whole interval is. The last row
# says how far the prompter stays behind an oracle that is told what it has to find out.
#
# ## Where the gain comes from

# %%
training.reward_by_kind(table);

# %% [markdown]
# *Mean reward by kind of question.* A prompter that writes the same thing everywhere would look
# like the best constant suffix; one that reads the prompt gains on several kinds at once.

# %%
kinds = table.groupby("id")["kind"].first()
training.paired_change(prompt_means(table), "No Fine-Tuning", "Align-Pro", kinds);

# %% [markdown]
# *Each test prompt's change of mean reward.* The average hides that some prompts lose.
#
# ## Variance
#
# The paper reports that the variance of the reward falls (its Figure 3), without saying whether it
# means the variance over the answers to one prompt or over prompts. The law of total variance
# splits it into the two.

# %%
training.reward_variance(result, dataset);

# %% [markdown]
# *Left: variance over all answers with 95 % intervals. Right: its two sources.* A reward that
# starts low and is bounded below has little room to vary; a prompter that lifts some answers far
# and leaves others behind then *raises* the variance. Whether it fell or rose here is printed
# below, as found.

# %%
before, after = result.loc["No Fine-Tuning"], result.loc["Align-Pro"]
for part in ("variance", "within", "across"):
    change = after[part] / before[part] - 1
    print(f"{part}: {before[part]:.4f} -> {after[part]:.4f} ({change:+.0%})")

# %% [markdown]
# ## More than one run
#
# One run proves little. Beside the run of this page stand the reference runs of other seeds that
# lie in the repository's `results/`, each with its configuration, versions and date.

# %%
tables = {**reference_tables(preset, dataset), f"seed {seed}": table}
runs = compare_runs(tables, resamples)
training.run_means(runs, f"One dot a run, held-out prompts of `{dataset}`");

# %% [markdown]
# *Mean held-out reward by configuration, one dot a training run.*

# %%
runs.T.round(3)

# %%
spread = runs["gain"]
print(
    f"gain over No Fine-Tuning in {len(spread)} runs: mean {spread.mean():+.3f}, "
    f"from {spread.min():+.3f} to {spread.max():+.3f}"
)
ahead = (runs["Align-Pro"] > runs["Best constant suffix"]).sum()
print(f"above the best constant suffix in {ahead} of {len(runs)} runs")

# %% [markdown]
# One column a run: mean held-out reward of each configuration, and the paired gain of Align-Pro
# over No Fine-Tuning with its standard error and 95 % interval over prompts.
#
# **Summary.** The prompter was judged on prompts that chose nothing, against baselines that a
# sceptic would ask for, with intervals. The numbers above are what was found, the variance
# included.
