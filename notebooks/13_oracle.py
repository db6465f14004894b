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
# # The RLHF oracle, and what prompting costs
#
# **What you will know at the end.** What the paper's third configuration, the frozen LLM itself
# fine-tuned by the same PPO on the same reward, earns beside a prompter; what each of the two costs
# in seconds, tokens and trained parameters, and what that says about prompting as the cheaper way.
# Then how much reward there was to be had at all: both optima of the theory, estimated from samples
# without any training, and where the trained runs lie against them.
#
# Nothing is trained on this page. It reads the repository's `results/`; `make reproduce` adds to them.

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

from alignpro.figures import rlhf, style, training
from alignpro.report import rlhf_cost
from alignpro.config import load_preset
from alignpro.theory.from_samples import prompter_front, rlhf_front
from alignpro.statistics import paired_gain
from alignpro.runs import RESULTS
from alignpro.report.kept_runs import kept_preset, matrix_cards, matrix_metrics, matrix_summary, matrix_table
from alignpro.texts import BEST_SUFFIXES

style.use_style()
results_of = kept_preset(preset)
settings = load_preset(results_of)
pair = settings.architectures[0]


def here(frame):
    """The rows of this page's dataset, prompter and frozen LLM."""
    names = frame["architecture"].map("".join)
    return frame[(frame["dataset"] == dataset) & names.isin(["".join(pair), pair[1]])]


table, cards = here(matrix_table(results_of)), here(matrix_cards(results_of))
runs = rlhf_cost.spent(here(matrix_metrics(results_of)))
have_oracle = "RLHF" in set(runs["configuration"])

# %%
print(f"dataset {dataset!r} of the preset {results_of!r}:")
for name, part in runs.groupby("configuration"):
    print(f"  {name}: runs of the seeds {', '.join(map(str, part['seed'].unique()))}")
if not have_oracle:
    print("  RLHF: NO run of the oracle is kept; what follows shows the prompter alone")

# %% [markdown]
# Where no run of the oracle is kept, this page says so and leaves its place empty: what is said about
# the oracle below then waits for one.
#
# ## Held-out reward
#
# All configurations answer the same test prompts, at the paper's temperature and truncation. The
# intervals are over prompts and runs.

# %%
order = ["No Fine-Tuning", "Untrained prompter", "Align-Pro", "RLHF"]
shown = table[table["configuration"].isin(order)]
cells = matrix_summary(shown, settings.evaluation.resamples).set_index("configuration")
cells = cells.loc[[name for name in order if name in cells.index]]
training.mean_reward(cells, dataset);

# %% [markdown]
# *Mean reward of held-out answers by configuration, with 95 % intervals over prompts and runs.*

# %%
cells[["mean", "mean_low", "mean_high", "variance", "runs", "prompts", "samples"]].round(3)

# %% [markdown]
# Differences are paired by prompt and run, over the runs
# that both sides have:

# %%
gains = {}
for better, base in (("Align-Pro", "No Fine-Tuning"), ("RLHF", "No Fine-Tuning"),
                     ("RLHF", "Align-Pro")):  # fmt: skip
    if better in cells.index:
        seeds = set.intersection(*(set(table.loc[table["configuration"] == c, "seed"])
                                   for c in (better, base)))  # fmt: skip
        both = table[table["seed"].isin(seeds)]
        gains[f"{better} − {base}"] = paired_gain(
            both, better, base, settings.evaluation.resamples
        )
gains = pd.DataFrame(gains).T
gains[["gain", "low", "high", "effect_size", "detectable"]].round(3)

# %%
for name, gain in gains.iterrows():
    found = "above 0" if gain["low"] > 0 else "below 0" if gain["high"] < 0 else "not told from 0"
    print(f"{name}: {gain['gain']:+.3f}, {found}")

# %% [markdown]
# An oracle in the theory is the *optimum* π\* of Eq. 4. A trained one is as good as its training:
# where it is not above the prompter, that may be too short a run, too tight a leash or too small an
# adapter, and no property of RLHF.
#
# ## Reward against time and tokens
#
# Both are trained by the same loop, so their costs can be put on the same axes. *Time* is the sum of
# the parts of each PPO step, without evaluation and set-up. *Tokens* are all that were generated:
# the oracle's answers, and for the prompter its rewrites and the frozen LLM's answers to them.

# %%
frozen = cells.loc["No Fine-Tuning", "mean"]
rlhf.training_cost(runs, frozen);

# %% [markdown]
# *Reward of training batches, smoothed over five, a line a run.* The dashed line is held-out reward,
# for orientation only. The two start at different heights for a reason: the prompter's answers are
# drawn by the frozen LLM with the paper's truncated sampling, the oracle's own answers as they come
# (temperature 1, nothing cut off), since its KL would otherwise be that of another distribution.
# Compare what is *gained*, not the heights.
#
# Time is that of the machine and of the code as they were, busy or not, and not every run had the same
# machine or the same commit. Seeds of one configuration do equal work, so the seconds that a step took
# them say how far time can be trusted:

# %%
names = cards["configuration"].replace({"align-pro": "Align-Pro", "rlhf": "RLHF"})
cards = cards.assign(configuration=names).set_index(["configuration", "seed"]).sort_index()
machine = pd.DataFrame(list(cards["hardware"]), index=cards.index).dropna(axis=1, how="all")
steps = runs.groupby(["configuration", "seed"])["seconds"].agg(lambda s: s.max() / len(s))
machine = machine.astype(object).fillna("not noted").assign(commit=cards["commit"])
machine.assign(**{"seconds a step": steps.round(1)})

# %% [markdown]
# Where machines, commits or seconds differ, tokens are the measure to go by. At equal cost, by both:

# %%
rlhf_cost.at_equal_cost(runs, "seconds").round(3)

# %%
rlhf_cost.at_equal_cost(runs, "tokens").round(3)

# %% [markdown]
# *start* and *end* are means of a run's first and last five batches; the column between them is the
# reward after as much as the cheapest run cost in all.
#
# ## What was trained, and what it cost

# %%
cost = cards[["trained_parameters", "training_seconds"]]
used = runs.groupby(["configuration", "seed"]).agg(steps=("step", "max"), tokens=("tokens", "max"))
cost = cost.join(used)
means = table.groupby(["configuration", "seed"])["reward"].mean()
cost["held-out gain"] = means - means["No Fine-Tuning"].reindex(means.index, level="seed")
cost["gain an hour"] = cost["held-out gain"] / cost["training_seconds"] * 3600
cost["gain a million tokens"] = cost["held-out gain"] / cost["tokens"] * 1e6
cost.rename(columns={"trained_parameters": "trained", "training_seconds": "seconds"}).round(
    {"held-out gain": 3, "gain an hour": 3, "gain a million tokens": 2}
)

# %% [markdown]
# ## Is prompting the cheaper way?
#
# The paper's case for prompting is that it leaves the large model alone. That claim has three parts,
# and they do not fare alike.
#
# * **Access.** A prompter needs the frozen LLM's text and nothing else; RLHF needs its weights. This
#   part is true by construction, and needs no measurement: chapter [The frozen LLM behind an
#   endpoint](../book/endpoint.md) trains a prompter that way.
# * **Trained parameters.** The saving is the ratio of the two models' sizes. The paper prompts
#   Llama-3.1-8B with Phi-3.5-mini or Qwen2.5-1.5B. Under the `cpu` preset both roles are played by
#   the *same* model, as the table shows: there is nothing to save here, and no number on this page
#   speaks for or against it. The chapter [From a laptop to an H100](12_scale.ipynb) computes it for
#   the paper's models.
# * **Time and tokens for the same reward.** Here prompting has a handicap that the paper does not
#   name: each training sample costs a rewrite *and* an answer of the frozen LLM, where RLHF needs the
#   answer alone, and the reward of the answer reaches the rewrite through one more random draw. What
#   it has for it is that few tokens are learned from: a gradient through a short rewrite, not through
#   the whole answer. Which of the two weighs more is what the tables above measure, at this scale.

# %%
if have_oracle:
    mean = cost.groupby("configuration")[["gain an hour", "gain a million tokens"]].mean()
    for unit, column in mean.items():
        first, second = column.sort_values(ascending=False).items()
        print(f"{unit}: {first[0]} {first[1]:+.3f}, {second[0]} {second[1]:+.3f}")
else:
    print("no run of the oracle is kept: the third part cannot be judged from this page yet")

# %% [markdown]
# Gains an hour are those of the machines above, and both depend on where a run is stopped, since the
# curves flatten: read them beside the curves. And what a small model shows, with LoRA on both sides,
# is no measurement of the paper's setting.
#
# ## The free oracles
#
# Both optima are Gibbs tilts, so neither has to be trained to be known: samples of the reference,
# reweighted by exp(reward / temperature), estimate them. What was never drawn cannot be weighted up,
# and noise in a reward looks like reward. Both are handled, or shown with their size.
#
# **J(π\*)**, the optimum of RLHF. For each test prompt the runs hold several answers of the frozen LLM
# itself. Their rewards are exact, so the only error is that of few samples: with M answers no KL above
# log M can be seen, and the estimate is low, by an amount that falls like 1/M once M is not small. The
# same estimate from half of the answers then lies about twice as far below the truth.

# %%
betas = np.geomspace(0.02, 100, 61)
answers = rlhf_cost.answer_rewards(table, "No Fine-Tuning")
pi_star = rlhf_front(answers, betas)
half = rlhf_front(answers[:, ::2], betas)
prompts, M = answers.shape
print(f"{prompts} prompts, {M} answers each: no KL above log {M} = {np.log(M):.2f} nats")
pd.DataFrame({"beta": betas, "KL": pi_star.kl, "J(π*)": pi_star.reward,
              "low": pi_star.reward_interval[:, 0], "high": pi_star.reward_interval[:, 1],
              "from half": half.reward, "effective sample": pi_star.ess,
              }).iloc[:40:5].round(3)  # fmt: skip

# %% [markdown]
# *Effective sample* is the number of answers that the weights leave in play, of the M drawn: near 1 the
# row says no more than that the best of M was found. The difference to *from half* is about the size of
# the bias at the same β.
#
# **The optimal prompters.** Here every rewrite's reward g(x, x') is itself an average over answers, and
# few of those are at hand. Reweighting by noisy averages picks lucky ones (C14): the estimate is too
# *high*. Taking the weights from one half of the answers and the value from the other removes the luck
# and then errs on the *low* side, so that the two bracket the truth. The samples are the suffix tables
# of the [chapter on the reward](06_reward.ipynb): each suffix of the warm start's menu, answered for
# each validation prompt in every run. That is the front of a prompter whose reference draws from the
# menu uniformly, which is what the warm start aims at. What it came to draw, in evaluation:

# %%
folder = RESULTS / results_of / dataset / "".join(pair)
suffixes = pd.concat([pd.read_parquet(p) for p in sorted(folder.glob("seed*/suffixes.parquet"))])
menu = [s for s in suffixes["configuration"].unique() if s not in ("(nothing)", *BEST_SUFFIXES)]
drawn = table[table["configuration"] == "Untrained prompter"]
written = pd.Series([r.removeprefix(x).strip() for r, x in zip(drawn["rewrite"], drawn["prompt"])])
share = written.value_counts(normalize=True)
print(f"{written.isin(menu).mean():.0%} of its rewrites stand in the menu of {len(menu)}; "
      f"entropy {-(share * np.log(share)).sum():.2f} nats, uniform {np.log(len(menu)):.2f}")  # fmt: skip

# %% [markdown]
# Two kinds of prompter are estimated, one that may read the whole prompt and one that can tell no more
# than the kind of question, whose averages have many more answers in them. A last line is a ceiling
# from theory (C10): at equal KL no prompter earns more than fine-tuning from the mixture π̄_sft of the
# answers to all its rewrites. It is estimated as J(π\*) was, and as low, from the untrained prompters'
# rows of all runs. A single answer to a rewrite serves there: an answer, not a rewrite, is tilted.

# %%
lams = np.geomspace(0.005, 100, 61)
fronts = []
for by, reads in (("id", "reads the prompt"), ("kind", "reads the kind alone")):
    if suffixes[by].notna().all():
        rewards = rlhf_cost.rewrite_rewards(suffixes, menu, by)
        print(f"{reads}: {rewards.shape[1]} suffixes, {rewards.shape[2]} answers each")
        for split, how in ((True, "split answers"), (False, "same answers")):
            front = prompter_front(rewards, lams, split=split)
            fronts.append(rlhf_cost.front_table(front, "Align-Pro", f"{reads}, {how}"))
ceiling = rlhf_front(rlhf_cost.answer_rewards(table, "Untrained prompter"), betas)
fronts.append(rlhf_cost.front_table(ceiling, "Align-Pro", "ceiling: fine-tuned from the mixture"))
fronts.append(rlhf_cost.front_table(pi_star, "RLHF", "π*, all answers"))
fronts.append(rlhf_cost.front_table(half, "RLHF", "π*, half of the answers"))
fronts = pd.concat(fronts, ignore_index=True)

# %%
best = fronts.sort_values("reward").groupby("front", sort=False).tail(1)
best.set_index("front")[["reward", "low", "high", "kl", "ess"]].round(3)

# %% [markdown]
# The most that each estimate finds, with a 95 % interval over prompts (over kinds in the rows that read
# no more: too few to mean much). The distance between *split* and *same* is what the noise of few
# answers leaves open; more answers to each suffix would close it.
#
# ## Trained runs on the fronts

# %%
rlhf.on_gibbs_fronts(fronts, runs);

# %% [markdown]
# *Reward against the square root of KL. Lines in black and grey: the free oracles, solid where they err
# on the low side, dashed where they flatter, dotted for the ceiling. In colour: the trained runs,
# batch by batch, with a star for the mean of the last ten.* The KL of the left panel is counted in nats
# a rewrite, that of the right in nats an answer. In expectation no run lies above its own front; how
# far below it a run ends is what PPO left on the table, or has not reached yet.
#
# Three differences keep the comparison from being exact. The batches are *training* prompts, the fronts
# test and validation prompts. The prompter's reference in training is its warm start and not quite the
# uniform menu. And the oracle is trained from the frozen LLM as it is, at temperature 1, while its
# front starts from the truncated sampling of evaluation. Where a front and the runs start tells how
# much these matter:

# %%
starts = fronts.loc[fronts.groupby("front", sort=False)["kl"].idxmin()].set_index("front")["reward"]
batches = runs[runs["step"] == 1].groupby("configuration")["objective/scores"].mean()
pd.concat([starts, batches.add_prefix("first batches of ")]).rename("reward at KL 0").round(3).to_frame()

# %% [markdown]
# And where they end: a row a run, its reward and KL over the last ten steps, and each front's reward
# at that KL (empty or absent where the samples cannot see so far):

# %%
rlhf_cost.against_fronts(rlhf_cost.last_steps(runs), fronts).T.round(3)

# %% [markdown]
# No run was asked for the top of a front, though. What PPO maximises is reward − λ KL, with the preset's
# λ, and the best of that is one point of a front. Below stand that point of each estimate and the runs:

# %%
own = {"Align-Pro": settings.ppo.lam, "RLHF": settings.rlhf.lam}
objective = fronts["reward"] - fronts["configuration"].map(own) * fronts["kl"]
points = fronts.loc[objective.groupby(fronts["front"]).idxmax()]
points = points.set_index(["configuration", "front"])
ends = rlhf_cost.last_steps(runs).droplevel(["dataset", "architecture"]).rename(index="seed {}".format,
                                                                             level="seed")  # fmt: skip
asked = pd.concat([points[["reward", "kl"]], ends.rename_axis(points.index.names)]).sort_index()
asked["λ"] = asked.index.get_level_values("configuration").map(own)
asked.assign(objective=asked["reward"] - asked["λ"] * asked["kl"]).round(3)

# %% [markdown]
# The difference in *objective* is what imperfect training cost, λ KL(ρ‖ρ\*) by the identity C1, and the
# estimates' own uncertainty.
#
# **Summary.** What a prompter and an oracle earned stands above with intervals, beside what each cost;
# where the oracle's runs are missing, the page says so. The free oracles tell how much there was to
# be had: they need samples and no training, and their errors, one for too few samples and one for
# noisy averages, were given with their size.
