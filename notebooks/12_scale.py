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
# # From a laptop to an H100, and further
#
# **The question.** What does it take to run this on your machine: a laptop, a borrowed GPU, one H100,
# or several? At the end you will know the command for each, the least memory and time that it needs,
# and which of these numbers were measured and which were only computed.
#
# ## One H100: three commands
#
# ```bash
# python -m alignpro plan --preset h100
# python -m alignpro rehearse --preset h100
# python -m alignpro reproduce --preset h100
# ```
#
# | command | where it runs | how long | downloads | what it tells you |
# |---|---|---|---|---|
# | `plan` | any machine | seconds | nothing | whether the preset fits, and a lower bound on its time |
# | `rehearse` | the H100 | minutes | nothing | memory and seconds of each stage, with random weights of full size |
# | `reproduce` | the H100 | hours to days | about 40 GB | the results |
#
# Before the third, run `hf auth login`: Llama is gated, and you have to accept its licence on the Hub.
# `--dataset helpsteer` limits the run to one of [the paper's datasets](../book/hub_data.md). You can
# stop it at any time, and the same command resumes it. At most one PPO step of training is lost
# ([What a crash costs](20_crash_matrix.ipynb)).
#
# The preset `h100` takes the paper's hyper-parameters literally. A sibling, `h100-minibatch-128`,
# differs in its PPO section alone, and is the one to start with; the section on minibatches explains
# why.
#
# **No GPU was available for this book.** The laptop's times below are measured. Numbers for GPUs are
# computed, unless a table says that it was measured and where. The code between the texts makes the
# tables. You need none of it to run the commands.

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
planned = "h100"  # the preset to plan: a name, or a YAML file of your own

# %% tags=["hide-input"]
import dataclasses

import pandas as pd
import torch
from IPython.display import display

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.report import benchmark
from alignpro.report.html import text_table
from alignpro.report.kept_runs import matrix_cards
from alignpro.runs import RESULTS
from alignpro.scale import rehearsal
from alignpro.scale.plan import GPU, OVERHEAD, Plan, in_gb

style.use_style()
scale = load_preset(planned)


def show(table, caption="", decimals=2):
    """Show `table`, without the numbers of its rows and with words for truth values."""
    words = {"fits": {True: "yes", False: "no"}}
    shown = table.assign(**{name: table[name].map(words[name]) for name in words if name in table})
    display(text_table(shown, caption, decimals=decimals).hide(axis="index"))


# %% [markdown]
# ## A laptop
#
# ```bash
# python -m alignpro reproduce --preset cpu --dataset help
# ```
#
# This trains a prompter and its oracle (the frozen LLM itself, fine-tuned by RLHF) for each seed, and
# evaluates both. It needs neither a GPU nor a network. The runs kept in `results/` took this long:

# %%
cards = matrix_cards("cpu")
cards["minutes"] = cards["training_seconds"] / 60
cards["configuration"] = cards["configuration"].map({"align-pro": "Align-Pro", "rlhf": "RLHF"})
laptop = cards.groupby(["dataset", "configuration"])["minutes"].agg(["count", "min", "max"])
laptop.columns = ["runs", "shortest, minutes", "longest, minutes"]
show(laptop.reset_index(), decimals=0)

# %%
facts = ("cores", "threads", "instructions")
machines = {tuple(str(found.get(fact, "?")) for fact in facts) for found in cards["hardware"]}
for cores, threads, instructions in sorted(machines):
    print(f"on a CPU with {cores} cores and {instructions}, by a process with {threads} thread(s)")
print(f"all {len(cards)} runs one after another: {cards['minutes'].sum() / 60:.1f} hours of training")
for bench in [b for b in benchmark.benches(RESULTS / "bench") if b["finished"]][:1]:
    peak = benchmark.step_table(bench).loc[benchmark.OURS, "peak_gb"]
    print(f"memory of a process that does one PPO step: {peak:.1f} GB at its peak")

# %% [markdown]
# Measured: time of training, without evaluation. Two cores do most work with two runs of one thread
# each, side by side, although each run then takes longer. A CPU with AVX2 alone multiplies in float32,
# one with AVX512-VNNI in 8 bits, and one with AMX tiles in bfloat16, which is the fastest. The memory
# is that of [the benchmark](16_speed.ipynb). To share each batch between two processes:
#
# ```bash
# torchrun --nproc_per_node 2 -m alignpro reproduce --preset cpu
# ```
#
# ## A borrowed GPU
#
# The rocket at the top of a notebook's page opens the notebook on Colab. Its first cell installs the
# project. The preset is then `colab`: two small open models, and the rubric as the reward. Colab's
# free GPU is a T4. It has no bfloat16, so this project computes in float32 on it:

# %%
t4 = GPU(memory=16e9, flops=8.1e12, bandwidth=320e9)  # the vendor's published figures
colab = Plan(load_preset("colab"), t4, prompt_tokens=64, precision=torch.float32)
show(in_gb(colab.summary(), ["peak"]), "peak in GB")

# %% [markdown]
# Computed. *peak* is the largest stage plus an allowance for CUDA. *hours* is a lower bound on the
# training time for one dataset and one seed. The project's own prompts are short: 64 tokens hold the
# longest of them with its chat template.
#
# ## Plan
#
# The plan builds each model from its published config on PyTorch's meta device, where tensors have
# shapes but no data. It runs this project's own sampling, log-probabilities and update there, and
# counts bytes and FLOPs. F2 repeats F1, as the paper's text prints it. With one seed, the pairs of F2
# would repeat the runs of F1. So two pairs of the four are left, and one oracle, until F2 names
# another model.

# %%
gpu = GPU()
plan = Plan(scale, gpu)
models = in_gb(plan.models().reset_index(), ["weights", "checkpoint"])
for name, unit in (("parameters", 1e9), ("trained", 1e6), ("cache a token", 2**10)):
    models[name] = models[name] / unit
show(models)

# %% [markdown]
# Computed. *parameters* are in billions. Weights and checkpoint are in GB (10⁹ bytes). *cache a token*
# is the size of the keys and values that one token of one row keeps in bfloat16, in KiB. *trained* is
# the number of trained parameters in millions: the adapter and the value head. A checkpoint holds these
# and AdamW's two moments, in float32.
#
# A PPO step has five stages. The prompter writes (*rollout*). The frozen LLM answers (*frozen*). The
# reward model scores (*reward*). The policy and its reference give log-probabilities (*reference*).
# PPO learns (*update*). All models stay loaded throughout. Evaluation holds the untrained prompter
# beside the trained one.

# %%
stages = plan.stages()
training.memory_by_stage(stages, gpu.memory, f"Preset {scale.name}, computed, not measured");

# %% [markdown]
# *Bytes of each stage by part, one panel per architecture; computed.* For prompts of this length each
# bar is an upper bound, because every row is assumed to have its full length, and the parts of a stage
# need not peak together. The weights dominate. Keys and values come on top while a model writes. While
# it is trained, the activations that the backward pass needs come on top.

# %%
parts = ["weights", "training", "cache", "logits", "activations", "total"]
training_state = stages[["adapter", "optimizer", "gradients"]].sum(axis=1)
by_stage = in_gb(stages.assign(training=training_state), parts)
for names, part in by_stage.groupby(["architecture", "configuration"], sort=False):
    show(part[["stage", *parts, "TFLOP", "seconds"]], ", ".join(names))

# %% [markdown]
# Computed: GB, and TFLOP and seconds of one PPO step. *training* is the adapter, its gradients and the
# optimizer's moments. The seconds are a **lower** bound. Each stage
# takes at least its FLOPs at the GPU's published peak, and at least the time to read its weights and
# cache at the published bandwidth. Generation is memory-bound; training is mostly compute-bound. Real
# code reaches neither peak. Expect a few times as much, and more where minibatches are small.

# %%
print(
    f"GPU: {gpu.memory / 1e9:g} GB, {gpu.flops / 1e12:g} TFLOP/s in bf16, "
    f"{gpu.bandwidth / 1e12:g} TB/s (the vendor's published figures for the H100 SXM)"
)
print(
    f"prompts of {plan.prompt} tokens, rewrites of {scale.prompter.max_new_tokens}, answers of "
    f"{scale.frozen.max_new_tokens}; {OVERHEAD / 1e9:g} GB allowed for CUDA and fragmentation"
)
show(in_gb(plan.summary(), ["peak"]), "peak in GB")

# %% [markdown]
# Computed. *peak* is the largest stage with the allowance. *hours* is the time of all PPO steps on one dataset with one
# seed, without evaluation.
#
# Prompts of 256 tokens are ordinary. The preset accepts longer ones, up to its `max_characters`, and
# rows of similar length run together. So there has to be memory for a batch of the longest prompts. At
# four characters per token:

# %%
longest = scale.data.hub.max_characters // 4 if scale.data.hub else 1024
columns = ["architecture", "configuration", "peak", "at stage", "fits"]
long = in_gb(Plan(scale, gpu, prompt_tokens=longest).summary(), ["peak"])
show(long[columns], f"prompts of {longest} tokens, peak in GB")

# %% [markdown]
# The same command answers these questions for your own GPU, prompts and preset. `--flops` and
# `--bandwidth` take another GPU's published peaks. `--precision float32` is for a GPU without
# bfloat16:
#
# ```bash
# python -m alignpro plan --preset h100 --gpu-memory 40 --prompt-tokens 1000
# python -m alignpro plan --preset h100 --remote-frozen
# ```
#
# If the plan or the rehearsal says that a preset does not fit, or that it takes too long, copy the
# preset from `alignpro/presets/` to a file of your own, such as `mine.yaml`, and change one of these:
#
# | what is too large | change | price |
# |---|---|---|
# | memory of `rollout`, `frozen` or `evaluation` | a smaller `generation_batch` | time; rows are sampled independently of each other |
# | memory of `update` | `accumulate: 4`, or fewer `lora_layers` | time; fewer layers learn less |
# | memory of the weights | an `endpoint` for the frozen LLM, or a smaller prompter | a server |
# | time of `update` | the minibatch of `h100-minibatch-128` | another algorithm than the paper's |
# | time of everything | one `--dataset`, fewer `steps`, shorter `max_new_tokens` | fewer or other results |
#
# ## Rehearse
#
# ```bash
# python -m alignpro rehearse --preset h100 --pair P1-F1
# ```
#
# The rehearsal is the plan's test. It draws random weights of the models' full sizes on the GPU itself.
# It then runs the code of `reproduce` on prompts of the given length: two PPO steps of the prompter,
# with an interruption and a resumption between them, two steps of the oracle, and an evaluation of
# both. Each step has one generation batch. The rehearsal measures the peak memory and the time of each
# stage, and scales both up to a full batch. It reports whether the preset fits, which stage takes
# longest, and how long one cell and the whole preset will take. Random weights never end a text, so
# these times are those of the longest case.
#
# With `--scale 0.01` the rehearsal also runs on a CPU, with a tenth of the layers, widths and
# vocabularies, rows and tokens. A test does this and demands that the measured bytes agree with the
# plan's within 10 %.

# %%
rehearsals = rehearsal.kept()
measured = [r for r in rehearsals if r["memory"]]
for result in rehearsals:
    device = result["hardware"]["gpu"] or f"{result['hardware']['cpu']} (no GPU)"
    print(f"{result['date'][:10]}: preset {result['preset']} at scale {result['scale']:g} on {device}")
if not measured:
    print("NO rehearsal on a GPU is kept: its times are still unknown")
for result in (measured or rehearsals)[:1]:
    rehearsed = rehearsal.stage_table(result).dropna(axis=1, how="all")
    for names, part in rehearsed.groupby(["architecture", "configuration"], sort=False):
        show(part.drop(columns=["architecture", "configuration"]), ", ".join(names), decimals=3)

# %% [markdown]
# Measured, by the allocator of the device named above: the peak of each stage beside the plan's, in GB.
# *reserved* is what the allocator took for it. Seconds are shown for a GPU only, since the profiler
# that measures a CPU's memory slows it down.

# %%
for result in measured[:1]:
    show(rehearsal.time_table(result))

# %% [markdown]
# A rehearsal on a GPU adds a table with one row per architecture and oracle: the peak, whether it fits,
# the seconds of a step, the slowest stage and its share, and the hours of one cell. A *cell* is one
# dataset, one pair of models and one seed.
#
# ## Minibatches of one row, and of 128
#
# `ppo: paper` takes the paper's hyper-parameters literally, with minibatches of one completion. Each
# batch is processed row by row, and each row is an optimizer step. `accumulate` makes larger
# minibatches fit: it runs that many rows at a time and adds up their gradients, so that one optimizer
# step still sees the whole minibatch. The gradient is the same as in one pass, except for rounding; a
# test compares the two. Here is one architecture with the preset's minibatch and with larger ones:

# %%
def with_ppo(**changes):
    ppo = dataclasses.replace(scale.ppo, **changes)
    return Plan(dataclasses.replace(scale, ppo=ppo, architectures=scale.architectures[:1]), gpu)


choices = [(scale.ppo.minibatch_size, None), (8, None), (128, None), (128, 8)]
tables = [
    with_ppo(minibatch_size=size, accumulate=rows)
    .summary()
    .assign(minibatch=size, **{"rows a pass": rows or size})
    for size, rows in choices
]
minibatches = pd.concat(tables, ignore_index=True)
minibatches["passes"] = scale.ppo.epochs * scale.ppo.batch_size // minibatches["rows a pass"]
steps = minibatches["configuration"].map({"Align-Pro": scale.ppo.steps, "RLHF": scale.rlhf.steps})
minibatches["hours at 0.1 s a pass"] = (minibatches["passes"] * steps * 0.1 / 3600).round(2)
columns = ["configuration", "minibatch", "rows a pass", "passes", "peak", "fits", "hours"]
show(in_gb(minibatches, ["peak"])[[*columns, "hours at 0.1 s a pass"]], "peak in GB")

# %% [markdown]
# Computed. *passes* counts the forward and backward passes of one PPO step. *hours* is the lower bound
# from above. It hides the price of small passes, because it assumes that the GPU is always busy. With one
# row per pass it is not: the pass launches many small kernels one after another, and takes as long as
# that takes. The last column is the time of the passes alone if each takes a tenth of a second, **an
# assumption and not a measurement**. The rehearsal measures it.

# %%
cells = len(scale.datasets) * len(scale.seeds)
assumed = minibatches[minibatches["minibatch"] == scale.ppo.minibatch_size]
per_run = assumed.set_index("configuration")["hours at 0.1 s a pass"]
runs = {"Align-Pro": len(plan.pairs) * cells, "RLHF": len({f for _, f in plan.pairs}) * cells}
print(f"preset {scale.name}: {runs['Align-Pro']} prompters and {runs['RLHF']} oracles,")
print(f"at least {plan.summary()['hours'].sum() * cells:.0f} hours of PPO steps by the bound,")
print(f"{sum(per_run[name] * runs[name] for name in runs):.0f} hours of passes by that assumption")

# %% [markdown]
# A larger `minibatch_size` is faster, but it *is* another algorithm. For rows of equal length, the
# gradient of a minibatch has the same expectation at any size. These things change:
#
# * There are fewer optimizer steps, by the ratio of the sizes. The length of an Adam step hardly depends
#   on the scale of the gradient. At the same learning rate the policy therefore moves less.
# * The gradients of later rows are taken at a policy that has moved less since the batch was sampled, so
#   the clip acts less often.
# * The loss is a mean over the *tokens* of a minibatch. In minibatches of one row each completion counts
#   the same. In larger ones, a long completion counts more than a short one.
#
# TRL itself raised its default from 1 to 128 between two releases that run the notebook which the paper
# names. The chapter on [the details of PPO](../book/ppo_details.md) describes both (details 28 and 29,
# and the paper's hyper-parameters at its end). `h100` stays with the paper's number.
# `h100-minibatch-128` takes 128 with `accumulate: 8`, a larger learning rate, and clipped gradients.
# **Its learning rate is a guess**: nobody has tried it at this scale. Report its results as yours, and
# not as the paper's.
#
# ## When the frozen LLM runs elsewhere
#
# The frozen LLM only ever returns text. It can therefore run on another machine, behind any server that
# speaks the OpenAI protocol:
#
# ```bash
# vllm serve meta-llama/Llama-3.1-8B-Instruct --generation-config vllm --max-model-len 8192
# ```
#
# That runs on the other machine, here called `there`. In a copy of the preset, `mine.yaml`, role F1 gets
# `endpoint: "http://there:8000/v1"`. Then, on this one:
#
# ```bash
# python -m alignpro reproduce --preset mine.yaml
# ```
#
# The chapter [A frozen LLM behind an API](../book/endpoint.md) describes the checks before the first
# step, what each server honours, and what is kept if it breaks off. The frozen LLM's weights and cache
# leave this GPU:

# %%
remote = Plan(scale, gpu, remote_frozen=True).summary()
columns = ["architecture", "peak", "at stage", "fits", "seconds a step"]
show(in_gb(remote, ["peak"])[columns], "peak in GB")

# %% [markdown]
# What remains is the prompter and the reward model, if there is one. The seconds do not include the
# server's. There is no row for RLHF: an endpoint gives no weights to train, which is the paper's point.
#
# ## Several GPUs
#
# ```bash
# accelerate launch --num_processes 4 -m alignpro reproduce --preset mine.yaml
# ```
#
# Several processes share each batch and each minibatch. Each of them holds all models, so a second GPU
# saves time and makes room for more rows, and for nothing else. The number of processes must divide
# `minibatch_size`. With the paper's minibatches of one row there is nothing to share, and the trainer
# refuses a second process. One architecture on one GPU and on four:

# %%
processes, minibatch = 4, 8
batch = scale.ppo.batch_size // processes
plans = {
    "alone": with_ppo(minibatch_size=minibatch),
    "learns": with_ppo(minibatch_size=minibatch // processes),
    "samples": with_ppo(batch_size=batch, minibatch_size=1),
}
costs = {
    name: found.stages().set_index(["configuration", "stage"])[["total", "seconds"]]
    for name, found in plans.items()
}

# %% [markdown]
# Each process samples and scores its share of the batch. It computes the log-probabilities of the whole
# batch, and learns from its share of each minibatch:

# %%
each = costs["learns"]
stage = each.index.get_level_values("stage")
each.loc[stage == "update", "seconds"] /= processes
drawn = stage.isin(["rollout", "frozen", "reward"])
each[drawn] = costs["samples"][drawn]
both = costs["alone"].add_suffix(", one GPU").join(each.add_suffix(f", each of {processes}"))
both = both.drop(index="evaluation", level="stage").reset_index()
show(in_gb(both, [c for c in both if c.startswith("total")]), "total in GB")

# %% [markdown]
# Computed with minibatches of 8 rows: *total* is in GB and an upper bound, *seconds* of a PPO step are a
# lower bound. Sampling gains as long as each process has enough rows to fill its batch
# (`generation_batch`). The update gains less than it seems, because the bound ignores the time in which
# the gradients are summed, and the smaller passes. Only the first process evaluates; the others wait. If
# a model does not fit into one GPU, use an endpoint, which may itself spread over many.
#
# ## What was tested, and what was not
#
# | where | command | tested for this book |
# |---|---|---|
# | a laptop | `python -m alignpro reproduce --preset cpu` | yes: the runs in `results/` |
# | several processes on a CPU | `torchrun --nproc_per_node 2 -m alignpro reproduce` | yes, on tiny models: the result of one process |
# | Colab's T4 | the rocket on a notebook's page | every notebook after its own first cell alone, in a new environment on a CPU, under `smoke`; **never** on Colab or a T4 |
# | one H100 | `python -m alignpro rehearse --preset h100` | at scale 0.01 on a CPU; on a GPU **only** if the rehearsals above name one |
# | one H100 | `python -m alignpro reproduce --preset h100` | **no**. The same code runs on tiny models of the same four architectures, with their templates and end tokens |
# | the paper's datasets and models | the same | **never** from the Hub: from files and checkpoints of our own in their formats |
# | the frozen LLM elsewhere | `vllm serve …`, and an `endpoint` in the preset | over HTTP against `transformers serve` on a CPU; **never** with vLLM |
# | several GPUs | `accelerate launch --num_processes 4 -m alignpro reproduce` | **no** |
#
# We checked the plan as follows. Counts of parameters and the bytes of a token's keys and values are
# compared with published numbers for all the models above. Bytes are compared with real runs on a CPU,
# and agree within ten percent: weights, adapter, keys and values, the tensors of a checkpoint, and the
# peaks of a sampled batch, of the log-probabilities and of the update, as PyTorch's own allocator
# recorded them. These runs use tiny models of the four architectures and SmolLM2-135M. The small
# rehearsal compares whole stages in the same way. FLOPs and bytes read are compared with arithmetic by
# hand.
#
# A CPU cannot show how much memory a GPU's kernels keep for themselves, which gaps its allocator leaves
# between blocks, whether bfloat16 changes the choice of a kernel, or any real time. The plan allows a
# fixed sum for the first three, and claims no more than a lower bound for the last.
#
# ## Exercises
#
# Predict first. Then unfold the solution, which was run.
#
# **1.** Halve the batch. Does the peak of memory halve? Say which stage it comes from before you look.

# %% tags=["hide-cell"]
halves = [
    with_ppo(batch_size=size).summary().assign(batch=size)
    for size in (scale.ppo.batch_size, scale.ppo.batch_size // 2)
]
columns = ["configuration", "batch", "peak", "at stage", "seconds a step"]
show(in_gb(pd.concat(halves), ["peak"])[columns], "peak in GB")

# %% [markdown]
# **2.** Which stage takes most of the time of a PPO step, by the lower bound?

# %% tags=["hide-cell"]
stages = with_ppo().stages().set_index(["configuration", "stage"])["seconds"].drop("evaluation", level="stage")
share = stages / stages.groupby("configuration").transform("sum")
show((100 * share).rename("share of the step, %").reset_index(), decimals=0)

# %% [markdown]
# **Summary.** A preset and a command lead from a laptop to several GPUs. Memory and time of each can be
# planned without a GPU, from shapes alone, and rehearsed on the GPU before anything is downloaded. The
# plan's numbers are bounds. They become results when somebody runs them.
