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
# # How fast it is, and why
#
# **The question.** How long does a PPO step take beside TRL's on the same work, and how fast is the
# sampler beside transformers' own? At the end you will know which optimisations pay, which do not, and
# how close a step comes to what the machine can do at most.
#
# `make bench` measures all of this in one process, round by round, and writes `results/bench/`, which
# this page reads. Nothing is measured here, because timings taken during a build of the book are
# unreliable. The seconds are those of one machine; only the ratios carry over to another.

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

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import display

from alignpro.figures import speed, style
from alignpro.report import benchmark
from alignpro.report.html import text_table
from alignpro.runs import RESULTS

style.use_style()
benches = benchmark.benches(RESULTS / "bench")
whole = [b for b in benches if b["finished"]]
bench = whole[0] if whole else None


def show(found, decimals=2):
    """Show a table; the lowest and highest ratio of the rounds are put beside their median."""
    names = {
        **{"peak_gb": "peak GB", "tokens_per_second": "tokens per second", "bound": "limited by"},
        **{"gflop": "GFLOP", "gb": "GB", "least": "least s", "took": "taken s", "reached": "share"},
    }
    shown = found.rename(columns=names).reset_index()
    if "ratio" in shown:
        middle, low, high = (shown[name].map("{:.2f}".format) for name in ("ratio", "low", "high"))
        shown = shown.drop(columns=["low", "high"]).assign(ratio=middle + " (" + low + "–" + high + ")")
    display(text_table(shown, decimals=decimals).hide(axis="index"))


if bench is None:
    print("NO finished benchmark is kept in results/bench: `make bench` makes one,")
    print("and the tables and figures below stay empty until then")
else:
    steps, samplers = benchmark.step_table(bench), benchmark.sampling_table(bench)
    ours = steps.loc[benchmark.OURS]
    print(f"measured on {bench['hardware']['cpu']}, {bench['date'][:10]}")
    for name, row in steps.drop(benchmark.OURS).iterrows():
        print(f"a step of {name}: {row['ratio']:.1f} times our seconds, "
              f"{row['peak_gb'] / ours['peak_gb']:.1f} times our memory")  # fmt: skip
    for name, row in samplers[samplers.index != samplers["beside"]].iterrows():
        print(f"sampling of {name}: {row['ratio']:.1f} times as fast as {row['beside']}")

# %% [markdown]
# These are the newest finished results. The next table has one row for each benchmark that is kept.

# %%
columns = ["cpu", "instructions", "threads", "date", "preset", "batch", "minutes", "finished"]
machines = [{**b["hardware"], **b, "minutes": sum(b["spent"].values()) / 60} for b in benches]
machines = pd.DataFrame(machines, columns=columns).set_index("cpu")
yes = machines["finished"].map({True: "yes", False: "no"})
show(machines.assign(date=machines["date"].str[:10], finished=yes), decimals=0)
if bench:
    print(", ".join(f"{name} {version}" for name, version in bench["versions"].items()))

# %% [markdown]
# ## A step beside TRL's
#
# One PPO step of a suffix prompter, on the same prompts, model, LoRA layers, lengths, minibatches,
# epochs and reward. The contenders take turns in one process.
#
# * **TRL, its defaults**: `PPOTrainer` in float32. Its critic is a second model with its own backbone.
# * **TRL, at its best**: the critic is a head on the policy's own states, gradient checkpointing is off,
#   and bfloat16 is on where this machine is fast in it.
# * **alignpro, fp32**: our trainer with all products in float32, like TRL's.
# * **alignpro**: our trainer as the `cpu` preset uses it on this machine. With AMX tiles it computes in
#   bfloat16. With AVX512-VNNI alone it uses 8-bit products wherever nothing is trained. Otherwise it
#   computes in float32.
#
# Both of TRL's rows ask the frozen LLM through `transformers.generate`. The chapter [The details of
# PPO](../book/ppo_details.md) compares our numbers with TRL's on the same tokens.

# %%
if bench:
    show(steps)

# %%
if bench:
    speed.step_parts(steps)

# %% [markdown]
# *Seconds of the fastest round, by part.* *ratio* is the time over ours within a round: the median, and
# in brackets the lowest and highest of the rounds. *peak GB* is the peak resident memory of a process that does one
# step. TRL keeps the log-probabilities from sampling, so its *policy* part is 0. We compute them again
# in one pass. This makes the first PPO ratio exactly 1, whatever the precision of sampling.

# %%
if bench:
    print(f"computing the policy's log-probabilities again: {ours['policy'] / ours['total']:.0%} "
          "of our step, the most that keeping them could save")  # fmt: skip

# %% [markdown]
# ## Sampling
#
# The frozen LLM's answers to one batch, at the paper's temperature and truncation, from our sampler and
# from `transformers.generate` in the same precision. The row *alignpro* is the preset's own choice on
# this machine.

# %%
if bench:
    show(samplers)

# %% [markdown]
# *Tokens per second, divided by those of the sampler in the last column, within a round: the median, in
# brackets the lowest and the highest; and tokens per second of the fastest round.* `transformers.generate` has no
# 8-bit products, so ours are compared with its float32. Every draw is exact: tests compare the sampler's
# distribution with transformers' own processors, and greedy output token by token.
#
# ## What was tried
#
# Each optimisation by itself: its part of the step, without it and with it, in turns. The order
# alternates.

# %%
if bench:
    speed.trials(benchmark.trial_table(bench))

# %%
if bench:
    show(benchmark.trial_table(bench))

# %% [markdown]
# *Time without over time with: above 1, the optimisation saves time. The dot is the median, the bar the
# range over rounds.* If the rounds are on both sides of 1, no difference was seen. Below 1 it failed. Each
# ratio is that of the named part alone, on this machine. bfloat16 gains most with AMX tiles, something
# with AVX512-BF16, and nothing without either. A machine without an instruction has no row for it.
#
# * **8-bit products**: one scale per output and one per row, with sums in integers, so that no row's
#   result depends on its batch. They are used only where nothing is trained, and only on a CPU with
#   AVX512-VNNI: elsewhere PyTorch's integer products are far slower than float32. With AMX tiles, bf16
#   takes their place, because rounding inputs to 8 bits costs more there than the products.
# * **Weights laid out once**: PyTorch otherwise rearranges them for each product. Used with AMX tiles,
#   where that is a large part of a small product. Not used in float32: its row is this machine's, and the
#   CPUs that compute in float32, those with AVX2 alone, are not among those measured here.
# * **Top-k before the sort**: a nucleus among k tokens needs no sort of the vocabulary.
# * **A cache that grows in chunks**: the stock cache copies all keys and values for every token.
# * **One random number a row**, looked up among the cumulative probabilities. Gumbel-max needs noise for
#   every token of the vocabulary. Where a top-k leaves twenty of them, it makes no difference.
# * **Rows leave the batch as they end**: this pays where most end early. Rewrites do; cut answers do not.
# * **Shared prefix read once**: the meta-prompt and the chat template start every query alike.
# * **Trunk computed once**: the layers below the first adapted one are the same for the policy, its
#   reference and every epoch.
# * **bf16 products beside the adapter**: only the products, with float32 around them. Its gain comes on
#   top of that of the 8-bit products below. *The whole model in bf16*, which rounds everything, is the
#   alternative to both, and is used with AMX only.
# * **One product for the head**: a model that is asked for its last positions multiplies a slice that is
#   not contiguous. PyTorch does this row by row, and in bf16 on a CPU copies the whole head for every row.
#   A contiguous copy of the slice is multiplied at once.
# * **No head after the shared prefix**: nobody needs its logits. Its output is a single row, which keeps
#   the strides of a slice, so that in bf16 the head would be copied for it every time.
# * **Entropies only where they are reported**: they cost as much as the log-probabilities, and only those
#   of the policy before its update are reported.
# * **Attention in plain products**: in bf16, the backward pass of the fused attention takes several times
#   as long as that of three plain products, at the lengths used here. Sampling keeps the fused one.
# * **The adapter switched off**: the reference needs no second copy in memory, and can use the trunk. On
#   the other hand, a copy could run wholly in 8 bits.
#
# Three things were not tried alone: the critic as a head on the policy's states, which is one difference
# among several between TRL's two rows; rows sorted by length, which pays where there are several batches
# and not one as here; and keeping the log-probabilities of sampling, whose share is printed above.
#
# ## The physical limit
#
# A part of a step takes at least its FLOPs at the speed of this machine's largest matrix products, and at
# least the time to read its weights from memory. Both speeds are measured, by a product of 2048 × 2048
# matrices and by a copy of 256 MB. The work is counted in a real step in float32.

# %%
if bench:
    limits = bench["limits"]
    print(f"matrix product: {limits['fp32_gflops']:.0f} GFLOP/s in float32, "
          f"{limits['bf16_gflops']:.0f} in bfloat16; memory: {limits['gb_per_second']:.0f} GB/s")  # fmt: skip
    show(benchmark.limit_table(bench))

# %% [markdown]
# *GFLOP and GB of weights of each part, which of the two sets the limit, the least seconds that they
# allow, the seconds taken, and the share of the limit that was reached.* The last row adds up the parts.
# This is a limit of hardware and not of method. Optimisations that leave out work shrink the work and do
# not raise the share. 8-bit products can pass the limit, because they are not float32.
#
# ## Beside what a user would take today
#
# TRL has moved its PPO out of its main line. A user would now take `GRPOTrainer`, which accepts any
# function as the reward. `python bench/learning.py` trains the same prompter with both, for three seeds:
# the same warm start, LoRA layers, prompts, lengths, completions per step, epochs and learning rate, and
# the same function as the reward, which asks the same frozen LLM. GRPO writes 8 rewrites of one prompt and
# compares them with each other; our PPO writes one rewrite of each of 8 times as many prompts and has a
# critic. GRPO keeps TRL's defaults elsewhere, among them no KL penalty. The comparison takes hours, so
# this page only reads what is kept of it.

# %%
learned = benchmark.benches(RESULTS / "learning")
if not learned:
    print("NO comparison with GRPO is kept in results/learning: `python bench/learning.py` makes one")
for result in learned[:1]:
    compared = benchmark.learning_table(result)
    whole_numbers = compared[["tokens", "seconds"]].round().astype(int)
    display(text_table(compared.assign(**whole_numbers).reset_index()).hide(axis="index"))

# %%
if learned:
    speed.learning(benchmark.learning_points(learned[0]))

# %% [markdown]
# *Held-out reward against the frozen LLM's tokens (left) and against minutes of training (right); thin
# lines are seeds, thick ones their mean.* Evaluation costs neither tokens nor time here. Both trainers ask
# the frozen LLM through our sampler, so the minutes compare the trainers alone.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** If sampling and the frozen LLM cost nothing, how much faster would a step be? Amdahl's law gives
# the answer from one row of the table.

# %% tags=["hide-cell"]
if bench:
    parts = benchmark.step_table(bench).loc["alignpro"]
    free = parts["total"] - parts["rollout"] - parts["frozen"]
    print(f"{parts['total']:.1f} s now, {free:.1f} s without: {parts['total'] / free:.1f} times as fast")

# %% [markdown]
# **2.** Multiply all trials that were faster. Is the product the speed of the whole? Why not?

# %% tags=["hide-cell"]
if bench:
    trials = benchmark.trial_table(bench)
    product = trials.loc[trials["outcome"] == "faster", "ratio"].prod()
    print(f"product of the trials: {product:.1f}. Each was timed on its own part of the work,")
    print("so their effects on a whole step neither add up nor multiply")

# %% [markdown]
# **Summary.** The first tables show how long a step takes beside TRL's on the same work. The trials show
# what each optimisation is worth, and which ones failed. The last table of the benchmark shows how far the
# machine would let a step go.
