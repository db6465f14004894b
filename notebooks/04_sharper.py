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
# # Sharper: the exact gap, and when prompting wins
#
# **The question.** What is the gap made of, and when does prompting win?
#
# **What you will know at the end.** What the gap is made of, exactly; three upper bounds and two
# lower ones, drawn against the truth; what a nat of KL buys for a prompter, for best-of-n and for
# fine-tuning; and the map of leashes on which prompting beats RLHF. The proofs are in the chapters
# [Sharper](../book/sharper.md) and [The optimal prompter](../book/optimal_prompter.md) (C6, C8, C9,
# C13, C14).

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
seed = 0

# %%
from dataclasses import replace

import numpy as np
import pandas as pd

from alignpro.figures import theory as draw
from alignpro import theory
from alignpro.report.formulas import formula_table
from alignpro.theory import gibbs, instances

from alignpro.figures.style import use_style

use_style()
rng = np.random.default_rng(seed)

# %% [markdown]
# ## An instance where rewriting blindly hurts
#
# Thirty prompts, twelve rewrites each, eight possible answers with rewards in $[0,1]$. The frozen
# model is decent on the original prompts, since we tilt it towards the reward. The rewrites are
# random. So an untrained prompter does harm at first, as real ones can. We call this *blind*
# rewriting: it does not look at the reward.

# %%
base = instances.random_instance(rng, prompts=30, rewrites=12, responses=8)
decent = gibbs.tilt(base.pi_F, base.reward, 0.8).p
pool = np.concatenate([decent[:, None], base.pi_F_rewrites[:, 1:]], axis=1)
inst = replace(base, pi_F=decent, pi_F_rewrites=pool)
lam, beta = 0.03, 0.5
sol = inst.solve(lam=lam, beta=beta)
print(f"frozen model {sol.J_frozen:.3f}, untrained prompter {sol.J_sft:.3f}, "
      f"trained {sol.J_prompter:.3f}, RLHF {sol.J_rlhf:.3f}")
assert sol.J_sft < sol.J_frozen < sol.J_prompter

# %% [markdown]
# The untrained prompter earns less than the frozen model, the optimal one more.

# %% [markdown]
# ## The identities (C1, C2, C3)
#
# The gain of each training is a leash times a Jeffreys divergence,
# $\mathrm{Jeff}(p,q)=\mathrm{KL}(p\|q)+\mathrm{KL}(q\|p)$. So the gap is a sum of three exact
# parts:
#
# $$
# \Delta=\underbrace{\beta\,\mathrm{Jeff}(\pi^*,\pi_F)}_{\text{fine-tuning}}
# +\underbrace{J(\pi_F)-J_0}_{\text{blind rewriting}}
# -\underbrace{\lambda\,\mathrm{Jeff}(\rho^*,\rho_{\rm sft})}_{\text{learning}}.
# $$
#
# C1 holds for any prompter, so we try it on a random one.


# %%
def kl(p, q):
    return inst.P @ gibbs.kl_divergence(p, q)


# %%
rho = rng.dirichlet(np.ones(12), size=30)
three_point = lam * (kl(rho, inst.rho_sft) + kl(inst.rho_sft, sol.rho_star) - kl(rho, sol.rho_star))
fine_tuning = beta * (sol.kl_rlhf + sol.kl_rlhf_reverse)
learning = lam * (sol.kl + sol.kl_reverse)
errors = {
    "C1, any prompter": inst.value(rho) - sol.J_sft - three_point,
    "C2, prompter": sol.J_prompter - sol.J_sft - learning,
    "C2, fine-tuning": sol.delta1 - fine_tuning,
    "C3, the gap": sol.delta - (fine_tuning + sol.J_frozen - sol.J_sft - learning),
}
assert max(map(abs, errors.values())) < 1e-12
pd.DataFrame({"left minus right": errors}).map("{:.1e}".format)

# %% [markdown]
# All four differences are rounding. Against the leash, the parts look like this:

# %%
lams = np.geomspace(3e-3, 10, 121)
sols = [inst.solve(lam=t, beta=beta) for t in lams]
parts = pd.DataFrame({
    "lam": lams,
    "fine_tuning": fine_tuning,
    "rewriting": sol.J_frozen - sol.J_sft,
    "learning": [s.lam * (s.kl + s.kl_reverse) for s in sols],
    "gap": [s.delta for s in sols],
})
draw.stacked_gap(parts);

# %% [markdown]
# *Figure: the gap as the sum of its exact parts. See that the two parts above zero do not depend
# on the prompter's leash, and that all movement of the gap comes from what the prompter learns,
# below zero.* For a stiff leash the prompter first has to earn back what blind rewriting cost.

# %% [markdown]
# ## Three upper bounds
#
# The same sweep, now with the paper's bound, the *Jeffreys bound* with both KLs, and the *mixture
# bound*, which compares RLHF with the mixture of all rewrites.

# %%
fields = ["bound_paper", "bound_jeffreys", "bound_mixture", "delta", "floor"]
frame = pd.concat(
    pd.DataFrame({"lam": lams, "bound": name, "value": [getattr(s, field) for s in sols]})
    for name, field in zip(draw.BOUND_STYLES, fields)
)
draw.bounds_against_lambda(frame);

# %% [markdown]
# *Figure: three upper bounds on the gap. See that the two new ones fall to the left like the gap
# itself, while the paper's turns back up; and that the mixture bound starts much lower.* The
# dotted line is the floor: no prompter over these rewrites gets below it.

# %%
for name, field in list(zip(draw.BOUND_STYLES, fields))[:3]:
    slack = np.mean([getattr(s, field) - s.delta for s in sols])
    print(f"{name:20s} mean distance from the gap {slack:.3f}")
assert all(s.bound_paper >= s.bound_jeffreys >= s.bound_mixture >= s.delta for s in sols)

# %% [markdown]
# The order of the bounds is the one of the theorem at every leash. Is that particular to this
# instance? We draw many small ones, with one prompt each. Their rewards fill [0, 1], the best case
# for the paper's bound.

# %%
rows = []
for _ in range(700):
    one = instances.random_instance(rng, 1, *rng.integers(2, 9, size=2))
    s = one.solve(lam=10 ** rng.uniform(-2, 1), beta=10 ** rng.uniform(-2, 1))
    for name, bound in (("Theorem 6.1 (paper)", s.bound_paper), ("mixture bound", s.bound_mixture)):
        rows.append({"bound": name, "gap": s.delta, "value": bound})
scatter = pd.DataFrame(rows)
draw.bound_scatter(scatter);

# %% [markdown]
# *Figure: bound against gap on random instances with rewards of range one. See the grey region,
# where a bound is vacuous: many points of the paper's bound are in it, and none of the mixture
# bound.* A perfect bound would lie on the line.

# %%
for name, part in scatter.groupby("bound"):
    vacuous, negative = (part["value"] > 1).mean(), (part["value"] < 0).mean()
    print(f"{name:20s} vacuous {vacuous:4.0%}, proves that prompting wins {negative:4.0%}, "
          f"median slack {(part['value'] - part['gap']).median():.2f}")
print(f"{'the gap itself':20s} prompting wins {(part['gap'] < 0).mean():.0%}")

# %% [markdown]
# The mixture bound is never above the range, by its form. Neither is a good detector of the cases
# in which prompting wins, but the mixture bound finds some that the paper's misses.

# %% [markdown]
# ## Bounds from both sides (C4)
#
# The range of the rewards alone bounds both gains from above; how far the optimum moves in total
# variation bounds them from below. Through C3 that bounds the gap from both sides. The paper has no
# lower bound.

# %%
rows = []
for s in sols:
    prior = s.apriori()
    rows.append([s.lam, prior.delta_floor, s.delta, prior.delta_ceiling])
    assert prior.delta_floor <= s.delta <= prior.delta_ceiling
between = pd.DataFrame(rows, columns=["lam", "floor", "exact", "ceiling"])
draw.sandwich(between, "The gap between its floor and ceiling (C4)");

# %% [markdown]
# *Figure: the gap between the two bounds of C4. See that the floor comes close for a stiff leash
# and is loose for a loose one; the ceiling stays high, since it replaces fine-tuning's gain by
# what the range of the reward allows.* Where the floor is positive, the optimal prompter at that
# leash stays below RLHF.

# %% [markdown]
# C4 needs the total variation of both optima. A second pair of bounds needs nothing but moments of
# the untrained models: the variance and the range of $g$ under the untrained prompter, and of the
# reward under the frozen model. Which floor is higher?

# %%
rows = []
for _ in range(500):
    one = instances.random_instance(rng, 1, *rng.integers(2, 9, size=2))
    s = one.solve(lam=10 ** rng.uniform(-2, 1), beta=10 ** rng.uniform(-2, 1))
    prior = s.apriori()
    assert prior.delta_floor_untrained <= s.delta <= prior.delta_ceiling_untrained
    rows.append((prior.delta_floor, prior.delta_floor_untrained, s.delta))
C4, untrained, gaps = np.array(rows).T
print(f"the untrained floor is above that of C4 in {(untrained > C4).mean():.0%} of the instances")
print(f"RLHF is ahead: proved by C4 in {(C4 > 0).mean():.0%} of the instances, "
      f"by the untrained floor in {(untrained > 0).mean():.0%}, true in {(gaps > 0).mean():.0%}")

# %% [markdown]
# The floor from untrained moments often beats the other, although it knows less. The last line
# counts in how many instances each proves that RLHF is ahead, and in how many it is. None of this
# needs training.

# %% [markdown]
# ## Variance is the resource (C5)
#
# Three untrained prompters over the same five rewrites, with the same mean reward. They differ in
# how they spread their mass.

# %%
levels = np.linspace(0.1, 0.9, 5)
answers = np.stack([1 - levels, levels], axis=1)
spreads = {"timid": [0, 0.05, 0.9, 0.05, 0], "even": [0.2] * 5, "extreme": [0.5, 0, 0, 0, 0.5]}
rows = []
for name, rho in spreads.items():
    s = theory.Instance([1], [rho], answers[[2]], answers, [[0, 1]]).solve(lam=0.5, beta=1)
    variance = np.array(rho) @ (levels - 0.5) ** 2
    prior = s.apriori()
    rows.append([name, s.J_sft, variance, prior.gain_variance_floor, s.J_prompter - s.J_sft,
                 prior.gain_variance_ceiling])
columns = ["prompter", r"\(J_0\)", r"\(\mathrm{Var}(g)\)", "floor", r"gain \(J_\lambda-J_0\)",
           "ceiling"]
formula_table(pd.DataFrame(rows, columns=columns)).hide(axis="index")

# %% [markdown]
# All start at the same mean. The gain follows the variance and is between the two bounds. A
# prompter that always writes nearly the same cannot learn.

# %% [markdown]
# ## What a nat buys (C10, C12)
#
# Four ways to spend KL: the optimal prompter, the best of $n$ sampled rewrites, fine-tuning from
# the frozen model, and fine-tuning from the mixture that the untrained prompter induces. The
# optimal prompters at all leashes form a curve, the *Gibbs front*: no prompter earns more at the
# same KL.

# %%
mixture = replace(inst, pi_F=sol.pi_sft_mix)
betas = np.geomspace(0.02, 100, 161)
runs = {
    "fine-tuning from the frozen model": [inst.solve(lam=1, beta=b) for b in betas],
    "fine-tuning from the mixture": [mixture.solve(lam=1, beta=b) for b in betas],
}
curve = inst.lambda_curve(np.geomspace(1e-3, 100, 161))
bests = [inst.best_of_n(n) for n in (1, 2, 4, 8, 16, 32, 64)]

# %%
series = [
    ("optimal prompter (Gibbs front)", curve.kl, curve.J_prompter),
    ("best-of-n rewrites", [b.kl for b in bests], [b.value for b in bests]),
]
series += [(name, [s.kl_rlhf for s in run], [s.J_rlhf for s in run]) for name, run in runs.items()]
front = pd.concat(pd.DataFrame({"strategy": n, "kl": k, "reward": J}) for n, k, J in series)
draw.pareto_front(front[front["kl"] <= 2.6]);

# %% [markdown]
# *Figure: reward against KL for four strategies. See that best-of-n runs just below the Gibbs
# front, and that fine-tuning from the mixture starts at the same point as the prompter and stays
# above it.* Fine-tuning from the frozen model starts higher, since blind rewriting hurts on this
# instance. KL is measured in each case to the strategy's own reference.

# %%
rows = []
for b in bests[1:]:
    optimal = inst.kl_budget(b.kl)
    rows.append([b.n, b.kl, b.kl_bound, b.value, optimal.value])
columns = [r"\(n\)", "KL, nats", r"\(\log n-\frac{n-1}n\)", "best-of-n", "optimal at this KL"]
formula_table(pd.DataFrame(rows, columns=columns)).hide(axis="index")

# %% [markdown]
# Best-of-n stays within its KL bound and below the optimal prompter at the same KL, in every row,
# and not by much: choosing among a few sampled rewrites is a strong baseline. It needs $g$,
# though, that is, many answers to each rewrite. (The bound on its KL is $\log n-\frac{n-1}n$, C12.)

# %%
draws = rng.dirichlet(np.full(12, 0.3), size=(300, 30))
before = np.array([kl(d, inst.rho_sft) for d in draws])
after = np.array([kl((d[:, None] @ inst.pi_F_rewrites)[:, 0], sol.pi_sft_mix) for d in draws])
assert (after <= before).all()
largest = (after / before).max()
print(f"KL of responses / KL of rewrites: at most {largest:.2f} in {len(draws)} prompters")

# %% [markdown]
# The frozen model blurs what the prompter does: the KL between responses is much smaller than
# between rewrites (C10). Fine-tuning spends its KL on responses directly, so it earns more from the
# same start.
#
# C10 compares equal KL. At equal $\lambda$ and $\beta$ it can be the other way round, since the
# same leash lets the prompter move farther:

# %%
rho, answers = np.array([[0.99, 0.01]]), np.array([[0.75, 0.25, 0], [0, 0, 1]])
s = theory.Instance([1], rho, rho @ answers, answers, [[0, 0.8, 1]]).solve(lam=0.1, beta=0.1)
print(f"prompter {s.J_prompter:.3f} at KL {s.kl:.2f}, fine-tuning {s.J_rlhf:.3f} at KL {s.kl_rlhf:.2f}")

# %% [markdown]
# The prompter spends more nats, and earns more.
#
# ## What a measured KL allows (C11)
#
# The KL of a real prompter is measured during training. It bounds the gain of *any* prompter,
# optimal or not, by $\mathrm{osc}(g)\sqrt{\mathrm{KL}/2}$, where $\mathrm{osc}(g)$ is the range
# of $g$.

# %%
width = np.ptp(inst.g, axis=1)
rows = []
for b in bests[1:]:
    rows.append([f"best of {b.n}", b.kl, b.value - sol.J_sft, np.sqrt(inst.P @ width**2 * b.kl / 2)])
for t in (1.0, 0.1, 0.01):
    s = inst.solve(lam=t, beta=beta)
    ceiling = np.sqrt(inst.P @ width**2 * s.kl / 2)
    rows.append([f"optimal at λ = {t:g}", s.kl, s.J_prompter - s.J_sft, ceiling])
table = pd.DataFrame(rows, columns=["prompter", "KL, nats", "gain", "ceiling"])
assert (table["gain"] <= table["ceiling"]).all()
formula_table(table).hide(axis="index")

# %% [markdown]
# The ceiling is about twice the optimal gain, and beyond two nats it is above the range of $g$
# itself. The Gibbs front is exact, but has to be known. The ceiling needs two numbers.

# %% [markdown]
# ## When does prompting beat RLHF? (C7, C15)
#
# Both leashes on the axes, the gap as colour.

# %%
grid_lam, grid_beta = np.geomspace(1e-2, 10, 81), np.geomspace(1e-1, 30, 81)
J_prompter = inst.lambda_curve(grid_lam).J_prompter
J_rlhf = np.array([inst.solve(lam=1, beta=b).J_rlhf for b in grid_beta])
delta = pd.DataFrame(J_rlhf[None] - J_prompter[:, None], index=grid_lam, columns=grid_beta)
cells = delta.rename_axis(index="lam", columns="beta").stack().rename("delta").reset_index()
border = pd.DataFrame({"beta": grid_beta, "lam_c": [inst.lambda_c(b) for b in grid_beta]})
draw.phase_diagram(cells, border[border["lam_c"] > 0]);

# %% [markdown]
# *Figure: the gap over both leashes; the black line is the critical leash λ_c, below which
# prompting wins. See that the line rises with β, as C15 states, and that it starts at some β: to
# its left no prompter reaches the RLHF optimum.* Where the line flattens out, RLHF hardly moves
# and the prompter only has to beat the frozen model.

# %%
first = border.loc[border["lam_c"] > 0, "beta"].min()
ceiling = sol.J_rlhf - sol.floor
print(f"mean reward of the best rewrites: {ceiling:.3f}")
print(f"prompting can win from about β = {first:.2f} on")
for b in (first / 1.2, first * 1.2):
    s = inst.solve(lam=lam, beta=b)
    print(f"β = {b:.3f}: RLHF earns {s.J_rlhf:.3f}, floor of the gap (C7) {s.floor:+.4f}, "
          f"least KL that matches RLHF {inst.matching_budget(b):.2f} nats")

# %% [markdown]
# The floor changes its sign at that $\beta$, from positive to negative. It is the whole condition:
# prompting can win if and only if the best rewrites earn more than the fine-tuned model.

# %% [markdown]
# For two rewrites and two answers the critical leash has a formula. We compare it with the solver.

# %%
p, p_new, q, b = 0.3, 0.8, 0.1, 1.5
tiny = theory.Instance([1], [[1 - q, q]], [[1 - p, p]], [[1 - p, p], [1 - p_new, p_new]], [[0, 1]])
s = tiny.solve(lam=1, beta=b).J_rlhf
tau = (s - p) / (p_new - p)
formula = (p_new - p) / (np.log(tau / (1 - tau)) - np.log(q / (1 - q)))
print(f"formula {formula:.10f}, solver {tiny.lambda_c(b):.10f}")

# %% [markdown]
# They agree.

# %% [markdown]
# ## Imitation is another matter (C16)
#
# Matching RLHF's value is one thing, matching its answers another. How often does the RLHF optimum
# lie in the convex hull of the rewrites?

# %%
rows = []
for K in (4, 8, 16, 32, 64):
    some = instances.random_instance(rng, 20, K, 4)
    inside = np.mean([some.in_convex_hull(x, beta=0.5) for x in range(20)])
    far = np.mean([some.hull_projection(x, t)[0] for x, t in enumerate(some.solve(1, 0.5).pi_star)])
    rows.append({"rewrites": K, "share in the hull": inside, "mean TV from the hull": far})
pd.DataFrame(rows).set_index("rewrites").round(3)

# %% [markdown]
# With four answers and many varied rewrites the hull fills the simplex, and the RLHF optimum is
# inside more often. With fewer rewrites than answers, as for a pool of suffixes and the vocabulary
# of a language model, it is outside except by accident. That does not matter for the value, which
# is one number.

# %% [markdown]
# ## What was found
#
# - The gap is fine-tuning's Jeffreys gain, plus the cost of blind rewriting, minus the prompter's
#   Jeffreys gain.
# - Using that, the bound falls with the gap; using the mixture, it is never vacuous. C4 and the
#   untrained moments add lower bounds.
# - The KL of any prompter bounds its gain (C11).
# - A prompter lives on the variance of $g$ under the untrained prompter, and ends at the best
#   rewrite.
# - At a matched reference and equal KL fine-tuning never earns less. From the frozen model it may:
#   below the critical leash prompting wins, if the best rewrites earn more than the fine-tuned
#   model.
