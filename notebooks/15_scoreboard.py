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
# # The scoreboard
#
# **What you will know at the end.** For every claim of the paper: what this book found, at which
# scale, how sure it is, and where to look. Nothing on this page is typed in but the claims
# themselves, in our words, and what the paper reports; every number is computed here, or comes from
# the runs in `results/`, and every verdict follows from a rule.

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

from alignpro.report import scoreboard
from alignpro.config import load_preset
from alignpro.runs import RESULTS
from alignpro.report.kept_runs import kept_preset

results_of = kept_preset(preset)
theory = scoreboard.theory_rows(instances=200, seed=seed)
measured = scoreboard.measured_rows(load_preset(results_of))
elsewhere = scoreboard.elsewhere_rows()
verdicts = pd.concat([theory, measured, elsewhere])["verdict"]
verdicts.value_counts().to_frame("claims")

# %% [markdown]
# A measured claim counts once for each dataset. What has not been run counts as *not run*, and is
# named below.
#
# ## How a verdict is given
#
# | verdict | rule |
# |---|---|
# | verified exactly | proved in the book, and true of every random instance that is drawn here |
# | verified with a correction | not true of all of them as it stands; its correction is, and is proved |
# | not verified | the correction fails as well: the mistake would be this book's |
# | reproduced at CPU scale | the 95 % interval of the difference lies on the side that the paper says |
# | not reproduced at CPU scale | it lies on the other side |
# | cannot be told apart | it contains zero, or there is nothing to compare with |
# | needs the H100 | the paper's own models; this book has not run them |
# | not run | nothing of the kind lies in `results/` |
#
# The rules are `theory_verdict` and `measured_verdict` in `alignpro.report.scoreboard`. A verdict links to
# the section of the book that treats the claim (the links work in the built book).
#
# ## The theory
#
# In how many random instances a statement holds, and the largest *violation*: by how much the left
# side of an inequality exceeds the right, or for an identity the distance of the two sides. Up to
# 1e−6, on rewards with a range of 1, counts as none. A negative number is what was left, at least,
# before the inequality would have broken.

# %%
scoreboard.board(theory, ["place", "claim", "as stated", "correction", "corrected"])

# %% [markdown]
# *Every theoretical claim, on two hundred random instances.* The corrections are the book's: each is
# proved in the chapters on the theory, with the smallest example that calls for it. None of them
# takes the lemma or the theorem away; they say what the two need, and what must not be read into
# them.
#
# ## What was measured
#
# Differences are paired by prompt and run, intervals are over both. *RLHF is near* is read as: nearer
# to it than to No Fine-Tuning. That reading is ours; the paper shows bars.

# %%
ran = measured[measured["verdict"] != scoreboard.NOT_RUN]
scoreboard.board(ran, ["place", "claim", "paper", "where", "found"])

# %% [markdown]
# *Every measured claim, on every dataset that has been run.* One should not count verdicts: the rows
# share their runs, and a small model with a rubric for a reward is another experiment than the
# paper's. What carries over is the sign of an effect, not its size.

# %%
missing = measured[measured["verdict"] == scoreboard.NOT_RUN].groupby("claim", sort=False)
for claim, where in missing["where"]:
    print(f"not run: {claim} ({'; '.join(where)})")

# %% [markdown]
# `make reproduce` runs what is missing, except the learned reward, which
# `python -m alignpro learn-reward` makes.
#
# The reward judge above is not GPT-4. A language model that runs on a laptop was asked as well, and
# is not entered in the table, for these reasons:

# %%
for path in sorted((RESULTS / "judge").glob("*/*.jsonl")):
    said = pd.read_json(path, lines=True, dtype=False)
    known = said[said["preference"].notna()]
    print(
        f"{path.parent.name}, {path.stem}: a verdict in both orders for {len(known)} of {len(said)} "
        f"pairs; on {(known['a_first'] != known['b_first']).sum()} of these the orders differ"
    )

# %% [markdown]
# ## What needs more than this book has run

# %%
scoreboard.board(elsewhere, ["place", "claim", "paper"])

# %% [markdown]
# **Summary.** The mathematics of the paper holds, with corrections that its use requires. What its
# experiment finds is, at the scale of a laptop, what the second table says, neither more nor less.
# Its own scale is still to be run, and the code for it is here.
