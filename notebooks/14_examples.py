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
# **What you will know at the end.** What stands behind the means: prompts as they were asked and as
# the prompter rewrote them, both answers and both scores, like the paper's App. C.3; what a prompter
# gained where it gained most; and what can be learned from where it lost most.
#
# Nobody picked these examples. A page of hand-picked answers can prove anything, so the rules below
# choose, from the runs in `results/`, and losses are shown like gains.

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
from IPython.display import display

from alignpro.report import examples, html
from alignpro.config import load_preset
from alignpro.report.examples import LARGEST_GAIN, LARGEST_LOSS, RANDOM, choose_examples
from alignpro.report.kept_runs import kept_preset, matrix_table, prompt_means

results_of = kept_preset(preset)
settings = load_preset(results_of)
answers = matrix_table(results_of, files=["evaluation"])
answers = answers[answers["configuration"].isin(["No Fine-Tuning", "Align-Pro"])]
cells = {" ".join(cell): part for cell, part in answers.groupby(["architecture", "dataset"])}
print(f"results of the {results_of} preset: {', '.join(cells)}")
missing = [name for name in settings.datasets if name not in set(answers["dataset"])]
print("not run:", ", ".join(missing) or "nothing is missing")

# %% [markdown]
# ## The rules
#
# A *pair* is an answer without a prompter and one behind it, of the same run and sample. For each
# dataset that has been run:
#
# * **two prompts drawn at random**, by the seed of this page, each with its first pair;
# * **the largest gain**: the held-out prompt whose mean reward over all pairs rose most, with the
#   pair that rose most;
# * **the largest loss**: the prompt whose mean fell most (or rose least, where none fell), with the
#   pair that fell most.
#
# So the last two rules show what they are about at its clearest. How typical that is of the prompt,
# its mean says, which stands beside it. Ties go to what comes first.

# %%
chosen = pd.concat([choose_examples(part, seed) for part in cells.values()])
columns = ["dataset", "rule", "kind", "prompt", "own", "change", "pairs"]
html.text_table(chosen[columns].round(3).astype(str)).hide(axis="index")

# %% [markdown]
# *own* is the change of the reward from No Fine-Tuning to Align-Pro in the pair that is shown below,
# *change* its mean over all *pairs* of the prompt.
#
# ## Drawn at random

# %%
for _, example in chosen[chosen["rule"] == RANDOM].iterrows():
    display(examples.example_table(example))

# %% [markdown]
# *What was sent to the frozen LLM, and what it answered: on the left the prompt as it is, on the
# right as the prompter rewrote it.* Both answers are scored against the prompt on the left. Many end
# in the middle of a sentence, since answers are short on a laptop; a reward that asks for a complete
# sentence sees that as well.
#
# These are what a reader should expect of the next prompt. The other two rules show the ends of the
# range.
#
# ## The largest gain

# %%
for _, example in chosen[chosen["rule"] == LARGEST_GAIN].iterrows():
    display(examples.example_table(example))

# %% [markdown]
# *The held-out prompt of each dataset that gained most.* The answer on the right earns more. Whether
# it is also *truer* is another question, which a reward that checks form and subject does not ask.
#
# ## The largest loss

# %%
for _, example in chosen[chosen["rule"] == LARGEST_LOSS].iterrows():
    display(examples.example_table(example))

# %% [markdown]
# *The held-out prompt of each dataset that lost most.*
#
# ## What a loss teaches
#
# A reward can fall for different reasons, and they call for different remedies. The rubric is a
# product, so its terms tell them apart:

# %%
if settings.reward is None:
    from alignpro.data import load_prompts
    from alignpro.texts import Response
    from alignpro.rewards import form_score, no_repetition, relevance

    rows = []
    for _, row in chosen[chosen["rule"] == LARGEST_LOSS].iterrows():
        x = next(p for p in load_prompts(row["dataset"], "test") if p.id == row["id"])
        for side in ("before", "after"):
            y = Response(row[f"response_{side}"], row[f"ended_{side}"])
            terms = relevance([x], [y]).item(), form_score(x, y), no_repetition(y)
            rows.append([row["dataset"], x.kind, side, *terms, row[f"reward_{side}"]])
    names = ["dataset", "kind", "answer", "relevance", "form", "no repetition", "reward"]
    display(pd.DataFrame(rows, columns=names).round(2))
else:
    print(f"the reward {settings.reward} is one number: it has no terms to look into")

# %% [markdown]
# * Where **form** falls, the prompter asked for the wrong kind of answer: it misread the question, or
#   its suffix serves the average question and not this one. More training, or a looser leash, can
#   mend that.
# * Where **relevance** or **no repetition** falls, it asked for something that the frozen LLM does
#   badly: the answer follows the suffix and loses the subject. No prompter mends that; what the
#   frozen LLM cannot answer well to any rewrite is out of reach (C7).
# * Where hardly a term moves, look at the pairs: the change may be **chance**.
#
# How much of the extremes is chance can be measured. We choose them again, on every other sample
# only, and look at the same prompts on the samples that did not choose them.

# %%
luck = {}
for cell, part in cells.items():
    halves = [prompt_means(part[part["sample"] % 2 == half]) for half in (0, 1)]
    chose, other = (means["Align-Pro"] - means["No Fine-Tuning"] for means in halves)
    for rule, name in ((LARGEST_GAIN, chose.idxmax()), (LARGEST_LOSS, chose.idxmin())):
        luck[cell, rule] = {"on the half that chose it": chose[name], "other half": other[name]}
pd.DataFrame(luck).T.round(3)

# %% [markdown]
# The first column looks better (or worse) than the second wherever luck had its part: the most
# extreme of many noisy means is extreme partly by chance. That is why the examples at the ends of the
# range are no evidence, neither for the method nor against it, and why the paper's means have to be
# read with intervals.

# %%
for cell, part in cells.items():
    means = prompt_means(part)
    change = (means["Align-Pro"] - means["No Fine-Tuning"]).round(9)
    print(f"{cell}: {(change > 0).sum()} prompts gained, {(change < 0).sum()} lost, "
          f"{(change == 0).sum()} stayed; mean change {change.mean():+.3f}")

# %% [markdown]
# **Summary.** Examples show *what* a prompter changes: which suffix it adds, and what the frozen LLM
# makes of it. They cannot show *how often*; the counts above and the intervals of the chapter before
# do. A prompter that is better on average is still worse on some prompts, and a loss says whether the
# prompter or the frozen LLM has to be blamed.
