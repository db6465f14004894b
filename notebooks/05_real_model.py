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
# # The theorem on a real language model, exactly
#
# **The question.** Does the theory describe a real language model, and which of its terms matter
# there?
#
# **What you will know at the end.** How large each term of the theory is on a real model,
# SmolLM2-135M, with nothing sampled and nothing estimated: the parts of the gap, the bounds, what a
# nat of KL buys, and the leashes at which prompting beats RLHF. Then what the paper's truncated
# sampling does to each of them, and how a prompter trained by policy gradient closes in on the
# optimum, its regret a KL at every step.
#
# The trick: let the answer be **one token**. Then the frozen model is a softmax over its
# vocabulary, one row of a table, and everything in the chapter [Sharper](../book/sharper.md)
# holds for it.

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
seed = 0

# %% [markdown]
# The preset names the frozen model that is F1. In `smoke` it is a tiny random model: every cell and
# every identity below runs on it, but the text describes the real one.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from alignpro import config, data, models
from alignpro.figures import theory as draw
from alignpro import theory
from alignpro.report.formulas import SYMBOLS, formula_table
from alignpro.theory import gibbs, next_token

from alignpro.figures.style import use_style

use_style()
rng = np.random.default_rng(seed)
setting = config.load_preset(preset)

# %% [markdown]
# ## Questions that one token answers
#
# We use closed questions, whose answer starts with a yes or a no. They come from the project's own
# prompts. We add the true answers, for the reward alone; the model never sees them.

# %%
closed = [p for p in data.load_prompts("chat", "train") if p.kind == "yesno"]
closed = closed[: 4 if preset == "smoke" else 24]
answer_is_yes = """whales Eiffel Welsh octopuses passport swim Roman bees Shakespeare snow
Beethoven badminton""".split()
truth = np.array([any(word in str(p) for word in answer_is_yes) for p in closed])
print(f"{len(closed)} questions, for {truth.sum()} of them the true answer is yes; the first ones:")
for p, t in list(zip(closed, truth))[:4]:
    print(f"  {p}  ({'yes' if t else 'no'})")

# %% [markdown]
# Both answers occur, so a model that always says the same word cannot be right on all of them.
#
# ## Rewrites
#
# A rewrite is the question with a *suffix*, a short instruction after it. The pool of suffixes is
# written by hand: none at all (the question itself), requests for a closed answer, leading
# questions, requests that pull elsewhere, and small talk.

# %%
suffixes = [
    "", "Answer yes or no.", "Yes or no?", "Start with yes or no.", "Reply with yes or no only.",
    "Answer with one word.", "True or false?", "Is it true?", "Say yes.", "Say no.",
    "Yes, right?", "No, right?", "Answer in one sentence.", "Be brief.", "Explain why.",
    "Think step by step.", "Give an example.", "Use a numbered list.", "Tell me more.",
    "Thank you!",
]
assert suffixes[0] == "" and len(set(suffixes)) == len(suffixes)

# %% [markdown]
# Now the only cell that uses the model. For each question, a forward pass over its rewrites as one
# batch gives the logits of the next token at every rewrite, in float32; the softmax is taken in
# float64, over the whole vocabulary. The same pass gives the likelihood of each suffix
# under the model itself.

# %%
model, tokenizer = models.load(setting.models["F1"])
model.float()
logits, likelihood = next_token.next_token_logits(model, tokenizer, closed, suffixes)
table = next_token.next_token_table(logits)
X, K, V = table.shape
del model
print(f"{X} prompts x {K} rewrites x {V:,} tokens = {table.size / 1e6:.1f} million probabilities")

# %%
words = np.array([tokenizer.decode([i]).strip().lower() for i in range(V)])
rows = {}
for k in (0, 2, 12, 15):
    top = np.argsort(table[-1, k])[::-1][:6]
    rows[suffixes[k] or "(none)"] = [f"{words[i]} {table[-1, k, i]:.2f}" for i in top]
print(closed[-1])
pd.DataFrame(rows, index=[f"token {i + 1}" for i in range(6)]).T

# %% [markdown]
# Each row is one rewrite of the last question, with its six likeliest answers (lower-cased, so a
# word can show up twice). The suffix decides what kind of word comes first.

# %% [markdown]
# ## The reward and the untrained prompter
#
# The reward is 1 for the right answer, 1/4 for the wrong one (it answers the question, after all),
# and 0 for every other token. All spellings of a word count, and its initial.

# %%
yes, no = np.isin(words, ["yes", "y"]), np.isin(words, ["no", "n"])
right = np.where(truth[:, None], yes, no)
reward = right + 0.25 * (yes | no) * ~right
print("tokens that count as yes or no:", yes.sum(), "and", no.sum())

# %% [markdown]
# As the untrained prompter $\rho_{\rm sft}$ we take the model's own taste: the likelihood of
# continuing the user's message with this suffix and then ending it, per token, normalised over
# the pool. Every suffix has a positive probability, and the probabilities depend on the prompt.

# %%
rho_sft = np.exp(likelihood)
rho_sft /= rho_sft.sum(axis=1, keepdims=True)
P = np.full(X, 1 / X)
inst = theory.Instance(P, rho_sft, table[:, 0], table, reward)
del table
frame = pd.DataFrame({"suffix": suffixes, "untrained": P @ rho_sft, "g": P @ inst.g})
frame["best for"] = np.bincount(inst.g.argmax(axis=1), minlength=K)
top = frame.sort_values("g", ascending=False).head(8)
top.columns = ["suffix", r"\(\rho_{\rm sft}\)", r"\(g\)", "best for so many questions"]
formula_table(top).hide(axis="index")

# %% tags=["explore-data", "remove-cell"]
# The page on which readers move the leashes takes the instance from here.
from IPython.display import JSON
from alignpro.theory.reduced import LEASHES, reduced

named = {"name": "the language model", "rewrites": [suffix or "(no suffix)" for suffix in suffixes]}
JSON(named | reduced(inst, LEASHES))

# %%
print(f"no suffix: ρ_sft {P @ rho_sft[:, 0]:.3f}, g {P @ inst.g[:, 0]:.3f}")
print(f"a constant suffix earns at most {(P @ inst.g).max():.3f}, "
      f"the best suffix of each question {(P @ inst.g.max(axis=1)):.3f}")

# %% [markdown]
# The table shows the eight best suffixes, averaged over the questions. No suffix is the likeliest
# rewrite, and it earns little. The last column counts for how many questions a suffix is the
# best: one suffix wins for most of them. The best suffix of each question earns hardly more than
# one suffix for all, so there is little to gain from reading the question. That is a finding
# about this small model and this pool. The chapters on the experiment choose a reward for which
# reading pays.

# %% [markdown]
# ## Both optima, and the identities
#
# From here on the model is a table, and everything is exact. We need a leash for each side. We
# take $\lambda=0.05$ and $\beta=1$, at which both optima have clearly left their references and
# neither has reached its ceiling. The sweeps below show other pairs.

# %%
lam, beta = 0.05, 1.0
sol = inst.solve(lam=lam, beta=beta)
print(f"frozen model {sol.J_frozen:.3f}, untrained prompter {sol.J_sft:.3f}, "
      f"optimal prompter {sol.J_prompter:.3f}, RLHF {sol.J_rlhf:.3f}, gap {sol.delta:+.3f}")

# %% [markdown]
# On the real model, at these leashes, the gap is negative: the optimal prompter earns more than
# RLHF. Do the identities of the theory hold here, to rounding? First the lemma: at the optimum
# every rewrite has the same score, $g-\lambda\log(\rho^*/\rho_{\rm sft})$, and that score is the
# optimal value.

# %%
score = inst.g - lam * np.log(sol.rho_star / rho_sft)
errors = {"Lemma 5.1, equal scores": np.ptp(score, axis=1).max()}
errors["Lemma 5.1, optimal value"] = sol.J_prompter - lam * sol.kl - lam * P @ sol.log_Z_x


# %%
def kl(p, q):
    return P @ gibbs.kl_divergence(p, q)


rho = rng.dirichlet(np.ones(K), size=X)
three_point = lam * (kl(rho, rho_sft) + kl(rho_sft, sol.rho_star) - kl(rho, sol.rho_star))
fine_tuning = beta * (sol.kl_rlhf + sol.kl_rlhf_reverse)
learning = lam * (sol.kl + sol.kl_reverse)
errors |= {
    "C1, a random prompter": inst.value(rho) - sol.J_sft - three_point,
    "C2, prompter": sol.J_prompter - sol.J_sft - learning,
    "C2, fine-tuning": sol.delta1 - fine_tuning,
    "C3, the gap": sol.delta - (fine_tuning + sol.J_frozen - sol.J_sft - learning),
}
assert max(map(abs, errors.values())) < 1e-10
pd.DataFrame({"left minus right": errors}).map("{:.1e}".format)

# %% [markdown]
# Every difference is rounding, far below the 1e-10 that the cell asserts: the theory holds on the
# real model as it does on a coin. Next the order of the bounds, at many pairs of leashes.

# %%
chain = ["floor", "delta", "bound_mixture", "bound_jeffreys", "bound_paper"]
for pair in [(0.005, 0.1), (0.05, 1.0), (0.5, 0.1), (0.5, 10.0), (10.0, 1.0)]:
    values = [getattr(inst.solve(*pair), name) for name in chain]
    assert (np.diff(values) >= -1e-10).all(), (pair, values)
named = ["floor", "gap", "mixture bound", "Jeffreys bound", "Theorem 6.1"]
print(" ≤ ".join(f"{name} {getattr(sol, field):+.3f}" for name, field in zip(named, chain)))

# %% [markdown]
# The line shows the chain at our pair of leashes; the assertion has checked it at others, too. The
# mixture bound is negative here, so it *proves* that prompting beats RLHF; the paper's bound is
# positive, and cannot.

# %% [markdown]
# ## The figures of *Sharper*, on the real model
#
# Only the RLHF side needs the vocabulary. The prompter's side is a table of 20 numbers per
# question, so a sweep over its leash is cheap.

# %%
lams = np.geomspace(3e-3, 10, 121)


def sweep(inst, sol):
    """Parts of the gap and bounds against lambda, from one solution and the prompter's curve."""
    curve = inst.lambda_curve(lams)
    learning, tax = lams * (curve.kl + curve.kl_reverse), lams * curve.kl
    gap, terms = sol.J_rlhf - curve.J_prompter, sol.bound_term1 + sol.bound_term2
    parts = pd.DataFrame({"lam": lams, "gap": gap, "fine_tuning": sol.delta1,
                          "rewriting": sol.J_frozen - sol.J_sft, "learning": learning})
    jeffreys = terms - learning
    mixture = jeffreys + sol.bound_mixture - sol.bound_jeffreys
    series = zip(draw.BOUND_STYLES, (terms - tax, jeffreys, mixture, gap, sol.floor))
    return parts, pd.concat(pd.DataFrame({"lam": lams, "bound": n, "value": y}) for n, y in series)


# %%
parts, bounds = sweep(inst, sol)
one = inst.solve(lam=lams[40], beta=beta)
for name, field in zip(draw.BOUND_STYLES, chain[:0:-1] + chain[:1]):
    swept = bounds.loc[bounds["bound"] == name, "value"].iloc[40]
    assert abs(swept - getattr(one, field)) < 1e-10
draw.stacked_gap(parts);

# %% [markdown]
# *Figure: the gap on SmolLM2 as the sum of its exact parts. See that only fine-tuning's gain is
# above zero: blind rewriting already helps here, so it counts for the prompter, below zero, and
# what the prompter learns outgrows fine-tuning's gain once its leash is loose.* The assertion
# compares the sweep with a full solution at one leash.

# %%
print(f"fine-tuning gains {sol.delta1:.3f}; blind rewriting gains {sol.J_sft - sol.J_frozen:.3f}; "
      f"the prompter learns up to {parts['learning'].max():.3f}")

# %% [markdown]
# These are the heights of the parts at this $\beta$. The same sweep with the bounds:

# %%
draw.bounds_against_lambda(bounds);

# %% [markdown]
# *Figure: three upper bounds on the gap. See that the mixture bound runs below the others at every
# leash and crosses zero, which certifies that prompting wins; the paper's bound never does, and
# turns back up to the left.*

# %%
certified = {n: bounds.loc[(bounds["bound"] == n) & (bounds["value"] < 0), "lam"].max()
             for n in list(draw.BOUND_STYLES)[:4]}
for name, at in certified.items():
    print(f"{name:20s} below zero " + ("nowhere" if np.isnan(at) else f"up to λ = {at:.3f}"))

# %% [markdown]
# The gap itself is negative up to a larger leash than any bound can certify.
#
# The gap is an average over questions. Next we take each question by itself, at three leashes of
# RLHF. (The reward of a question is between 0 and 1, so a bound above 1 is vacuous.)

# %%
rows, budgets = [], []
for x in range(X):
    tables = rho_sft[[x]], inst.pi_F[[x]], inst.pi_F_rewrites[[x]], reward[[x]]
    question = theory.Instance([1.0], *tables)
    largest_lam_kl = (lams * question.lambda_curve(lams).kl).max()
    for s in [question.solve(lam=lam, beta=b) for b in (0.3, 1.0, 3.0)]:
        budgets.append((largest_lam_kl >= s.bound_term1 + s.bound_term2, s.floor <= 0))
        rows.append({"bound": "Theorem 6.1 (paper)", "gap": s.delta, "value": s.bound_paper})
        rows.append({"bound": "mixture bound", "gap": s.delta, "value": s.bound_mixture})
scatter = pd.DataFrame(rows)
draw.bound_scatter(scatter).set_title("Bound against gap, question by question");

# %% [markdown]
# *Figure: bound against gap, one point for each question and leash of RLHF. See the distance of
# the points from the line, on which a perfect bound would lie: that is the slack, and it is never
# larger with the mixture bound than with the paper's.* The mixture bound is never in the grey
# region, where a bound is vacuous.

# %%
for name, part in scatter.groupby("bound"):
    print(f"{name:20s} vacuous {(part['value'] > 1).mean():4.0%}, "
          f"proves that prompting wins {(part['value'] < 0).mean():4.0%}, "
          f"median slack {(part['value'] - part['gap']).median():.3f}")
print(f"{'the gap itself':20s} prompting wins {(part['gap'] < 0).mean():.0%}")

# %% [markdown]
# For single questions, too, only a bound below zero is a proof that prompting wins. The last line
# counts the cases in which it does.
#
# The paper concludes from its bound that with a suitable KL budget the prompter matches RLHF. How
# often can the bound certify such a budget here, and how often is there one?

# %%
certified, exists = np.mean(budgets, axis=0)
print(f"a KL budget that matches RLHF: certified by Theorem 6.1 for {certified:.0%} of the questions "
      f"and leashes, existing for {exists:.0%}")
print(f"for all questions together, β = {beta}: {inst.matching_budget(beta):.2f} nats are enough")

# %% [markdown]
# A budget exists far more often than the theorem can tell.
#
# What does a nat buy? Fine-tuning tilts a reference over the tokens, so one short function serves
# both references, the frozen model and the mixture of all rewrites.

# %%
betas = np.geomspace(0.06, 10, 49)


def fine_tuned(inst, reference):
    """KL and reward of fine-tuning ``reference`` [X, V] at each beta."""
    tilts = (gibbs.tilt(reference, inst.reward, b) for b in betas)
    return np.array([[P @ t.kl, P @ (t.p * inst.reward).sum(axis=1)] for t in tilts]).T


def fronts(inst, sol):
    curve = inst.lambda_curve(np.geomspace(1e-3, 100, 161))
    bests = [inst.best_of_n(n) for n in (1, 2, 4, 8, 16, 32, 64)]
    series = [
        (*fine_tuned(inst, sol.pi_sft_mix), "fine-tuning from the mixture"),
        (*fine_tuned(inst, inst.pi_F), "fine-tuning from the frozen model"),
        (curve.kl, curve.J_prompter, "optimal prompter (Gibbs front)"),
        ([b.kl for b in bests], [b.value for b in bests], "best-of-n rewrites"),
    ]
    return pd.concat(pd.DataFrame({"kl": k, "reward": J, "strategy": n}) for k, J, n in series)


# %%
front = fronts(inst, sol)
draw.pareto_front(front[front["kl"] <= 2.6]);

# %% [markdown]
# *Figure: reward against KL on the real model. See that at equal KL, once it is not tiny, both
# kinds of fine-tuning earn far more than any prompter: a nat spent on tokens goes farther than a
# nat spent on rewrites.* The front of the prompter also ends, at the best suffix of each
# question. Best-of-n runs below it.

# %%
budget = inst.best_of_n(8)
print(f"best of 8: KL {budget.kl:.2f}, reward {budget.value:.3f}; the optimal prompter at this KL: "
      f"{inst.kl_budget(budget.kl).value:.3f}")
before, after = kl(sol.rho_star, rho_sft), kl(sol.pi_prompter, sol.pi_sft_mix)
assert after <= before
print(f"the optimal prompter moves {before:.2f} nats over rewrites, {after:.2f} over tokens (C10)")

# %% [markdown]
# Best-of-n stays a little below the optimum. The second line is the reason for the distance between
# the curves: the model blurs what the prompter does, and most of its nats never reach the answer.
#
# So how can prompting ever win? Because the leashes need not be equal, and neither do the
# references: blind rewriting gives the prompter a start.


# %%
def phases(inst, front):
    rlhf = front["strategy"] == "fine-tuning from the frozen model"
    J_rlhf, J_prompter = front.loc[rlhf, "reward"].to_numpy(), inst.lambda_curve(lams).J_prompter
    delta = pd.DataFrame(J_rlhf[None] - J_prompter[:, None], index=lams, columns=betas)
    cells = delta.rename_axis(index="lam", columns="beta").stack().rename("delta").reset_index()
    border = pd.DataFrame({"beta": betas, "lam_c": [inst.lambda_c(b) for b in betas]})
    return cells, border[(border["lam_c"] > 0) & np.isfinite(border["lam_c"])]


cells, border = phases(inst, front)
draw.phase_diagram(cells, border);

# %% [markdown]
# *Figure: the gap over both leashes on the real model. See the black line, the critical leash: it
# starts at some β, to the left of which no prompter over this pool can win, and rises steeply
# from there.*

# %%
print(f"prompting can win from β = {border['beta'].min():.2f} on; "
      f"at β = {beta}, below λ = {inst.lambda_c(beta):.3f}")

# %% [markdown]
# Where the critical leash is infinite, the untrained prompter already beats the fine-tuned model.
#
# ## What truncation does
#
# The paper samples at temperature 1.5 with top-p 0.6 and (our assumption) top-k 20. That is another
# frozen model: tokens outside the nucleus have probability zero. We switch the parts on one by one.
# Tokens that no rewrite of any question can produce are dropped; that changes nothing.

# %%
sampling = setting.frozen
policies = {
    "the full model": None,
    f"temperature {sampling.temperature}": replace(sampling, top_k=0, top_p=1.0),
    f"and top-k {sampling.top_k}": replace(sampling, top_p=1.0),
    f"and top-p {sampling.top_p}": sampling,
}


def truncated(sampling):
    pi = next_token.next_token_table(logits, sampling)
    alive = (pi > 0).any(axis=(0, 1))
    return theory.Instance(P, rho_sft, pi[:, 0][:, alive], pi[..., alive], reward[:, alive])


# %%
terms = ["J_frozen", "J_sft", "J_prompter", "J_rlhf", "delta", "delta1", "tv_rlhf", "tv_rewrites",
         "bound_term1", "bound_term2", "bound_term3", "bound_paper", "bound_jeffreys",
         "bound_mixture", "floor"]
shown = {}
for name, policy in policies.items():
    cut = inst if policy is None else truncated(policy)
    cut_sol = sol if policy is None else cut.solve(lam=lam, beta=beta)
    values = {SYMBOLS[term]: f"{getattr(cut_sol, term):z.3f}" for term in terms}
    values |= {r"\(\lambda_c\), critical leash": f"{cut.lambda_c(beta):.3f}",
               "RLHF without a leash": f"{cut.solve(1, 1e-4).J_rlhf:.3f}"}
    tokens = (cut.pi_F > 0).sum(axis=1).mean()
    shown[name] = {"possible tokens per prompt": f"{tokens:,.0f}"} | values
formula_table(pd.DataFrame(shown))

# %% [markdown]
# Read the rows from left to right. Temperature alone spreads the mass over the vocabulary, and all
# values fall. Truncation takes the tail away again, and more: the frozen model, the prompter and
# RLHF all end above where they started, since the nucleus is sharper than the model itself. The two
# total variations grow with it, so the first two terms of the bound do, too. The last row is the
# new thing: without any leash, fine-tuning reaches every reward of the full model, but not of the
# truncated one.

# %%
reach = np.where(cut.pi_F > 0, cut.reward, 0).max(axis=1)
rescued = np.where((cut.pi_F_rewrites > 0).any(axis=1), cut.reward, 0).max(axis=1)
print(f"questions whose right answer truncation makes impossible: {(reach < 1).sum()} of {X}; "
      f"of these, possible again after some rewrite: {((reach < 1) & (rescued == 1)).sum()}")

# %% [markdown]
# For these questions the tilt of Equation 4 has nothing to tilt: zero times anything is zero. A
# rewrite can bring the token back. (In the experiments of the paper and of this book the weights
# are trained first and the *trained* model is truncated; exercise 2 looks at that order.)

# %%
parts_cut, bounds_cut = sweep(cut, cut_sol)
figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), sharex=True, sharey="row")
both = {"The full model": (parts, bounds), "Truncated": (parts_cut, bounds_cut)}
for (top, bottom), (title, frames) in zip(axes.T, both.items()):
    draw.stacked_gap(frames[0], top).set(title=f"{title}: the gap", xlabel="")
    draw.bounds_against_lambda(frames[1], bottom).set_title(f"{title}: bounds")
for ax in axes[:, 0]:
    ax.get_legend().remove()

# %% [markdown]
# *Figure: parts of the gap (top) and bounds (bottom), for the full model and the truncated one. See
# that all parts grow together under truncation: what fine-tuning gains and what the prompter
# learns.* The shapes stay the same, so what the full model teaches about the terms carries over.

# %%
front_cut = fronts(cut, cut_sol)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
for ax, title, frame in zip(axes, both, (front, front_cut)):
    draw.pareto_front(frame[frame["kl"] <= 2.6], ax).set_title(f"{title}: reward that a nat buys")
axes[1].get_legend().remove();

# %% [markdown]
# *Figure: the fronts of both. See that under truncation fine-tuning from the frozen model runs into
# its ceiling, below one, while from the mixture, which contains the rescued tokens, it does not.*

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4))
for ax, title, phase in zip(axes, both, ((cells, border), phases(cut, front_cut))):
    draw.phase_diagram(*phase, ax).set_title(f"{title}: who is ahead?")
    ax.collections[0].set_clim(-0.4, 0.4)

# %% [markdown]
# *Figure: the phase diagrams of both, on one colour scale. See that the critical leash keeps its
# place: truncation lifts both sides.* The gap in the far corners grows.

# %% [markdown]
# ## A prompter in training
#
# Last, training. A softmax prompter, one logit per question and suffix, starts at
# $\rho_{\rm sft}$ and climbs the gradient of its objective, reward minus $\lambda$ KL. We train
# it twice: with the exact gradient, and with REINFORCE, which sees sampled rewrites and the
# rewards of sampled answers only, as PPO will. The reward takes three values, so to sample a
# token is to sample one of these.


# %%
def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def exact_gradient(rho):
    score = inst.g - lam * np.log(rho / rho_sft)
    return rho * (score - (rho * score).sum(axis=1, keepdims=True))


# %%
levels = np.array([0.0, 0.25, 1.0])
chance = [[inst.pi_F_rewrites[x] @ (reward[x] == r) for r in levels] for x in range(X)]
below = np.moveaxis(np.cumsum(chance, axis=1), 1, 2)  # [X, K, levels]
row, batch = np.arange(X)[:, None], 32


def reinforce(rho):
    k = (rng.random((X, batch, 1)) > np.cumsum(rho, axis=1)[:, None, :-1]).sum(axis=-1)
    r = levels[(rng.random((X, batch, 1)) > below[row, k][..., :-1]).sum(axis=-1)]
    score = r - lam * np.log(rho / rho_sft)[row, k]
    advantage = (score - score.mean(axis=1, keepdims=True)) / (batch - 1)
    gradient = -rho * advantage.sum(axis=1, keepdims=True)
    np.add.at(gradient, (row, k), advantage)
    return gradient


# %%
def train(gradient, rate, steps=2000, every=20):
    """The regret along the way by its definition, and as lambda KL(rho || rho*)."""
    z, optimum, log = np.log(rho_sft), sol.J_prompter - lam * sol.kl, []
    for step in range(steps + 1):
        rho = softmax(z)
        if step % every == 0:
            regret = optimum - (inst.value(rho) - lam * kl(rho, rho_sft))
            log.append([step, regret, lam * kl(rho, sol.rho_star)])
        z += rate * gradient(rho)
    return pd.DataFrame(log, columns=["step", "regret", "lam_kl"]), rho


runs = {"exact gradient": train(exact_gradient, 2.0), "REINFORCE": train(reinforce, 2.0)}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
for ax, (name, (log, _)) in zip(axes, runs.items()):
    assert (log["regret"] - log["lam_kl"]).abs().max() < 1e-10
    draw.training_regret(log[log["lam_kl"] > 1e-12], ax).set_title(f"The regret is a KL: {name}")

# %% [markdown]
# *Figure: the regret of two prompters in training, logarithmic. See the dashed curve, λ KL to the
# optimum of Lemma 5.1, on top of the regret at every step, with the exact gradient and with the
# noisy one.* The cell asserts that the two agree to 1e-10. The exact gradient keeps approaching,
# slowly in the end, since the signal of a suffix fades with its probability; REINFORCE comes
# close and then hovers, at a distance that its step size and its batch set.

# %%
for name, (log, rho) in runs.items():
    print(f"{name}: regret {log['regret'].iloc[0]:.4f} -> {log['regret'].iloc[-1]:.2e}, "
          f"reward {inst.value(rho):.4f} of {sol.J_prompter:.4f}, "
          f"TV to the optimum {P @ gibbs.total_variation(rho, sol.rho_star):.4f}")

# %% [markdown]
# Both end near the optimum of Lemma 5.1, without ever having seen its formula. Compare by the
# regret, not by the reward alone: a prompter can earn more than the optimum and pay for it in KL.

# %% [markdown]
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1. One suffix for all.** How much of the optimal prompter's reward does the best constant
# suffix get, and what does it cost in KL? Compute its reward, its KL to $\rho_{\rm sft}$ and its
# regret at our $\lambda$.

# %% tags=["hide-cell"]
best = (P @ inst.g).argmax()
constant = np.eye(K)[[best] * X]
print(f"{suffixes[best]!r} earns {inst.value(constant):.3f}, the optimum {sol.J_prompter:.3f}")
print(f"KL {kl(constant, rho_sft):.2f} nats, the optimum's {sol.kl:.2f} nats")
print(f"regret {inst.regret(constant, lam):.4f}")

# %% [markdown]
# The constant suffix pays no attention to the KL, so it can earn more than the optimal prompter
# at this leash. Its regret is positive all the same, because the objective charges for the KL.
#
# **2. Train first, truncate afterwards.** In an experiment the fine-tuned model is truncated, not
# the reference. A tilt adds $r/\beta$ to the logits, so this order can be computed, too. Does it
# lift the ceiling that truncation put on RLHF?

# %% tags=["hide-cell"]
for b in (0.1, 0.3, 1.0):
    tilted = (logits[:, :1] + reward[:, None] / b).astype(np.float32)
    after = next_token.next_token_table(tilted, sampling)[:, 0]
    first = cut.solve(lam=lam, beta=b).J_rlhf
    print(f"β = {b}: truncated, then tilted {first:.3f}; "
          f"tilted, then truncated {P @ (after * reward).sum(axis=1):.3f}")

# %% [markdown]
# With a loose leash the tilt can lift the right token into the nucleus before it is cut, so this
# order reaches more. At stiffer leashes the two orders differ little. The theorem is about the
# first order: the RLHF model of the theory and the one of the experiment are not the same policy.
#
# **3. A tougher reward.** Set the reward of a wrong answer to 0. Which of the three parts of the
# gap changes most, and does prompting still win at our leashes?

# %% tags=["hide-cell"]
strict = replace(inst, reward=1.0 * right).solve(lam=lam, beta=beta)


def three_parts(s):
    return {"fine-tuning": s.delta1, "blind rewriting": s.J_frozen - s.J_sft,
            "learning": s.J_prompter - s.J_sft, r"gap \(\Delta\)": s.delta}


formula_table(pd.DataFrame({"a wrong answer earns 1/4": three_parts(sol),
                            "a wrong answer earns 0": three_parts(strict)}))

# %% [markdown]
# A negative gap in the second column means that prompting still wins. What the prompter learns
# changes most: its best suffixes make the model answer, not answer rightly, and the quarter for a
# wrong answer was part of what it earned. Fine-tuning's gain hardly moves.

# %% [markdown]
# ## What is whose
#
# - **Paper**: Lemma 5.1, Theorem 6.1 and its three terms, the settings of its truncated sampling.
# - **Reading**: the reward is in $[0,1]$ (R1). The terms are those of the model that is sampled
#   from, here the truncated one (L3). The top-k of 20 is our assumption.
# - **Ours**: the one-token construction, the questions, the pool and the reward; C1, C2, C3, C7,
#   C10, C12 and C15 on it; the regret of a prompter in training.

# %% [markdown]
# ## What was found
#
# - With one-token answers a real language model is a finite instance, and Lemma 5.1, C1, C2, C3 and
#   the chain of bounds hold on it to 1e-10.
# - On SmolLM2 and these questions blind rewriting helps a little, one suffix does nearly all the
#   good, and at our leashes the optimal prompter beats RLHF. The mixture bound proves it, the
#   paper's bound does not.
# - A nat spent on tokens buys more than a nat spent on rewrites. Prompting wins through a looser
#   leash and a better start, not because a nat buys more.
# - Truncated sampling is another frozen model: it changes every term, and it puts a ceiling on RLHF
#   where the right token is cut off.
# - A prompter trained by policy gradient approaches the optimum of Lemma 5.1. At every step its
#   regret is $\lambda$ times its KL to that optimum.
