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
# **The question.** How does a prompter compare with RLHF, which fine-tunes the frozen LLM itself? At the
# end you will know what the two earn with the same PPO and the same reward, and what each costs in
# seconds, tokens and trained parameters. You will also know how much reward there is to gain: both
# optima of the theory are estimated from samples, without any training, and the runs are drawn beside
# them.
#
# The *oracle* is the paper's name for the fine-tuned model. Nothing is trained on this page. It reads
# the repository's `results/`, and `make reproduce` adds to them.

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
from alignpro.figures import rlhf, style, training
from alignpro.report import rlhf_cost
from alignpro.report.kept_runs import (
    kept_preset,
    matrix_cards,
    matrix_metrics,
    matrix_rewards,
    matrix_table,
)
from alignpro.runs import RESULTS
from alignpro.statistics import paired_gain
from alignpro.theory.from_samples import prompter_front, rlhf_front

style.use_style()
results_of = kept_preset(preset)
settings = load_preset(results_of)
pair = settings.architectures[0]

# %%
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
# ## Held-out reward
#
# All configurations answer the same test prompts, at the paper's temperature and truncation. Intervals
# cover prompts and runs.

# %%
order = ["No Fine-Tuning", "Untrained prompter", "Align-Pro", "RLHF"]
shown = table[table["configuration"].isin(order)]
cells = matrix_rewards(shown, settings.evaluation.resamples).set_index("configuration")
cells = cells.loc[[name for name in order if name in cells.index]]
training.mean_reward(cells, dataset);

# %% [markdown]
# *Mean reward of held-out answers by configuration, with 95 % intervals over prompts and runs.* Compare how far
# Align-Pro and RLHF rise above No Fine-Tuning.

# %%
columns = {"mean": "mean", "mean_low": "low", "mean_high": "high", "variance": "variance",
           "runs": "runs", "prompts": "prompts"}  # fmt: skip
cells[[*columns]].rename(columns=columns).round(3)

# %% [markdown]
# Differences are paired by prompt and run, over the runs that both sides have:

# %%
gains = {}
for better, base in (("Align-Pro", "No Fine-Tuning"), ("RLHF", "No Fine-Tuning"),
                     ("RLHF", "Align-Pro")):  # fmt: skip
    if better in cells.index:
        seeds = [set(table.loc[table["configuration"] == c, "seed"]) for c in (better, base)]
        both = table[table["seed"].isin(set.intersection(*seeds))]
        resamples = settings.evaluation.resamples
        gains[f"{better} − {base}"] = paired_gain(both, better, base, resamples)
columns = {"gain": "difference", "low": "low", "high": "high", "effect_size": "effect size",
           "detectable": "detectable"}  # fmt: skip
gains = pd.DataFrame(gains).T[[*columns]].rename(columns=columns)
gains.round(3)

# %% [markdown]
# The oracle of the theory is the *optimum* π\* of Eq. 4. A trained oracle is only as good as its
# training. If it is not above the prompter, the run may be too short, the leash too tight or the adapter
# too small. It need not be a property of RLHF.
#
# The two were not tuned alike. The settings of the prompter were [studied](07_train.ipynb) on validation
# prompts, and those of RLHF were not:

# %%
both = {"Align-Pro": settings.ppo, "RLHF": settings.rlhf}
shared = {"steps": "steps", "learning_rate": "learning rate", "lr_scheduler_type": "learning rate over time",
          "lam": "leash"}  # fmt: skip
pd.DataFrame({who: {told: getattr(ppo, key) for key, told in shared.items()} for who, ppo in both.items()})

# %% [markdown]
# The leash is λ for the prompter and β for RLHF, as in the theory.
#
# ## Reward against time and tokens
#
# The same loop trains both, so their costs can share an axis. *Time* is the sum of the parts of each PPO
# step, without evaluation and set-up. *Tokens* counts all generated tokens: the oracle's answers, and
# for the prompter its rewrites and the frozen LLM's answers to them.

# %%
untuned = cells.loc["No Fine-Tuning", "mean"]
rlhf.training_cost(runs, untuned);

# %% [markdown]
# *Reward of the training batches, smoothed over five, one line per run.* The dashed line is a held-out
# reward, for orientation only. The curves start at different heights for a reason. The frozen LLM
# answers the prompter with the paper's truncated sampling. The oracle's own answers are sampled at
# temperature 1 without truncation, because its KL would otherwise be that of another distribution. So
# compare what each *gains*, and not the heights.
#
# Time depends on the machine and on the code, and not all runs had the same. All seeds of a configuration
# do equal work, so their seconds per step show how far time can be trusted:

# %%
names = cards["configuration"].replace({"align-pro": "Align-Pro", "rlhf": "RLHF"})
cards = cards.assign(configuration=names).set_index(["configuration", "seed"]).sort_index()
machine = pd.DataFrame(list(cards["hardware"]), index=cards.index).dropna(axis=1, how="all")
steps = runs.groupby(["configuration", "seed"])["seconds"].agg(lambda s: s.max() / len(s))
machine = machine.astype(object).fillna("not noted").assign(commit=cards["commit"].str[:7])
machine.assign(**{"seconds per step": steps.round(1)})

# %% [markdown]
# Where machines, commits or seconds differ, compare tokens. At equal cost, by both measures:

# %%
at_equal = rlhf_cost.at_equal_cost(runs, "seconds").droplevel(["dataset", "architecture"])
at_equal.round({"seconds in all": 0}).astype({"seconds in all": int}).round(3)

# %%
at_equal = rlhf_cost.at_equal_cost(runs, "tokens").droplevel(["dataset", "architecture"])
at_equal.assign(**{"tokens in all": at_equal["tokens in all"].map("{:,.0f}".format)}).round(3)

# %% [markdown]
# *start* and *end* are means of a run's first and last five batches. The column between them is the
# reward at the total cost of the cheapest run.
#
# ## What was trained, and what it cost

# %%
spent = cards[["trained_parameters", "training_seconds"]]
used = runs.groupby(["configuration", "seed"]).agg(steps=("step", "max"), tokens=("tokens", "max"))
spent = spent.join(used)
means = table.groupby(["configuration", "seed"])["reward"].mean()
spent["held-out gain"] = means - means["No Fine-Tuning"].reindex(means.index, level="seed")
spent["gain per hour"] = spent["held-out gain"] / spent["training_seconds"] * 3600
spent["gain per 100,000 tokens"] = spent["held-out gain"] / spent["tokens"] * 1e5

# %%
digits = {"held-out gain": 3, "gain per hour": 2, "gain per 100,000 tokens": 2}
columns = {"trained_parameters": "trained parameters", "training_seconds": "seconds"}
shown = spent.round(digits)
for name in ("trained_parameters", "training_seconds", "tokens"):
    shown[name] = shown[name].map("{:,.0f}".format)
shown.rename(columns=columns)

# %% [markdown]
# *Tokens* are those that training generated, and the *gain* is that of the held-out reward over No
# Fine-Tuning.

# %% [markdown]
# ## Is prompting cheaper?
#
# The paper argues for prompting because it leaves the large model alone. This claim has three parts,
# and the evidence differs.
#
# * **Access.** A prompter needs the frozen LLM's text and nothing else. RLHF needs its weights. This is
#   true by construction: [The frozen LLM behind an endpoint](../book/endpoint.md) trains a prompter that
#   way.
# * **Trained parameters.** The saving is the ratio of the two models' sizes. The paper prompts
#   Llama-3.1-8B with Phi-3.5-mini or Qwen2.5-1.5B. Under the `cpu` preset one model plays both roles, so
#   there is nothing to save, and no number on this page speaks for or against the claim.
#   [From a laptop to an H100](12_scale.ipynb) computes the saving for the paper's models.
# * **Time and tokens for the same reward.** Prompting has a handicap that the paper does not mention.
#   Each training sample costs a rewrite *and* an answer of the frozen LLM, while RLHF needs only the
#   answer. The reward of the answer also reaches the rewrite through one more random draw. In return, a
#   gradient passes through a short rewrite and not through a whole answer. The tables above measure
#   which of the two weighs more at this scale.

# %%
if have_oracle:
    mean = spent.groupby("configuration")[["gain per hour", "gain per 100,000 tokens"]].mean()
    for unit, column in mean.items():
        first, second = column.sort_values(ascending=False).items()
        print(f"{unit}: {first[0]} {first[1]:+.2f}, {second[0]} {second[1]:+.2f}")
else:
    print("no run of the oracle is kept: the third part cannot be judged from this page yet")

# %% [markdown]
# Gains per hour depend on the machines above. Both gains also depend on where a run stops, since the
# curves flatten: read them beside the curves. And a small model with LoRA on both sides does not
# measure the paper's setting.
#
# ## The optima, estimated without training
#
# Both optima are Gibbs tilts, so neither has to be trained. Samples of the reference, reweighted by
# exp(reward / temperature), estimate them. There are two errors: a sample that was never drawn cannot
# get weight, and noise in a reward looks like reward. Both errors are avoided below, or their size is
# shown.
#
# **J(π\*)**, the optimum of RLHF. For each test prompt the runs hold several answers of the frozen LLM
# itself. Their rewards are exact, so the only error is that of few samples. With M answers, no KL above
# log M can be seen. The estimate is then low, by an amount that falls like 1/M. The same estimate from
# half of the answers is about twice as far below the truth.

# %%
betas = np.geomspace(0.02, 100, 61)
answers = rlhf_cost.answer_rewards(table, "No Fine-Tuning")
pi_star = rlhf_front(answers, betas)
half = rlhf_front(answers[:, ::2], betas)
prompts, M = answers.shape
print(f"{prompts} prompts, {M} answers each: no KL above log {M} = {np.log(M):.2f} nats")

# %%
columns = {"KL, nats": pi_star.kl, "J(π*)": pi_star.reward,
           "low": pi_star.reward_interval[:, 0], "high": pi_star.reward_interval[:, 1],
           "from half": half.reward, "effective sample": pi_star.ess}  # fmt: skip
shown = pd.DataFrame(columns, index=pd.Index(betas.round(3), name="β"))
shown.iloc[:40:5].round({"effective sample": 1}).round(3)

# %% [markdown]
# *Effective sample* is the number of the M answers that keep their weight. Where it is near 1, the row
# shows only that the best of M answers was found. The difference from *from half* is about the size of
# the bias at the same β.
#
# **The optimal prompters.** The reward g(x, x') of a rewrite is itself an average over answers, and there
# are few of those. Reweighting by noisy averages favours lucky ones (C14), so the estimate is too *high*.
# If one half of the answers gives the weights and the other half the value, the luck is removed, and the
# estimate is too *low*. The truth is between the two.
#
# The samples are the suffix tables of the [chapter on the reward](06_reward.ipynb): each suffix of the
# warm start's menu, answered for each validation prompt in every run. So the estimate is for a prompter
# whose reference draws from the menu uniformly. This is what the untrained prompters drew in evaluation:

# %%
folder = RESULTS / results_of / dataset / "".join(pair)
suffixes = pd.concat([pd.read_parquet(p) for p in sorted(folder.glob("seed*/suffixes.parquet"))])
menu = [suffix for suffix in suffixes["configuration"].unique() if suffix != "(nothing)"]
drawn = table[table["configuration"] == "Untrained prompter"]
written = pd.Series([r.removeprefix(x).strip() for r, x in zip(drawn["rewrite"], drawn["prompt"])])
share = written.value_counts(normalize=True)
print(f"{written.isin(menu).mean():.0%} of its rewrites are in the menu of {len(menu)};")
print(f"entropy {-(share * np.log(share)).sum():.2f} nats, of a uniform draw {np.log(len(menu)):.2f}")

# %% [markdown]
# We estimate two kinds of prompter. One may read the whole prompt. The other can tell only the kind of
# question; its averages have many more answers in them. The last line is a ceiling from theory (C10): at
# equal KL, no prompter earns more than fine-tuning from π̄_sft, the mixture of the answers to all its
# rewrites. It is estimated as J(π\*) was, and is as low, from the answers to the untrained prompters.

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

# %%
ceiling = rlhf_front(rlhf_cost.answer_rewards(table, "Untrained prompter"), betas)
fronts.append(rlhf_cost.front_table(ceiling, "Align-Pro", "ceiling: fine-tuned from the mixture"))
fronts.append(rlhf_cost.front_table(pi_star, "RLHF", "π*, all answers"))
fronts.append(rlhf_cost.front_table(half, "RLHF", "π*, half of the answers"))
fronts = pd.concat(fronts, ignore_index=True)
best = fronts.sort_values("reward").groupby("front", sort=False).tail(1)
columns = {"reward": "reward", "low": "low", "high": "high", "kl": "KL", "ess": "effective sample"}
best.set_index("front")[[*columns]].rename(columns=columns).round({"effective sample": 1}).round(3)

# %% [markdown]
# The highest reward of each estimate, with a 95 % interval over prompts. In the rows that read only the
# kind, the interval is over kinds, which are too few to tell much. The distance between *split* and
# *same* is the uncertainty from few answers. More answers to each suffix would make it smaller.
#
# ## Trained runs beside the estimated optima

# %%
rlhf.on_gibbs_fronts(fronts, runs);

# %% [markdown]
# *Reward against the square root of KL. Black and grey lines are the estimated optima: solid if the
# estimate is low, dashed if it is high, dotted for the ceiling. In colour are the trained runs, batch by
# batch, with a star for the mean of the last ten.* The KL is in nats per rewrite on the left, and in nats
# per answer on the right. In expectation, no run is above its own front. A run that ends below it has
# not reached its optimum.
#
# The comparison is not exact, for three reasons. The batches are *training* prompts, and the fronts use
# test and validation prompts. The prompter's reference in training is its warm start, and not the
# uniform menu. And the oracle is trained at temperature 1 without truncation, while its front starts
# from the truncated sampling of evaluation. The rewards at KL 0 show how much this matters:

# %%
starts = fronts.loc[fronts.groupby("front", sort=False)["kl"].idxmin()].set_index("front")["reward"]
batches = runs[runs["step"] == 1].groupby("configuration")["objective/scores"].mean()
pd.concat([starts, batches.add_prefix("first batches of ")]).rename("reward at KL 0").round(3).to_frame()

# %% [markdown]
# And at the end: one column per run, with its reward and KL over the last ten steps, and the reward of
# each front at that KL. The entry is empty where the front belongs to the other configuration, or where the
# samples cannot see so far.

# %%
ends = rlhf_cost.last_steps(runs)
beside = rlhf_cost.against_fronts(ends, fronts).droplevel(["dataset", "architecture"])
beside.rename(columns={"kl": "KL, nats"}).T.map("{:.3f}".format).replace("nan", "")

# %% [markdown]
# No run aims at the top of a front, though. PPO maximises reward − leash × KL with the preset's leash, and the
# best of that is one point of a front. Here is that point of each estimate, and the runs:

# %%
own = {"Align-Pro": settings.ppo.lam, "RLHF": settings.rlhf.lam}
objective = fronts["reward"] - fronts["configuration"].map(own) * fronts["kl"]
points = fronts.loc[objective.groupby(fronts["front"]).idxmax()]
points = points.set_index(["configuration", "front"])[["reward", "kl"]]
reached = ends.droplevel(["dataset", "architecture"]).rename("seed {}".format, level="seed")
points = pd.concat([points, reached.rename_axis(points.index.names)]).sort_index()
points["leash"] = points.index.get_level_values("configuration").map(own)
points = points.assign(objective=points["reward"] - points["leash"] * points["kl"])
points.rename(columns={"kl": "KL, nats"}).round(3)

# %% [markdown]
# By the identity C1, the missing *objective* of a run is λ KL(ρ‖ρ\*), the cost of imperfect training. The
# uncertainty of the estimates comes on top.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** Does the order of the two in gain per hour and per token hold in every run, or only on average?

# %% tags=["hide-cell"]
each = spent[["gain per hour", "gain per 100,000 tokens"]].unstack("configuration")
each.round(2)

# %% [markdown]
# **2.** How far did each run get with a quarter of the tokens of the cheapest run? Predict from the
# curves.

# %% tags=["hide-cell"]
quarter = runs.groupby(["configuration", "seed"])["tokens"].max().min() / 4
reached = runs[runs["tokens"] <= quarter].groupby(["configuration", "seed"])["objective/scores"]
change = reached.apply(lambda score: score.tail(5).mean() - score.head(5).mean())
change.unstack("configuration").round(3)

# %% [markdown]
# ## What was found

# %%
for name, gain in gains.iterrows():
    found = "above 0" if gain["low"] > 0 else "below 0" if gain["high"] < 0 else "not told apart from 0"
    print(f"{name}: {gain['difference']:+.3f}, {found}")

# %% [markdown]
# **What was found.** These lines compare the prompter and the oracle on held-out prompts. *Is prompting
# cheaper?* shows which of them gains more per hour and per token. The estimated optima show how much reward
# there was to gain. They need only samples, and their two errors, few samples and noisy averages, were given
# with their sizes.
