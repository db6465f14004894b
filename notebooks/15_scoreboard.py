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
# **The question.** What does this book find about each claim of the paper? At the end you will know the
# finding for every claim, its scale, how sure it is, and where to read more. Only the claims themselves,
# in our words, and what the paper reports are typed in. Every number is computed here or comes from the
# runs in `results/`, and every verdict follows from a rule.
#
# What was run: SmolLM2-135M-Instruct as the prompter and as the frozen LLM, 750 prompts of our own in three
# datasets (`help`, `chat`, `reasoning`), and a rubric of form as the reward, between 0 and 1.

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

from alignpro.config import load_preset
from alignpro.figures import style
from alignpro.figures.answer import effects
from alignpro.report import scoreboard
from alignpro.report.answer import answer_rows, answer_table, by_dataset
from alignpro.report.html import text_table
from alignpro.report.kept_runs import kept_preset
from alignpro.report.scoreboard import NOT_RUN
from alignpro.runs import RESULTS

style.use_style()
results_of = kept_preset(preset)
theory, remarks = scoreboard.theory_rows(instances=200, seed=seed)
rows = scoreboard.measured_rows(load_preset(results_of))
measured = by_dataset(rows)
elsewhere = scoreboard.elsewhere_rows()

# %% [markdown]
# ## This book's answer

# %% tags=["answer-figure"]
effects(measured);

# %% [markdown]
# *Every measured claim on every dataset that was run: the difference and its 95 % interval over prompts
# and runs. Blue has the sign that the claim names, orange the opposite one, and grey is not told apart from
# zero. A claim about the variance names a fall, so there a point right of zero is orange.*

# %% tags=["answer-table"]
answer_table(answer_rows(theory, remarks, rows, elsewhere))

# %% [markdown]
# ## What was measured, at a glance
#
# One row per claim, one column per dataset:

# %%
ran = measured[measured["verdict"] != NOT_RUN]
glance = measured.pivot(index="claim", columns="where", values="verdict")
glance = glance.loc[measured["claim"].unique(), measured["where"].unique()].fillna("")
text_table(glance.reset_index()).hide(axis="index")

# %% [markdown]
# *Same sign* means that the whole 95 % interval of the difference has the sign that the claim names. It
# does not mean that the paper's numbers were reproduced. Models, data and judge are other ones: a small
# model on a laptop, 750 prompts of our own, and a rubric in place of a reward model. A sign can carry
# over, but a size cannot. The claim about the best constant suffix is ours: the paper has no such baseline.
#
# Do not count the verdicts. The rows share their runs, so they are not independent. Nor are the intervals
# widened for their number: of twenty such intervals, one is expected to miss its true value.
#
# ## How a verdict is given
#
# | verdict | rule |
# |---|---|
# | verified exactly | proved in the book, and true of every random instance drawn here |
# | verified with a correction | not true of all of them; its correction is, and is proved |
# | not verified | the correction fails as well, so the mistake would be this book's |
# | confirmed | (remarks) false in some instances without the remark, true in all with it |
# | same sign at small scale | the whole 95 % interval of the difference is on the side that the claim names |
# | opposite sign at small scale | the whole interval is on the other side |
# | not told apart | the interval contains zero, or there is nothing to compare with |
# | too few prompts | fewer than six, which cannot be significant at 5 % even if all agree |
# | not run: needs … | about the paper's own models or judge, which this book has not run |
# | not run | `results/` has no such run |
#
# The rules are `theory_verdict`, `remark_verdict` and `measured_verdict` in
# `alignpro.report.scoreboard`. In the built book, each verdict links to the section that treats the
# claim.
#
# ## The theory
#
# **What is quoted, and what is reconstructed.** The text of the paper that this book was written from
# has lost all formulas; only their labels, (1) to (36), are left. So the formulas in these tables are
# reconstructed, from the paper's prose and from the steps of its proofs. Words in quotation marks are
# quoted. The chapter [The setting](../book/setting.md) lists what comes from where.
#
# The table shows in how many random instances a statement holds, and its largest *violation*. For an
# inequality the violation is the left side minus the right, for an identity their distance. Rewards have
# a range of 1, and a violation of at most 1e−6 counts as none. A negative number is the smallest margin
# by which the inequality held, and 0 is a number below 1e−12, which is rounding.

# %%
scoreboard.board(theory, ["place", "claim", "as stated", "correction", "corrected"])

# %% [markdown]
# *Every theoretical claim, on two hundred random instances.* Three corrections are errors of the text
# (E1 to E3): a name in a proof, and two sentences on what the bound does. The fourth makes the remark on
# the KL budget exact. None of them takes away the lemma or the theorem.
#
# The next table is not about claims of the paper. It lists what must be read into Theorem 6.1 to make it
# true (R1 to R4), and three limits of its use (L1 to L3). Where the paper's text decides between two
# readings (R2 by the steps of its proof, R3 by its Eq. 4), it decides for the right one.

# %%
scoreboard.board(remarks, ["kind", "without", "holds without", "with", "holds with"])

# %% [markdown]
# *Four hypotheses to read in and three limits of use, on random instances.* Each remark is needed: the
# statement without it fails in some instances, and with it in none. The proofs are in the chapter [How
# far from RLHF?](../book/gap.md).
#
# ## The measurements in detail
#
# Differences are paired by prompt and run, and intervals cover both. We read *comes near RLHF* as
# nearer to RLHF than to No Fine-Tuning. That reading is ours; the paper shows bars. The table is long, so it
# is folded: it has what the paper reports, the number of runs and prompts, and other units.

# %% tags=["hide-output"]
scoreboard.board(ran, ["place", "claim", "paper", "where", "found"])

# %% [markdown]
# *Every measured claim, on every dataset that has been run.* The rows on the variance have an
# explanation: the chapter [Noise, chains, variance](../book/noise_chains_variance.md) derives when
# prompting lowers the variance, and predicts that it rises for this book's rubric.

# %%
missing = measured[measured["verdict"] == NOT_RUN].groupby("claim", sort=False)
for claim, where in missing["where"]:
    print(f"not run: {claim} ({'; '.join(where)})")

# %% [markdown]
# `make reproduce` runs what is missing, except the learned reward: `python -m alignpro learn-reward`
# makes that.
#
# The reward judge above is not GPT-4. We also asked a language model that runs on a laptop. It is not in
# the table, because its verdict often depends on the order in which the two answers are shown:

# %%
for path in sorted((RESULTS / "judge").glob("*/*.jsonl")):
    verdicts_kept = pd.read_json(path, lines=True, dtype=False)
    known = verdicts_kept[verdicts_kept["preference"].notna()]
    differ = (known["a_first"] != known["b_first"]).sum()
    print(f"{path.parent.name}, {path.stem}: {len(verdicts_kept)} pairs,", end=" ")
    print(f"{len(known)} with a verdict in both orders; in {differ} of these the orders differ")

# %% [markdown]
# ## What needs more than this book has run

# %%
scoreboard.board(elsewhere, ["place", "claim", "paper"])

# %%
for claim, rows in ran.groupby("claim", sort=False):
    counts = ", ".join(f"{verdict} ({n})" for verdict, n in rows["verdict"].value_counts().items())
    print(f"{claim} {counts}")

# %% [markdown]
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** How small an effect could these runs have missed? Take half the width of each interval as a first
# answer.

# %% tags=["hide-cell"]
half = ((ran["high"] - ran["low"]) / 2).groupby(ran["claim"], sort=False).max()
half.round(3).to_frame("half width, largest over datasets")

# %% [markdown]
# **2.** Which verdicts would change if the claims had been about the opposite sign? Predict, then apply
# the rule.

# %% tags=["hide-cell"]
from alignpro.report.measured_claims import Found

for _, row in ran.drop_duplicates("claim").iterrows():
    found = Found(row["value"], row["low"], row["high"], scoreboard.FEWEST_PROMPTS, "")
    print(f"{row['claim']} {row['where']}: {scoreboard.measured_verdict(found, -row['wanted'])}")

# %% [markdown]
# **What was found.** The mathematics of the paper holds, with corrections that its use requires. The
# list above gives what its experiment shows at the scale of a laptop: for each claim its verdicts, and
# on how many datasets. The paper's own scale has not been run. The code for it is here.
