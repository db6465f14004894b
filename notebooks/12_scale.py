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
# **What you will know at the end.** Which command to start on a laptop, on a borrowed GPU, on one
# H100 and on several; how much memory and how much time each of them needs at least; and what of
# all this was tested for this book and what was only computed.

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
planned = "h100"  # the preset that is planned: a name, or a YAML file of your own

# %% [markdown]
# **Apart from the laptop's times, everything on this page is computed and nothing measured.** No
# GPU was at hand for this book. From each model's config alone the project builds it on PyTorch's
# meta device, where tensors have shapes and no data, and runs its own sampling, log-probabilities
# and update there, counting bytes and FLOPs.

# %%
import dataclasses

import pandas as pd
import torch

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.report.kept_runs import matrix_cards
from alignpro.scale.plan import GPU, OVERHEAD, PARTS, Plan, in_gb

style.use_style()
scale = load_preset(planned)

# %% [markdown]
# ## A laptop
#
# ```
# python -m alignpro reproduce --preset cpu --dataset help
# ```
#
# This trains a prompter and its oracle for each seed, evaluates both, and needs neither a GPU nor
# a network. What the runs kept in `results/` took:

# %%
cards = matrix_cards("cpu").reindex(
    columns=["dataset", "configuration", "seed", "training_seconds", "processes", "hardware"]
)
laptop = cards.drop(columns=["training_seconds", "hardware"])
laptop["minutes"] = (cards["training_seconds"] / 60).round(1)
for fact in ("cores", "threads", "instructions"):
    laptop[fact] = [found.get(fact, "not noted") for found in cards["hardware"]]
laptop

# %% [markdown]
# Measured: minutes of training, without evaluation. *threads* are those of the run: two runs with
# one each, side by side, use two cores best, and each takes longer. CPUs with AVX2 alone multiply
# in float32, those with AVX512-VNNI in 8 bits, those with AMX tiles in bfloat16, the quickest.
# `torchrun --nproc_per_node 2 -m alignpro reproduce --preset cpu` shares each batch out between two
# processes.
#
# ## A borrowed GPU
#
# The rocket on a notebook's page opens it on Colab. Its first cell installs the project there,
# and the preset is then `colab`: two small models of the Hub that ask for no licence, and the
# rubric as the reward. The free GPU is a T4, which computes in float32 here, since it has no
# bfloat16:

# %%
t4 = GPU(memory=16e9, flops=8.1e12, bandwidth=320e9)  # the vendor's published figures
colab = Plan(load_preset("colab"), t4, prompt_tokens=64, precision=torch.float32)
in_gb(colab.summary(), ["peak"])

# %% [markdown]
# Computed. *peak* is the largest stage and what is allowed for CUDA, *hours* bound the training
# of one dataset and seed from below. This project's own prompts are short; 64 tokens hold the
# longest of them with its template.
#
# ## One H100: the models
#
# ```
# hf auth login      # Llama is gated: accept its licence on the Hub first
# python -m alignpro plan --preset h100
# python -m alignpro reproduce --preset h100 --dataset helpsteer
# ```
#
# The preset holds the paper's models, and its prompts come from [the paper's
# datasets](../book/hub_data.md). F2 repeats F1, as the paper's text prints it: with one seed the
# pairs of F2 would give the runs of F1 a second time, so that two pairs of the four, and one
# oracle, are left until another model is named.

# %%
gpu = GPU()
plan = Plan(scale, gpu)
in_gb(plan.models(), ["weights", "checkpoint"])

# %% [markdown]
# Computed. Weights and checkpoint are in GB (10⁹ bytes), *cache a token* is the bytes of keys and
# values that one token of one row keeps in bfloat16, *trained* counts the numbers of the adapter
# and the value head. A checkpoint holds these and AdamW's two moments, in float32.
#
# ## One H100: memory, stage by stage
#
# A PPO step of this project has five stages: the prompter writes (*rollout*), the frozen LLM
# answers (*frozen*), the reward scores (*reward*, where it is a model), the policy and its
# reference give their log-probabilities (*reference*), and PPO learns (*update*). All models stay
# loaded. Evaluation holds the untrained prompter beside the trained one.

# %%
stages = plan.stages()
training.memory_by_stage(stages, gpu.memory, f"Preset {scale.name}, computed, not measured");

# %% [markdown]
# *Bytes of each stage, by part, one panel an architecture; computed.* For prompts of the length
# below every bar is an upper bound: all rows are as long as they may get, and the parts of a
# stage need not peak at once. The weights dominate; what comes on top is keys and values while a
# model writes, and what the backward pass keeps, or the logits of a whole group of rows, while it
# is trained.

# %%
in_gb(stages, [*PARTS, "total"]).astype(object).fillna("")

# %% [markdown]
# Computed; GB, and TFLOP and seconds a PPO step. The seconds bound the time **from below**: each
# stage takes at least its FLOPs at the GPU's published peak and at least the reading of its
# weights and cache at the published bandwidth. Writing tokens is bound by reading, learning from
# them mostly by computing. Real code reaches neither peak; expect a few times as much, and more
# where minibatches are small.
#
# ## One H100: does it fit, and for how long?

# %%
print(
    f"GPU: {gpu.memory / 1e9:g} GB, {gpu.flops / 1e12:g} TFLOP/s in bf16, "
    f"{gpu.bandwidth / 1e12:g} TB/s (the vendor's published figures for the H100 SXM)"
)
print(
    f"prompts of {plan.prompt} tokens, rewrites of {scale.prompter.max_new_tokens}, answers of "
    f"{scale.frozen.max_new_tokens}; {OVERHEAD / 1e9:g} GB allowed for CUDA and fragmentation"
)
in_gb(plan.summary(), ["peak"])

# %% [markdown]
# *peak* is the largest stage, *hours* those of all PPO steps of the preset on one dataset and
# seed, without evaluation; both computed.
#
# A prompt of that length is an ordinary one. The preset lets longer ones through, up to its
# `max_characters`, and rows of similar length run together, so that memory has to be there for a
# batch of the longest. At four characters a token:

# %%
longest = scale.data.hub.max_characters // 4 if scale.data.hub else 1024
columns = ["architecture", "configuration", "peak", "at stage", "fits"]
print(f"prompts of {longest} tokens")
in_gb(Plan(scale, gpu, prompt_tokens=longest).summary(), ["peak"])[columns]

# %% [markdown]
# The same questions for your own GPU, prompts and preset are one command, and need neither a GPU
# nor weights. `--flops` and `--bandwidth` take another GPU's published peaks, `--precision
# float32` is for one that does not compute in bfloat16:
#
# ```
# python -m alignpro plan --preset h100 --gpu-memory 40 --prompt-tokens 1000
# python -m alignpro plan --preset mine.yaml --remote-frozen
# ```
#
# ## One H100: what minibatches of one row cost
#
# `ppo: paper` takes the paper's hyper-parameters at their word, and with them minibatches of one
# completion: each batch is gone through row by row, and each row is an optimizer step. Here is
# one architecture with the minibatch of the preset, and with larger ones:

# %%
def with_ppo(**changes):
    ppo = dataclasses.replace(scale.ppo, **changes)
    return Plan(dataclasses.replace(scale, ppo=ppo, architectures=scale.architectures[:1]), gpu)


sizes = sorted({scale.ppo.minibatch_size, 8, 128})
tables = [with_ppo(minibatch_size=size).summary().assign(minibatch=size) for size in sizes]
minibatches = pd.concat(tables, ignore_index=True)
minibatches["passes"] = scale.ppo.epochs * scale.ppo.batch_size // minibatches["minibatch"]
steps = minibatches["configuration"].map({"Align-Pro": scale.ppo.steps, "RLHF": scale.rlhf.steps})
minibatches["hours of 0.1 s a pass"] = (minibatches["passes"] * steps * 0.1 / 3600).round(2)
columns = ["configuration", "minibatch", "passes", "peak", "fits", "hours", "hours of 0.1 s a pass"]
in_gb(minibatches, ["peak"])[columns]

# %% [markdown]
# Computed. *passes* are those of one PPO step, forward and backward with an optimizer step after
# each; *hours* is the lower bound of before. It hides the price of small minibatches, since it
# lets the GPU be busy all the time. With one row it is not: a pass launches its many small
# kernels one after another, and takes as long as that takes. The last column is what the passes
# alone need if each takes a tenth of a second, **an assumption to reckon with and no
# measurement**; time a few steps on your GPU (`time/update` in a run's `metrics.jsonl`) and put
# that in its place.

# %%
cells = len(scale.datasets) * len(scale.seeds)
assumed = minibatches[minibatches["minibatch"] == scale.ppo.minibatch_size]
per_run = assumed.set_index("configuration")["hours of 0.1 s a pass"]
runs = {"Align-Pro": len(plan.pairs) * cells, "RLHF": len({f for _, f in plan.pairs}) * cells}
print(f"the preset as it is: {runs['Align-Pro']} prompters and {runs['RLHF']} oracles,")
print(f"at least {plan.summary()['hours'].sum() * cells:.0f} hours of PPO steps by the bound,")
print(f"{sum(per_run[name] * runs[name] for name in runs):.0f} hours of passes by that assumption")

# %% [markdown]
# **What can be done about it.** Without another algorithm: fewer `steps`, shorter rewrites and
# answers, or one dataset at a time (`--dataset`). None of these numbers is the paper's, they are
# the preset's.
#
# A larger `minibatch_size` is faster, and it *is* another algorithm, though it may look like the
# same one with less noise. For rows of equal length the gradient of a minibatch has the same
# expectation whatever its size. What changes is this:
#
# * There are fewer optimizer steps, by the factor of the sizes. Adam's step hardly depends on the
#   scale of the gradient, so that at the same learning rate the policy goes a shorter way. A
#   larger rate makes up for some of it; which one, nobody has tried here.
# * The gradients of later rows are taken at a policy that has moved less since the batch was
#   sampled: the clip holds back less.
# * The loss is a mean over the *tokens* of a minibatch. In minibatches of one row each completion
#   counts the same, in larger ones a long completion counts for more than a short one.
#
# TRL itself raised its default from 1 to 128 between two releases that run the notebook which the
# paper names; the chapter on [the details of PPO](../book/ppo_details.md) has both (details 28
# and 29, and the paper's hyper-parameters at its end). As the table says, 128 rows do not fit on
# one GPU, since this trainer does not accumulate gradients. The preset therefore stays with the
# paper's number. For another, copy `alignpro/presets/h100.yaml` to `mine.yaml`, write the lines
# of `alignpro/presets/ppo/paper.yaml` in place of `ppo: paper`, change `minibatch_size`, and
# report the result as yours and not the paper's.
#
# ## When the frozen LLM lives elsewhere
#
# The frozen LLM is only ever asked for text, so it may run on another machine, behind any server
# that speaks the OpenAI protocol:
#
# ```
# there:  vllm serve meta-llama/Llama-3.1-8B-Instruct --generation-config vllm --max-model-len 8192
# here:   python -m alignpro reproduce --preset mine.yaml
# ```
#
# In `mine.yaml` the role F1 gains `endpoint: "http://there:8000/v1"`. What is checked before the
# first step, what each server honours, and what is kept when it breaks off stand in the chapter
# [A frozen LLM behind an API](../book/endpoint.md). Its weights and its cache leave this GPU:

# %%
remote = Plan(scale, gpu, remote_frozen=True).summary()
columns = ["architecture", "peak", "at stage", "fits", "seconds a step"]
in_gb(remote, ["peak"])[columns]

# %% [markdown]
# What is left is the prompter, and a reward model where there is one. The seconds leave out the
# server's. There is no RLHF row: an endpoint gives no weights to train, which is the paper's
# point.
#
# ## Several GPUs
#
# ```
# accelerate launch --num_processes 4 -m alignpro reproduce --preset mine.yaml
# ```
#
# Several processes share out each batch and each minibatch, and every one holds all models: a
# second GPU buys time, and room for nothing but more rows of a minibatch. Their number must
# divide `minibatch_size`. With the paper's minibatches of one row there is nothing to share, and
# the trainer refuses a second process; `mine.yaml` has a larger one. One architecture on one GPU
# and on four:

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
# A process samples and scores its share of the batch. It computes the log-probabilities of the
# whole batch, and learns from its share of each minibatch:

# %%
each = costs["learns"]
stage = each.index.get_level_values("stage")
each.loc[stage == "update", "seconds"] /= processes
drawn = stage.isin(["rollout", "frozen", "reward"])
each[drawn] = costs["samples"][drawn]
both = costs["alone"].add_suffix(", one GPU").join(each.add_suffix(f", each of {processes}"))
in_gb(both.drop(index="evaluation", level="stage"), [c for c in both if c.startswith("total")])

# %% [markdown]
# Computed: *total* in GB, at most, and *seconds* of a PPO step, at least, with minibatches of 8
# rows. Sampling gains as long as each process still has rows to fill its batch
# (`generation_batch`). The update gains less than it seems: the bound knows nothing of the time
# in which the gradients are summed, nor of the smaller passes. Evaluation is the first process's
# work alone; the others wait. Where a model does not fit into one GPU, the way out is the
# endpoint, which may itself spread over many.
#
# ## What was tested, and what was not
#
# | where | command | tested for this book |
# |---|---|---|
# | a laptop | `python -m alignpro reproduce --preset cpu` | yes: the runs in `results/` |
# | several processes on a CPU | `torchrun --nproc_per_node 2 -m alignpro reproduce` | yes, on tiny models: the result of one process |
# | Colab's T4 | the rocket on a notebook's page | every notebook after its own first cell alone, in a new environment on a CPU, under `smoke`; **never** on Colab or a T4 |
# | one H100 | `python -m alignpro reproduce --preset h100` | **no**. The same code runs on tiny models of the same four architectures, with their templates and end tokens |
# | the paper's datasets and models | the same | **never** from the Hub: from files and checkpoints of our own in their formats |
# | the frozen LLM elsewhere | `vllm serve …`, and an `endpoint` in the preset | over HTTP against `transformers serve` on a CPU; **never** with vLLM |
# | several GPUs | `accelerate launch --num_processes 4 -m alignpro reproduce` | **no** |
#
# The plan itself was checked so. The counts of parameters and the bytes of a token's keys and
# values are compared with published ones, for all the models above. Bytes are compared within
# 10 % with real runs on a CPU, for tiny models of the four architectures and for SmolLM2-135M:
# weights, adapter, keys and values, the tensors of a real checkpoint (tiny models), and the peaks
# of a real sampled batch, of the log-probabilities and of the update, as PyTorch's own allocator
# saw them. FLOPs and bytes read are compared with arithmetic by hand.
#
# What a CPU cannot tell: how much the kernels of a GPU keep for themselves (attention, matrix
# products), the gaps that its allocator leaves between blocks, whether bfloat16 changes a
# kernel's choice, and any real time. For the first three the plan allows a flat sum; for the last
# it claims a lower bound and no more.
#
# **Summary.** The way from a laptop to several GPUs is a preset and a command at each station,
# and what each of them holds and computes can be planned without a GPU, from shapes alone. The
# numbers above are bounds that follow from this project's code, and they become results only when
# somebody runs it.
