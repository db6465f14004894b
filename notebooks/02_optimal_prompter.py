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
# # The optimal prompter, by formula and by force
#
# **The question.** Does an optimiser that has never seen the paper's formula find the same
# prompter?
#
# **What you will know at the end.** That an optimiser that does not know the closed form of the
# paper's Lemma 5.1 finds it; that no prompter beats it; what a badly trained prompter loses, to the
# last digit; and how the solution moves as the leash is loosened or stiffened. The proofs are in
# the chapter [The optimal prompter](../book/optimal_prompter.md).

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
import numpy as np
import pandas as pd
from scipy.optimize import minimize

from alignpro.figures import theory as draw
from alignpro import theory
from alignpro.report.formulas import formula_table
from alignpro.theory import gibbs, instances

from alignpro.figures.style import use_style

use_style()
rng = np.random.default_rng(seed)

# %% [markdown]
# ## Lemma 5.1 against a generic optimiser
#
# We take one random prompt with eight rewrites and give the prompter's objective
# $F(\rho)=\mathbb E_\rho\,g-\lambda\,\mathrm{KL}(\rho\|\rho_{\rm sft})$ to SciPy, which knows only
# that it has to maximise a function on the simplex.

# %%
inst = instances.random_instance(rng, prompts=1, rewrites=8, responses=5)
lam = 0.05
sol = inst.solve(lam=lam, beta=1.0)
g, rho_sft = sol.g[0], inst.rho_sft[0]


def minus_F(rho):
    return -(rho @ g - lam * gibbs.kl_divergence(rho, rho_sft))


# %%
found = minimize(
    minus_F, np.full(8, 1 / 8), method="SLSQP", bounds=[(1e-12, 1)] * 8,
    constraints={"type": "eq", "fun": lambda rho: rho.sum() - 1},
    options={"maxiter": 1000, "ftol": 1e-14},
)
table = {r"\(\rho_{\rm sft}\)": rho_sft, r"\(g\)": g,
         r"\(\rho^*\), formula": sol.rho_star[0], "optimiser": found.x}
shown = pd.DataFrame(table).sort_values(r"\(g\)").map("{:.5f}".format)
formula_table(shown.set_axis([f"rewrite {k}" for k in shown.index]))

# %% [markdown]
# The last two columns agree: the optimiser finds the tilt. Compare the first and the third column:
# the mass has moved to the rewrites with the larger $g$, and none of the rewrites has been dropped
# altogether.

# %%
log_Z = sol.log_Z_x[0]
print(f"largest difference of the two prompters: {np.abs(found.x - sol.rho_star[0]).max():.1e}")
print(f"F at the optimum minus λ log Z         : {-found.fun - lam * log_Z:.1e}")

# %% [markdown]
# Up to the tolerance of the optimiser, the value at the optimum is $\lambda\log Z$. Here $Z$ is the
# partition function, the sum that normalises the tilt.

# %% [markdown]
# ## Nobody does better
#
# The proof of uniqueness is one identity: $F(\rho^*)-F(\rho)=\lambda\,\mathrm{KL}(\rho\|\rho^*)$
# for any prompter $\rho$. We try a thousand random prompters. The *shortfall* is the left-hand
# side.

# %%
others = rng.dirichlet(np.full(8, 0.5), size=1000)
shortfall = np.array([-minus_F(sol.rho_star[0]) + minus_F(rho) for rho in others])
lam_kl = lam * gibbs.kl_divergence(others, sol.rho_star[0])
assert np.abs(shortfall - lam_kl).max() < 1e-12
print(f"smallest shortfall {shortfall.min():.4f}, never negative")
print(f"largest difference from λ KL: {np.abs(shortfall - lam_kl).max():.1e}")

# %% [markdown]
# All of them fall short, each by exactly $\lambda$ times its KL to the optimum. Next, a prompter
# that learns.

# %% [markdown]
# ## A prompter in training
#
# A softmax over the rewrites starts at the untrained prompter and follows the gradient of $F$. This
# is what PPO does in the later chapters, without the noise. The gradient for a softmax is the
# advantage, weighted by the probability. `score` is the mean reward of a rewrite minus the leash's
# tax on it, $g-\lambda\log(\rho/\rho_{\rm sft})$, and the advantage is the score minus its mean.

# %%
logits, steps = np.log(rho_sft), []
for step in range(3000):
    rho = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    steps.append({"step": step, "regret": lam * log_Z + minus_F(rho),
                  "lam_kl": lam * gibbs.kl_divergence(rho, sol.rho_star[0])})
    score = g - lam * np.log(rho / rho_sft)
    logits += 2.0 * rho * (score - rho @ score)
frame = pd.DataFrame(steps)
draw.training_regret(frame.iloc[::10]);

# %% [markdown]
# *Figure: the regret of a prompter in training, on a logarithmic scale. See that the dashed curve
# covers the thick one: what is lost is λ KL to the optimum, not only at the end but at every
# step.* The *regret* is the shortfall of before, $F(\rho^*)-F(\rho)$.

# %%
first, last = frame["regret"].iloc[0], frame["regret"].iloc[-1]
half = int((frame["regret"] < first / 2).idxmax())
print(f"regret: {first:.4f} before training, halved after {half} steps")
print(f"after {len(frame)} steps: {last:.1e}")

# %% [markdown]
# Plain gradient ascent gets most of the way fast, and then crawls. The last stretch belongs to
# rewrites that have become rare: a softmax moves them in proportion to their probability.

# %% [markdown]
# ## What the multiplier does
#
# A prompter has to sum to one. Setting the derivative of $F$ to zero without a Lagrange multiplier
# for this constraint gives $\rho_{\rm sft}\,e^{g/\lambda-1}$. Does that sum to one?

# %%
stationary = rho_sft * np.exp(g / lam - 1)
print(f"sum without multiplier: {stationary.sum():.3g},  Z / e: {np.exp(log_Z - 1):.3g}")
mu = lam * log_Z - lam
gradient = g - lam * np.log(sol.rho_star[0] / rho_sft) - lam - mu
print(f"largest gradient of the Lagrangian with multiplier: {np.abs(gradient).max():.1e}")

# %% [markdown]
# It does not. With the multiplier $\mu=\lambda\log Z-\lambda$ the whole gradient vanishes at the
# optimum, on every rewrite.

# %% [markdown]
# ## From no leash to a rigid one
#
# Now the leash moves. We draw how the optimal prompter shares its mass between the eight rewrites.

# %%
lams = np.geomspace(1e-3, 10, 161)
order = np.argsort(g)
rows = [
    {"lam": t, "rewrite": rank, "g": g[k], "probability": rho[k]}
    for t in lams
    for rho in [inst.solve(lam=t, beta=1.0).rho_star[0]]
    for rank, k in enumerate(order)
]
draw.tilt_shares(pd.DataFrame(rows));

# %% [markdown]
# *Figure: the optimal prompter against the leash; each band is one rewrite, the best at the top.
# See the left end, where the best rewrite has everything, and the right end, which is the
# untrained prompter.* The bands of the other rewrites open as the leash stiffens.

# %%
curve = inst.lambda_curve(lams)
columns = {"lam": lams, "J": curve.J_prompter, "kl": curve.kl, "lam_kl": lams * curve.kl}
frame = pd.DataFrame(columns)
draw.reward_and_kl(frame);

# %% [markdown]
# *Figure: reward, KL, and λ times KL against the leash. See that the first two fall
# throughout, while the product vanishes at both ends.* The product is the third term of the
# paper's bound; the next chapter shows what its shape does to the bound.

# %%
ceiling = -np.log(rho_sft[g.argmax()])
above, below = (inst.lambda_curve(lams * (1 + h)).J_prompter for h in (1e-4, -1e-4))
slope = (above - below) / (2e-4 * lams)
worst = np.abs(slope - curve.dJ_dlam).max() / np.abs(curve.dJ_dlam).max()
print(f"KL at the loosest leash: {curve.kl[0]:.4f}, log 1/ρ_sft(best): {ceiling:.4f}")
print(f"J at the loosest leash : {curve.J_prompter[0]:.4f}, best g: {g.max():.4f}")
print(f"slope of J against the formula (C8): within {worst:.1e} of the largest slope")

# %% [markdown]
# The limits are the ones of the chapter: the best rewrite, at a price of
# $\log\frac1{\rho_{\rm sft}(\text{best})}$ nats. And the slope of $J_\lambda$ is
# $-\mathrm{Var}_{\rho^*}(g)/\lambda^2$ (C8): finite differences confirm it.

# %% [markdown]
# ## The price of a nat
#
# Over several prompts a KL budget $\kappa$ has to be shared. `kl_budget` finds the best prompter
# within a budget, and its price $\lambda$ (C9). The alternative is to spend the same on each
# prompt.

# %%
many = instances.random_instance(rng, prompts=20, rewrites=8, responses=5)
tables = (many.rho_sft, many.pi_F, many.pi_F_rewrites, many.reward)
singles = [theory.Instance([1], *(table[[x]] for table in tables)) for x in range(20)]
rows = []
for kappa in (0.05, 0.2, 0.5, 1.0):
    shared = many.kl_budget(kappa)
    equal = np.mean([s.kl_budget(kappa).value for s in singles])
    rows.append([kappa, shared.lam, shared.value, equal])
columns = [r"budget \(\kappa\), nats", r"price \(\lambda\)", "reward, shared budget",
           "reward, equal budgets"]
formula_table(pd.DataFrame(rows, columns=columns).map("{:.4g}".format)).hide(axis="index")

# %% [markdown]
# A shared budget earns at least as much as equal spending, in every row. The price of a nat falls
# as the budget grows: the first nats are the most valuable.

# %% [markdown]
# ## A wrong reward, and a sampled one
#
# Two results for practice. First (C13): an error of at most $\varepsilon$ in $g$ costs at most
# $\varepsilon^2/(2\lambda)$. We try a thousand errors of size $\varepsilon$.

# %%
epsilon, costs = 0.05, []
for _ in range(1000):
    wrong = gibbs.tilt(rho_sft, g + epsilon * rng.choice([-1, 1], size=8), lam).p
    costs.append(inst.regret(wrong[None], lam))
ceiling = epsilon**2 / (2 * lam)
print(f"largest cost {max(costs):.5f}, ceiling ε² / (2 λ) = {ceiling:.5f}")
assert max(costs) <= ceiling

# %% [markdown]
# No error costs more than the ceiling. But that is the cost in the *objective*, reward minus
# $\lambda$ KL. In plain reward an error counts to first order: a small $\varepsilon$ costs far more
# than $\varepsilon^2$. We look for the worst error for the reward, out of all signs. The bound is
# $\mathrm{osc}(g)\tanh(\varepsilon/2\lambda)$, also from C13.

# %%
signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
misled = gibbs.tilt(rho_sft, g + epsilon * signs, lam).p
lost = (sol.rho_star[0] - misled) @ g
bound = np.ptp(g) * np.tanh(2 * epsilon / (4 * lam))
print(f"reward lost: up to {lost.max():.4f}, bound {bound:.4f}")
assert np.abs(lost).max() <= bound
print(f"the objective loses {inst.regret(misled[[lost.argmax()]], lam):.4f} with the same error")

# %% [markdown]
# A prompter can lose far more reward than objective: the misled prompter also saves KL.
#
# Second (C14): $\log Z$ estimated from $n$ sampled rewrites is too low on average. We measure the
# bias and compare it with its bound.

# %%
ratio = sol.rho_star[0] / rho_sft
a, chi2 = ratio.min(), rho_sft @ ratio**2 - 1
c = (a - 1 - np.log(a)) / (1 - a) ** 2
rows = []
for n in (4, 16, 64, 256):
    draws = ratio[rng.choice(8, p=rho_sft, size=(20_000, n))]
    logs = np.log(draws.mean(axis=1))
    rows.append([n, -logs.mean(), logs.std() / len(logs) ** 0.5, c * chi2 / n])
columns = [r"\(n\)", "bias", "standard error", "bound (C14)"]
shown = pd.DataFrame(rows, columns=columns).astype({r"\(n\)": int})
formula_table(shown.map(lambda v: f"{v:.5f}" if isinstance(v, float) else v)).hide(axis="index")

# %% [markdown]
# The bias has the predicted sign, is below the bound, and falls with $n$, at last like $1/n$. So
# with $g$ known, a value $\lambda\log Z$ estimated from sampled rewrites is too low on average,
# not too high. `alignpro.theory.from_samples`, which reweights samples of any model, reports this
# bias.

# %% [markdown]
# ## What was found
#
# - The optimal prompter is $\rho_{\rm sft}\,e^{g/\lambda}$, normalised. An optimiser that does
#   not know this finds the same.
# - Any other prompter loses exactly $\lambda\,\mathrm{KL}(\rho\|\rho^*)$, in training and after it.
# - Without a leash the optimum is the best rewrite, at $\log\frac1{\rho_{\rm sft}(\text{best})}$
#   nats. With a rigid one it is the untrained prompter. The product of $\lambda$ and KL vanishes
#   at both ends.
# - $\lambda$ is the price of a nat. Reward errors enter the objective squared and the reward to
#   first order. Sampling makes $\log Z$ too low.
