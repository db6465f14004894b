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
# # The setting, on an instance to follow by hand
#
# **The question.** Does general code, which knows nothing of the coin, find the values that the
# chapter [The setting](../book/setting.md) found by hand?
#
# **What you will know at the end.** How a prompter in front of a frozen model compares with a
# fine-tuned model on the smallest example that has everything in it: three rewrites, two answers.
# At the end comes the picture for three answers: a hull and a curve.

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

# %% [markdown]
# The package `alignpro.theory` computes everything exactly, on finite sets. It needs NumPy alone,
# so this notebook runs anywhere, in a few seconds.

# %%
import numpy as np
import pandas as pd

from alignpro.figures import theory as draw
from alignpro import theory
from alignpro.report.formulas import SYMBOLS, formula_table

from alignpro.figures.style import use_style

use_style()

# %% [markdown]
# ## The coin
#
# One prompt, a bad answer (reward 0) and a good one (reward 1). Three rewrites: the first makes
# the good answer less likely, the second is the prompt itself, the third makes it more likely.
# Rows of `pi_F_rewrites` are rewrites, its columns are answers.

# %%
coin = theory.Instance(
    P=[1.0],
    rho_sft=[[1 / 4, 1 / 2, 1 / 4]],
    pi_F=[[1 / 2, 1 / 2]],
    pi_F_rewrites=[[3 / 4, 1 / 4], [1 / 2, 1 / 2], [1 / 4, 3 / 4]],
    reward=[[0.0, 1.0]],
)
print("mean reward g of each rewrite:", coin.g[0])

# %% [markdown]
# Since the rewards are 0 and 1, the mean reward $g$ of a rewrite is its chance of the good answer.

# %% [markdown]
# ## Both optima at one pair of leashes
#
# The chapter chose the leashes $\lambda$ and $\beta$ so that all exponentials are powers of two. By
# hand: the optimal prompter is $(\frac19,\frac49,\frac49)$, and the fine-tuned model gives the good
# answer with probability $\frac23$. Multiples of 9 and of 3 are easier to compare.

# %%
lam, beta = 1 / (4 * np.log(2)), 1 / np.log(2)
sol = coin.solve(lam=lam, beta=beta)
print("optimal prompter x 9:", 9 * sol.rho_star[0])
print("fine-tuned model x 3:", 3 * sol.pi_star[0])

# %% [markdown]
# The solver agrees with the pencil. Next the values $J$ and the gap $\Delta$ (the paper's Equations
# 5 to 7), in twelfths, since the fractions in the chapter are twelfths.

# %%
by_hand = {"J_rlhf": 8, "J_frozen": 6, "J_sft": 6, "J_prompter": 7,
           "delta": 1, "delta1": 2, "delta2": -1}
solver = [f"{12 * getattr(sol, name):g}" for name in by_hand]
table = {"solver, in twelfths": solver, "by hand": list(by_hand.values())}
formula_table(pd.DataFrame(table, index=[SYMBOLS[name] for name in by_hand]))

# %% [markdown]
# The two columns are equal. Fine-tuning gains $\Delta_1$. The prompter gains $-\Delta_2$, which is
# half as much. The difference is the gap $\Delta$. Note that $\Delta_2$ is negative: nothing in the
# definition gives the parts of the gap a sign.

# %%
policies = {"No Fine-Tuning": coin.pi_F, "Align-Pro": sol.pi_prompter, "RLHF": sol.pi_star}
rows = [
    {"policy": name, "response": answer, "probability": p}
    for name, pi in policies.items()
    for answer, p in zip(["bad answer", "good answer"], pi[0])
]
draw.response_bars(pd.DataFrame(rows));

# %% [markdown]
# *Figure: the answers of the three configurations. See the order on the good answer: the frozen
# model, then the rewritten prompts, then the fine-tuned model.* The prompter moves in the right
# direction without touching the model; at these two leashes fine-tuning moves farther.

# %% [markdown]
# ## Every leash at once
#
# For the coin both values have a formula. The prompter's is
# $\frac12+\frac14\tanh\frac1{8\lambda}$, and the RLHF optimum's is
# $\frac12+\frac12\tanh\frac1{2\beta}$. We compare with the solver over six orders of magnitude.

# %%
leashes = np.geomspace(1e-3, 1e3, 121)
sols = [coin.solve(lam=t, beta=t) for t in leashes]
prompter = np.array([s.J_prompter for s in sols])
rlhf = np.array([s.J_rlhf for s in sols])
error = max(
    np.abs(prompter - (0.5 + np.tanh(1 / (8 * leashes)) / 4)).max(),
    np.abs(rlhf - (0.5 + np.tanh(1 / (2 * leashes)) / 2)).max(),
)
assert error < 1e-14
print(f"largest difference between formula and solver: {error:.1e}")

# %% [markdown]
# Formula and solver agree to rounding. The picture of both:

# %% tags=["explore-figure"]
frame = pd.concat(
    pd.DataFrame({"leash": leashes, "policy": name, "J": J})
    for name, J in [
        ("No Fine-Tuning", np.full_like(leashes, coin.value([[0, 1, 0]]))),
        ("Align-Pro", prompter),
        ("RLHF", rlhf),
    ]
)
draw.values_against_leash(frame);

# %% [markdown]
# *Figure: mean reward against the leash. See the two ceilings on the left: with no leash the
# fine-tuned model always gives the good answer, while the prompter stops at its best rewrite.* On
# the right, with a stiff leash, both stay at the frozen model. The same number on the axis does not
# mean the same freedom: the two leashes act on different spaces.

# %% [markdown]
# ## A prompter that beats the fine-tuned model
#
# With RLHF's leash fixed as above, loosen the prompter's. According to the chapter the two are
# equal at $\lambda_c=1/(4\log5)$, the *critical leash*. `lambda_c` finds that point numerically.

# %%
critical = coin.lambda_c(beta)
print(f"critical leash {critical:.6f}, by hand {1 / (4 * np.log(5)):.6f}")
for factor in (0.5, 1.0, 2.0):
    gap = coin.solve(lam=factor * critical, beta=beta).delta
    print(f"gap at {factor} times the critical leash: {gap:+.4f}")

# %% [markdown]
# Below the critical leash the gap is negative: rewriting the prompt earns more than fine-tuning
# the model. This is not a trick of the coin. The chapter [Sharper](../book/sharper.md) tells
# exactly when it happens.

# %% [markdown]
# ## Three answers: a hull and a curve
#
# With three answers the response distributions are the points of a triangle. A prompter reaches
# mixtures of the rewrites, a convex hull. Fine-tuning moves along a curve. We draw five rewrites
# and let both leashes run.

# %%
pool = np.array([[.5, .3, .2], [.7, .2, .1], [.2, .7, .1], [.15, .45, .4], [.35, .1, .55]])
triangle = theory.Instance([1], [[.4, .15, .15, .15, .15]], pool[:1], pool, [[0, .5, 1]])
sols = [triangle.solve(lam=t, beta=t) for t in np.geomspace(0.002, 200, 200)]
points = {
    "rewrite": pool,
    "frozen model": pool[:1],
    "RLHF": np.concatenate([s.pi_star for s in sols]),
    "Align-Pro": np.concatenate([s.pi_prompter for s in sols]),
}
answers = ["y1", "y2", "y3"]
frame = pd.concat(pd.DataFrame(p, columns=answers).assign(kind=k) for k, p in points.items())
draw.simplex(frame);

# %% [markdown]
# *Figure: response distributions over three answers. See that RLHF starts at the frozen model and
# leaves the hull, while Align-Pro starts inside (at the mixture of all rewrites) and ends at the
# best rewrite, a corner of the hull.* All the theory of the next chapters measures, in reward, the
# distance between a point of the curve and a point of the hull.

# %%
distance = [triangle.hull_projection(0, s.pi_star[0])[0] for s in sols]
inside = sum(d < 1e-9 for d in distance)
print(f"RLHF optima that some prompter imitates exactly: {inside} of {len(sols)} leashes")
print(f"distance of the loosest one from the hull, in total variation: {max(distance):.2f}")

# %% [markdown]
# For a stiff leash the RLHF optimum is still in the hull, and some prompter imitates it exactly.
# Beyond that no prompter does, however it is trained.

# %% [markdown]
# ## What was found
#
# - A prompter chooses among mixtures of the frozen model's answers to rewrites. Fine-tuning tilts
#   its answers to the original prompt.
# - Both have a closed form, and the solver reproduces the numbers found by hand.
# - Each has its own ceiling and its own leash, and the gap between them can have either sign.
