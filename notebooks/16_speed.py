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
# # How fast, and how fast it could be
#
# **What you will know at the end.** How long a PPO step takes beside TRL's on the same work, part by
# part; what was tried to make it fast and what each trial was worth, the failed ones too; and what
# share of the machine's physical limit is reached.
#
# Nothing is timed on this page: a build of the book is no quiet machine. It reads what `make bench`
# left in `results/bench/`, a file a machine, and only ratios carry over to another.

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

# %%
import pandas as pd

from alignpro.figures import speed, style
from alignpro.report import benchmark
from alignpro.runs import RESULTS

style.use_style()
benches = benchmark.benches(RESULTS / "bench")
columns = ["cpu", "instructions", "threads", "date", "commit", "preset", "batch", "minutes", "finished"]
spent = [{"minutes": round(sum(b["spent"].values()) / 60, 1)} for b in benches]
machines = [{**b["hardware"], **b, **s} for b, s in zip(benches, spent)]
machines = pd.DataFrame(machines, columns=columns).set_index("cpu")
machines.assign(date=machines["date"].str[:10])

# %%
whole = [b for b in benches if b["finished"]]
bench = whole[0] if whole else None
if bench is None:
    print("NO finished benchmark is kept in results/bench: `make bench` makes one in ten minutes,")
    print("and the tables and figures below stay empty until then")
else:
    print(f"shown: {bench['hardware']['cpu']}, {bench['hardware']['threads']} threads, {bench['date'][:10]}")
    print(", ".join(f"{name} {version}" for name, version in bench["versions"].items()))


def table(of):
    """The table `of` the benchmark, or a word that there is none."""
    return of(bench).round(2) if bench else "no benchmark is kept"


# %% [markdown]
# One row a machine. What follows is the newest finished one.
#
# ## A step beside TRL's
#
# One PPO step of a suffix prompter, on the same prompts, model, LoRA layers, lengths, minibatches,
# epochs and reward; the contenders take turns in one process.
#
# * **TRL, its defaults**: `PPOTrainer` in float32, its critic a second model with a backbone of its own.
# * **TRL, at its best**: the critic a head on the policy's own states, no gradient checkpointing, and
#   bfloat16 where this machine computes fast in it.
# * **alignpro, fp32**: ours with all products in float32, as TRL's.
# * **alignpro**: ours as the `cpu` preset has it on this machine: in bfloat16 with AMX tiles, with 8-bit
#   products wherever nothing is trained on a CPU with AVX512-VNNI alone, else in float32.
#
# Both of TRL's ask the frozen LLM through `transformers.generate`. How far our numbers agree with TRL's
# on the same tokens is the subject of the chapter [The details of PPO](../book/ppo_details.md).

# %%
table(benchmark.step_table)

# %%
if bench:
    speed.step_parts(benchmark.step_table(bench))

# %% [markdown]
# *Seconds of the fastest round, by part.* *ratio* is to ours, round by round: the median, and the lowest
# and highest of the rounds. *peak_gb* is the peak resident memory of a process that does one step. TRL
# keeps the log-probabilities that sampling had, so its *policy* is 0; ours computes them again in one
# pass, which makes the first ratio 1 whatever the precision of sampling.

# %%
if bench:
    steps = benchmark.step_table(bench)
    ours = steps.loc[benchmark.OURS]
    for name, row in steps.drop(benchmark.OURS).iterrows():
        print(f"{name}: {row['ratio']:.1f} times our seconds, "
              f"{row['peak_gb'] / ours['peak_gb']:.1f} times our memory")  # fmt: skip
    print(f"the policy's log-probabilities, computed again: {ours['policy'] / ours['total']:.0%} "
          "of our step; what keeping them could save at most")  # fmt: skip

# %% [markdown]
# ## Sampling
#
# The frozen LLM's answers to one batch, at the paper's temperature and truncation, by our sampler and
# by `transformers.generate` in the same precision. *alignpro* alone is as the preset has it here.

# %%
table(benchmark.sampling_table)

# %% [markdown]
# *Ratio of tokens a second to the sampler named in the last column, round by round: the median, the
# lowest and the highest; tokens a second of the fastest round.* 8-bit products, which
# `transformers.generate` lacks, stand beside its float32. Every draw is exact: a test compares the
# sampler's distribution with transformers' own processors, and greedy output token by token.
#
# ## What was tried
#
# Each optimisation by itself: the part that it is in, without it and with it, the two in turns, who
# goes first alternating.

# %%
if bench:
    speed.trials(benchmark.trial_table(bench))

# %%
table(benchmark.trial_table)

# %% [markdown]
# *Time without over time with: above 1 it saves time. The dot is the median, the bar the range over
# rounds.* Where the rounds lie on both sides of 1 nothing was seen, and below 1 it failed. A ratio is
# that of the named part alone and of this machine: bf16 gains most with AMX tiles, something with
# AVX512-BF16, and nothing without either. What a machine has no instruction for is not in its table.
#
# * **8-bit products**: one scale an output and one a row, sums in integers, so that no row's result
#   depends on its batch. Only where nothing is trained, and only on a CPU with AVX512-VNNI: on another
#   PyTorch's integer products are far slower than float32. With AMX tiles bf16 takes their place, since
#   rounding inputs to 8 bits costs more there than the products.
# * **Weights laid out once**: PyTorch lays them out anew for each product. Taken with AMX tiles, where
#   that is a large part of a small product. In float32 it is not taken: its row speaks of this machine,
#   and the CPUs that are left with float32, those with AVX2 alone, are not among those measured here.
# * **Top-k before the sort**: a nucleus among k tokens needs no sort of the vocabulary.
# * **A cache that grows in chunks**: the stock one copies all keys and values for every token.
# * **One random number a row**, looked up among the cumulated probabilities. Gumbel-max needs noise for
#   every token of the vocabulary; where a top-k leaves twenty of them, it makes no difference.
# * **Rows leave the batch as they end**, where most end early: rewrites do, cut answers do not.
# * **Shared prefix read once**: the meta-prompt and the chat template open every query alike.
# * **Trunk computed once**: the layers below the first adapted one are the same for the policy, its
#   reference and every epoch.
# * **bf16 products beside the adapter**: only the products, with float32 around them; its gain comes on
#   top of that of the 8-bit products below. *The whole model in bf16*, which rounds everything, is the
#   alternative to both, and taken with AMX only.
# * **One product for the head**: a model asked for its last positions multiplies a slice that is not
#   contiguous; PyTorch does it row by row, and in bf16 on a CPU copies the whole head for every row.
#   Laid out anew, the slice is multiplied at once.
# * **No head after the shared prefix**: nobody asks for its logits. What comes out of its pass is one row,
#   which keeps the strides of a slice, so that in bf16 the head would be copied for it every time.
# * **Entropies only where they are reported**: they cost as much as the log-probabilities, and only those
#   of the policy before its update are.
# * **Attention in plain products**: the fused attention's backward pass in bf16 takes several times as
#   long as that of three plain products at the lengths here. Sampling keeps the fused one.
# * **The adapter switched off**: the reference needs no second copy in memory, and can use the trunk.
#   What stands against it is that a copy could run wholly in 8 bits.
#
# Not tried one by one: the critic as a head on the policy's states (between TRL's two rows, among other
# things), rows sorted by length (here a batch is one piece; it pays where there are several), and the
# kept log-probabilities of sampling, for which the share is printed above.
#
# ## The physical limit
#
# A part of a step cannot take less than its FLOPs at the speed of this machine's largest matrix
# products, nor less than reading the weights that it uses from memory. Both are measured: the speeds by
# a product of 2048 × 2048 matrices and a copy of 256 MB, the work by counting a real step in float32.

# %%
if bench:
    limits = bench["limits"]
    print(f"matrix product: {limits['fp32_gflops']:.0f} GFLOP/s in float32, "
          f"{limits['bf16_gflops']:.0f} in bfloat16; memory: {limits['gb_per_second']:.0f} GB/s")  # fmt: skip
table(benchmark.limit_table)

# %% [markdown]
# *GFLOP and GB of weights of each part, the least seconds that they allow, which of the two sets them,
# the seconds taken, and the share of the limit that was reached.* The last row adds the parts. The
# limit is one of hardware, not of method: the optimisations above that leave work out do not raise
# the share, they shrink the work, and 8-bit products pass it, since they are not float32.
#
# **Summary.** What a step takes beside TRL's on the same work is printed above with its ratios, what
# each trial was worth stands beside what failed, and the last table says how far the machine itself
# would let it go.
