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
# # What a crash costs
#
# **The question.** A training run takes minutes on a laptop and hours on a GPU. What is lost when it is
# killed, when the disk is full, when a second process starts on it, or when a bit of a kept file flips?
# At the end you will know what each stage does under each fault, and what the same command does next.
#
# **In short:** repeat the same command. It goes on from the last checkpoint, which a preset writes every
# `checkpoint_every` steps of PPO. Answers that a server has given are kept and not paid for again.
#
# The table below is not a promise but a measurement. `tools/crash_matrix.py` runs every stage at smoke
# scale, lets a fault strike in the middle of it, runs the same stage again, and compares what it leaves
# with the outcome of an undisturbed run.

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
preset = "cpu"  # this page reads a kept file, whatever the preset

# %% tags=["hide-input"]
import json

import pandas as pd
from IPython.display import display

from alignpro.figures.style import use_style
from alignpro.report.html import text_table
from alignpro.runs import RESULTS

use_style()
kept = json.loads((RESULTS / "crash_matrix.json").read_text())
rows = pd.DataFrame(kept["rows"])
right = sum(value is True for value in rows["right"])
print(f"{right} of {len(rows)} pairs of a stage and a fault are right")
print(f"run on {kept['date'][:10]} with torch {kept['versions']['torch']}")

# %% [markdown]
# ## The faults
#
# A signal or a full disk strikes at one moment: at the file-system event in the middle of those that the
# stage makes when nothing goes wrong.
#
# * **SIGKILL, SIGINT, SIGTERM** end the process: as the kernel does when memory runs out, as Ctrl-C does,
#   and as a job scheduler does.
# * **Disk full** and **read-only**: the stage writes to a disk of its own. It is filled up in the middle,
#   or is read-only from the start: the files that a stage holds open keep a disk from turning read-only
#   later. Before the second try the fault is undone, as a user would do.
# * **Second process**: the first one is halted, the same stage is started beside it, and then the first
#   goes on.
# * **Truncated file** and **flipped bit**: each table, file of weights, user's prompt file, store of
#   verdicts, executed notebook or rendered notebook that belongs to the finished stage is damaged in
#   turn, and the stage is run again.
# * **Clock set back**: the process is killed, all files are dated a day ahead, and the clock of the
#   second try is a day behind.
#
# A pair is right where the first try ends without a traceback and the second gives the undisturbed
# result, file by file. A damaged file must be refused by its name, or made again to the same result; a
# user's own file with another text must make another run. Times, and notes on how a run went, are not
# compared. The stage `render` makes a book of two pages, as `tools/book.py` does, but with Jupyter Book
# in its own process: the fault then strikes while the pages are written.

# %%
words = {True: "right", False: "wrong", None: "not run"}
verdicts = rows.assign(verdict=[words[value] for value in rows["right"]])
grid = verdicts.pivot(index="stage", columns="fault", values="verdict").fillna("not run")
grid = grid.loc[rows["stage"].drop_duplicates(), rows["fault"].drop_duplicates()]
text_table(grid.reset_index()).hide(axis="index")

# %% [markdown]
# *Not run* marks a pair that this machine could not run, or that has not been run yet.
#
# ## What happened
#
# One table per stage: the fault, what the stage did when it struck, and what the same command did next.
# *Refused by name* lists the damaged files that an error named; the others were made again.

# %% tags=["hide-output"]
for stage, part in rows.groupby("stage", sort=False):
    told = {"did": "when it struck", "then": "the same command"}
    shown = part[["fault", "did", "then"]].rename(columns=told)
    display(text_table(shown, stage, columns={"fault": "17%"}).hide(axis="index"))

# %% [markdown]
# ## What is paid twice
#
# Where a server answers, calls cost money. The frozen LLM behind an endpoint and the judge keep each
# answer as it comes. The table counts the calls of an undisturbed run, those that the first try made
# before the fault, and those that both tries made beyond the undisturbed run: the calls under way when
# the fault struck, and the requests by which a new process finds out what the server honours.

# %%
if "calls" in rows:
    paid = rows.dropna(subset=["calls"])[["stage", "fault", "calls", "before", "extra"]]
    names = {"calls": "calls undisturbed", "before": "before the fault", "extra": "extra calls"}
    paid = paid.astype(dict.fromkeys(names, int)).rename(columns=names)
    display(text_table(paid).hide(axis="index"))

# %% [markdown]
# ## What we found
#
# * What a stage has finished is kept, and the same command goes on from there.
# * A second process on a run is refused by the id of the first one, or does the same work beside it
#   where the stage is short and writes its result at once.
# * A file that was cut or changed is refused by its name or made again. It is not taken for a good one.
#
# The limits: a killed process leaves a hidden folder with what it was about to write, which you may
# delete. The stages are at smoke scale, and the faults strike at one moment of each. A disk that returns
# wrong data under the right hash is beyond any of this.
