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
# # Does the prompter read the question?
#
# **The question.** A prompter that always adds the same suffix needs no training: a short search finds
# that suffix. Training pays only if the prompter *reads*, that is, if it gives different suffixes to
# different questions, and if this earns more than one suffix for all. At the end you will know whether it
# does, how many calls of the frozen LLM it needs, and what a simple search finds with the same calls.
#
# Nothing is trained on this page. It reads the kept runs of `results/`. Every choice was made on training
# or validation prompts, and every number is measured on test prompts.

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
preset = "cpu"
dataset = "help"
seed = 0

# %%
import numpy as np
import pandas as pd

from alignpro.config import load_preset
from alignpro.data import load_prompts
from alignpro.figures import reading as figures
from alignpro.figures import style
from alignpro.report import reading
from alignpro.report.html import text_table
from alignpro.report.kept_runs import matrix_table
from alignpro.statistics import paired_gain

style.use_style()
results_of = reading.PRESET  # the study was made for this preset, whatever runs the book
settings = load_preset(results_of)
resamples = settings.evaluation.resamples
table = reading.with_pooled_choices(matrix_table(results_of), results_of)
suffixes = matrix_table(results_of, files=["suffixes"])
datasets = [name for name in settings.datasets if name in reading.studied(results_of)]
runs = table[table["configuration"] == "Align-Pro"].groupby("dataset")["seed"].nunique()
print("runs by dataset:", ", ".join(f"{name} {runs[name]}" for name in datasets))

# %% [markdown]
# ## Against one suffix for all
#
# The best constant suffix is the hardest simple rival. We choose it once per dataset, among the same 18
# suffixes that the prompter's warm start shows. The choice uses the answers to the validation prompts of
# all runs together: six per prompt and suffix. A choice from one run's two answers is often another one,
# and would flatter the prompter.

# %%
chosen = {name: reading.pooled_choice(suffixes[suffixes["dataset"] == name]) for name in datasets}
shown = pd.DataFrame({name: {"for all": best, **by_kind} for name, (best, by_kind) in chosen.items()})
shown = shown.rename(index=style.KIND_LABELS).rename_axis("chosen for")
text_table(shown.reset_index()).hide(axis="index")

# %%
rows = {}
for name in datasets:
    part = table[table["dataset"] == name]
    for base in ("No Fine-Tuning", "Untrained prompter", reading.CONSTANT, reading.TOLD_THE_KIND):
        rows[name, base] = paired_gain(part, "Align-Pro", base, resamples)
gains = pd.DataFrame(rows).T.rename_axis(["dataset", "Align-Pro minus"])
columns = {"gain": "difference", "low": "low", "high": "high", "detectable": "detectable"}
gains[[*columns]].rename(columns=columns).astype(float).round(3)

# %% [markdown]
# *Differences of the mean held-out reward, paired by prompt and run, with 95 % intervals over prompts
# (within kinds of questions) and runs.* "Detectable" is the smallest true difference that these runs find
# with a power of 80 %. The last rival is told the kind of each question, which the prompter is not.

# %%
for name in datasets:
    gain = gains.loc[(name, reading.CONSTANT)]
    found = "above" if gain["low"] > 0 else "below" if gain["high"] < 0 else "not told apart from"
    interval = f"{gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    print(f"{name}: Align-Pro is {found} the best constant suffix, {interval}")

# %% [markdown]
# ## Learning against searching
#
# The prompter pays 2,880 calls of the frozen LLM for its training. What do the same calls buy without
# any training? Two searches draw random pairs of a training prompt and a suffix, and pay one call for
# each pair.
#
# * **Search for a constant** takes the suffix with the best mean reward.
# * **Classifier of kinds** takes the best suffix for each kind of question, and learns to tell the kinds
#   apart from the words of the training prompts. It is told the kinds of the training prompts. The
#   prompter is told no kind at all.

# %%
learned, searched, levels = {}, {}, {}
for name in datasets:
    asked = load_prompts(name, "train", settings.data.train, settings.data.hub)
    by_id = {x.id: str(x) for x in asked}
    calls = reading.search_calls(name)
    calls = calls.assign(prompt=calls["id"].map(by_id))
    answers, part = reading.every_suffix(name), table[table["dataset"] == name]
    tested = part.drop_duplicates("id")[["id", "prompt"]]
    learned[name] = reading.learning_curve(name, table)
    searched[name] = {s: reading.search_curve(s, calls, answers, tested) for s in reading.SEARCHES}
    means = part.groupby("configuration")["reward"].mean()
    levels[name] = means[["No Fine-Tuning", reading.TOLD_THE_KIND]].to_dict()
figures.held_out_curves(learned, searched, levels);

# %% [markdown]
# *Mean held-out reward against the calls of the frozen LLM. Thin blue lines are single runs. Bands hold the
# middle 95 % of 40 searches with random calls. Dashed lines need no call of their own: no prompter, and the
# best suffix of the validation prompts for one who is told the kind.* Look where the blue line crosses the
# lines of the searches, if it does.

# %%
rows = {}
for name in datasets:
    ends = {s: curve["reward"].set_axis(reading.CALLS) for s, curve in searched[name].items()}
    rows[name] = {"Align-Pro": learned[name].groupby("calls")["reward"].mean(), **ends}
at = {(n, who): curve for n, part in rows.items() for who, curve in part.items()}
shown = pd.DataFrame(at).T.rename_axis(["dataset", "learner"])
shown.columns = [f"{calls:,} calls" for calls in shown.columns]
shown.map("{:.3f}".format).replace("nan", "")

# %% [markdown]
# The last column of a search is after 2,850 calls: each training prompt once with each suffix.

# %% [markdown]
# ## Who gets which suffix

# %%
dataset = dataset if dataset in datasets else datasets[0]
answers, part = reading.every_suffix(dataset), table[table["dataset"] == dataset]
value = answers.pivot_table(index="configuration", columns="kind", values="reward")
value = value.loc[value.mean(axis=1).sort_values(ascending=False).index]
shares = {}
for who in ("Untrained prompter", "Align-Pro"):
    rows = part[part["configuration"] == who]
    shares[who] = pd.crosstab(reading.suffix_of(rows), rows["kind"], normalize="columns")
figures.kind_by_suffix(shares, value);

# %% [markdown]
# *Left: the mean held-out reward of each suffix by kind of question. Middle and right: how often the
# prompter writes it, before and after training.* A prompter that reads puts its weight where the left
# panel is bright.

# %% [markdown]
# ## How much it reads
#
# If the suffixes of a run are dealt to its prompts at random, nothing is left of the reading, and the
# suffixes are the same. The difference between *own* and *shuffled* is what reading earns.

# %%
rows = {}
for name in datasets:
    part, answers = table[table["dataset"] == name], reading.every_suffix(name)
    for who in ("Untrained prompter", "Align-Pro"):
        rows[name, who] = reading.reading(part[part["configuration"] == who], answers)
read = pd.DataFrame(rows).T.rename_axis(["dataset", "prompter"])
columns = {"on_menu": "on the menu", "top_two": "top two", "information": "information",
           "own": "own suffix", "shuffled": "shuffled"}  # fmt: skip
read[[*columns]].rename(columns=columns).round(3)

# %% [markdown]
# "On the menu" is the share of rewrites that add one of the 18 suffixes; the other columns are about
# these. "Top two" is the share whose suffix is one of the two that earn most for their kind of question.
# "Information" is what the suffix tells about the kind, in nats: 0 for the same suffixes everywhere, and
# log 5 = 1.61 for one suffix of its own for each kind.
#
# ## Where the gain comes from, and who loses

# %%
rows = {}
for name in datasets:
    part = table[table["dataset"] == name]
    for kind, one in part.groupby("kind"):
        paired = paired_gain(one, "Align-Pro", "No Fine-Tuning", resamples)
        by = one.groupby("configuration")[["reward", "ended"]].mean()
        rows[name, style.KIND_LABELS[kind]] = {
            "before": by.loc["No Fine-Tuning", "reward"], "after": by.loc["Align-Pro", "reward"],
            "gain": paired["gain"], "low": paired["low"], "high": paired["high"],
            "ended before": by.loc["No Fine-Tuning", "ended"], "ended after": by.loc["Align-Pro", "ended"],
        }  # fmt: skip
by_kind = pd.DataFrame(rows).T.rename_axis(["dataset", "kind"])
by_kind.astype(float).round(3)

# %% [markdown]
# *Mean held-out reward by kind of question without a prompter and with Align-Pro, and the share of answers
# that ended by themselves within the limit of tokens.* The rubric gives nothing for form to an answer that
# is cut off. Where the second pair of columns rises much, a part of the gain is that answers became short
# enough to end.

# %%
losers = by_kind[by_kind["gain"] < 0]
print("kinds that lose:", ", ".join("/".join(key) for key in losers.index) or "none")
for name in datasets:
    part = by_kind.loc[name]["gain"].astype(float).clip(lower=0)
    print(f"{name}: {part.max() / part.sum():.0%} of what kinds gain is gained by {part.idxmax()}")

# %% [markdown]
# ## Does it invent?
#
# The prompter samples every word itself, so it is free to write what nobody wrote. Does it, and does it
# pay?

# %%
rows = {}
for name in datasets:
    part = table[(table["dataset"] == name) & (table["configuration"] == "Align-Pro")]
    suffix = reading.suffix_of(part)
    new = ~suffix.isin(reading.every_suffix(name)["configuration"])
    rows[name] = {
        "rewrites": len(part), "off the menu": new.mean(),
        "reward on the menu": part.loc[~new, "reward"].mean(),
        "reward off the menu": part.loc[new, "reward"].mean(),
        "most frequent": (suffix[new].value_counts().index.tolist() or [""])[0],
    }  # fmt: skip
invented = pd.DataFrame(rows).T.rename_axis("dataset")
numbers = ["off the menu", "reward on the menu", "reward off the menu"]
shown = invented.assign(**invented[numbers].astype(float).map("{:.3f}".format).replace("nan", "none"))
text_table(shown.reset_index()).hide(axis="index")

# %% [markdown]
# *Rewrites of the trained prompters on test prompts: the share that adds none of the 18 hand-written
# suffixes, what both groups earn, and the most frequent suffix off the menu.* A few rewrites off the menu
# are accidents, such as an entry cut short. An invention would be frequent, and would earn more.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** How much of the way from the best constant suffix to the best suffix told the kind does the trained
# prompter go? 0 is the constant, and 1 is what knowing the kind earns.

# %% tags=["hide-cell"]
for name in datasets:
    means = table[table["dataset"] == name].groupby("configuration")["reward"].mean()
    constant, told = means[reading.CONSTANT], means[reading.TOLD_THE_KIND]
    print(f"{name}: {(means['Align-Pro'] - constant) / (told - constant):.2f}")

# %% [markdown]
# **2.** Find the cheapest change that beats the best constant suffix. Keep it for four kinds, and write another
# suffix for one. Which kind pays most? Compare it with the lead of the trained prompter over the constant.

# %% tags=["hide-cell"]
for name in datasets:
    constant, by_kind_chosen = chosen[name]
    tested = reading.every_suffix(name)
    value = tested.pivot_table(index="kind", columns="configuration", values="reward")
    share = tested.groupby("kind")["id"].nunique() / tested["id"].nunique()
    pays = {k: share[k] * (value.loc[k, s] - value.loc[k, constant]) for k, s in by_kind_chosen.items()}
    best = max(pays, key=pays.get)
    lead = gains.loc[(name, reading.CONSTANT), "gain"]
    print(f"{name}: {by_kind_chosen[best]!r} for {style.KIND_LABELS[best]} earns {pays[best]:+.3f} more,", end=" ")
    print(f"and the trained prompter {lead:+.3f}")

# %% [markdown]
# **3.** What would a prompter earn that knew the best suffix of each single prompt? Choose by half of the
# answers to a test prompt and measure on the other half, or luck is counted as skill.

# %% tags=["hide-cell"]
for name in datasets:
    halves = reading.every_suffix(name).assign(half=lambda answers: answers["sample"] % 2)
    halves = halves.pivot_table(index="id", columns=["half", "configuration"], values="reward")
    choose, measure = halves[0].to_numpy(), halves[1].to_numpy()
    best = choose.argmax(axis=1)
    skill, luck = (half[np.arange(len(best)), best].mean() for half in (measure, choose))
    told = levels[name][reading.TOLD_THE_KIND]
    print(f"{name}: {skill:.3f} on the other half ({luck:.3f} on the same), told the kind {told:.3f}")

# %% [markdown]
# Two answers choose badly among 19 suffixes. So the best suffix of a prompt is hard to find, even where it
# would earn more than the best suffix of its kind.
#
# ## What was found

# %%
invents = (invented["off the menu"] > 0.5) & (
    invented["reward off the menu"] > invented["reward on the menu"]
)
for name in datasets:
    gain, one = gains.loc[(name, reading.CONSTANT)], read.loc[(name, "Align-Pro")]
    found = "above" if gain["low"] > 0 else "below" if gain["high"] < 0 else "not told apart from"
    rival = searched[name]["Classifier of kinds"]["reward"].iloc[-1]
    ours = learned[name].groupby("calls")["reward"].mean().iloc[-1]
    print(f"{name}: Align-Pro is {found} the best constant suffix;")
    print(f"    dealing its suffixes at random would cost {one['own'] - one['shuffled']:.3f};")
    print(f"    it earns {ours:.3f}, and the classifier of kinds {rival:.3f} with as many calls;")
    print(f"    it {'invents' if invents[name] else 'chooses from the menu, and does not invent'}.")

# %% [markdown]
# **What was found.** These lines are the finding of this page. Where the classifier earns as much as
# the prompter or more, why train a prompter? The classifier needs training prompts sorted by kind, and a
# list of suffixes that are tried out one by one. The prompter needs the list to start from, and finds out
# by the reward alone which prompts belong together. If your prompts are sorted and your list is short,
# search. What the other runs show, dataset by dataset, is on [the page of all runs](11_matrix.ipynb).
