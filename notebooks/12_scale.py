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
# **What you will know at the end.** What the paper's own models need of a GPU, stage by stage; how
# long a step takes at least; which command to start on which machine; and what of all this was
# tested for this book and what was only computed.

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
# **This page computes and measures nothing.** No GPU was at hand for this book. From each model's
# config alone the project builds it on PyTorch's meta device, where tensors have shapes and no data,
# and runs its own sampling, log-probabilities and update there, counting bytes and FLOPs.
#
# ## The models

# %%
from alignpro import figures
from alignpro.config import load_preset
from alignpro.plan import GPU, OVERHEAD, PARTS, Plan, in_gb

figures.use_style()
scale = load_preset(planned)
gpu = GPU()
plan = Plan(scale, gpu)
in_gb(plan.models(), ["weights", "checkpoint"])

# %% [markdown]
# Computed, not measured. Weights and checkpoint are in GB (10⁹ bytes), *cache a token* is the bytes
# of keys and values that one token of one row keeps in bfloat16, *trained* counts the numbers of the
# adapter and the value head. A checkpoint holds these and AdamW's two moments, in float32.
#
# ## Memory, stage by stage
#
# A PPO step of this project has five stages: the prompter writes (*rollout*), the frozen LLM answers
# (*frozen*), the reward scores (*reward*, where it is a model), the policy and its reference give
# their log-probabilities (*reference*), and PPO learns (*update*). All models stay loaded. Evaluation
# holds the untrained prompter beside the trained one.

# %%
stages = plan.stages()
# F2 is F1's model again where the preset repeats the paper's text: one panel tells both.
specs = scale.models
told, seen = [], set()
for name in stages["architecture"].unique():
    sources = tuple(specs[role].source for role in name.split("-"))
    if sources not in seen:
        seen.add(sources)
        told.append(name)
shown = stages[stages["architecture"].isin(told)]
figures.memory_by_stage(shown, gpu.memory, f"Preset {scale.name}, computed, not measured");

# %% [markdown]
# *Bytes of each stage, by part, one panel an architecture; computed.* Every bar is an upper bound:
# all rows are as long as they may get, and the parts of a stage need not peak at once. The weights
# dominate; what comes on top is keys and values while a model writes, and what the backward pass
# keeps, or the logits of a whole group of rows, while it is trained.

# %%
in_gb(shown, [*PARTS, "total"]).astype(object).fillna("")

# %% [markdown]
# Computed, not measured; GB, and TFLOP and seconds a PPO step. The seconds bound the time **from
# below**: each stage takes at least its FLOPs at the GPU's published peak and at least the reading of
# its weights and cache at the published bandwidth. Writing tokens is bound by reading, learning from
# them by computing. Real code reaches neither peak, small minibatches least of all; expect a few
# times as much.
#
# ## Does it fit?

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
# *peak* is the largest stage, *hours* those of all PPO steps of the preset on one dataset and seed,
# without evaluation; both computed. The same question for your own GPU, prompts and preset is one
# command, and needs neither GPU nor weights:
#
# ```
# python -m alignpro plan --preset h100
# python -m alignpro plan --preset h100 --gpu-memory 40 --prompt-tokens 1024
# python -m alignpro plan --preset mine.yaml --remote-frozen
# ```
#
# `--flops` and `--bandwidth` take another GPU's published peaks, `--precision float32` is for one
# that does not compute in bfloat16.
#
# ## When the frozen LLM lives elsewhere
#
# The frozen LLM is only ever asked for text, so it may run on another machine, behind any server
# that speaks the OpenAI protocol. Its weights and its cache then leave this GPU:

# %%
remote = Plan(scale, gpu, remote_frozen=True).summary()
columns = ["architecture", "peak", "at stage", "fits", "seconds a step"]
in_gb(remote, ["peak"])[columns]

# %% [markdown]
# What is left is the prompter, and a reward model where there is one. The seconds leave out the
# server's. There is no RLHF row: an endpoint gives no weights to train, which is the paper's point.
#
# ## From one machine to the next
#
# | where | command | expected | tested for this book |
# |---|---|---|---|
# | a laptop | `python -m alignpro reproduce --preset cpu` | the times in `results/*/*/*/card.json` | yes: each run there |
# | several processes, CPU | `torchrun --nproc_per_node 2 -m alignpro reproduce` | the same result from half a batch each | yes, on tiny models |
# | one H100 | `python -m alignpro reproduce --preset h100` | the tables above | **no**: computed; the same code runs on tiny models of the same four architectures |
# | several GPUs | `accelerate launch --num_processes 4 -m alignpro reproduce --preset h100` | see below | **no**: the same code runs on several CPU processes |
# | the frozen LLM elsewhere | there: `vllm serve meta-llama/Llama-3.1-8B-Instruct`; here: the preset's frozen role names that address | the table above | against a local server on a CPU; **never** with vLLM |
#
# Several processes share out each batch and each minibatch, and every one holds all models: a second
# GPU buys time, no memory, and each has to be as large as the tables say. Sampling scales with the
# processes as long as each still has rows to fill its batch. The update scales only as far as a
# minibatch can be shared: their number must divide `minibatch_size`, so that the paper's own
# minibatches of one row leave nothing to share, and the trainer then refuses a second process. Where a
# model does not fit into one GPU, the way out is the endpoint, which may itself spread over many.
#
# ## What was checked
#
# The counts of parameters and the bytes of a token's keys and values are compared with published
# ones, for all the paper's models. Bytes are compared within 10 % with real runs on a CPU, for tiny
# models of the four architectures and for SmolLM2-135M: weights, adapter, keys and values, the
# tensors of a real checkpoint (tiny models), and the peaks of a real sampled batch, of the
# log-probabilities and of the update, as PyTorch's own allocator saw them. FLOPs and bytes read are
# compared with arithmetic by hand.
#
# What a CPU cannot tell: how much the kernels of a GPU keep for themselves (attention, matrix
# products), the gaps that its allocator leaves between blocks, whether bfloat16 changes a kernel's
# choice, and any real time. For the first three the plan allows a flat sum; for the last it claims
# a lower bound and no more.
#
# **Summary.** Everything the paper trains can be planned without a GPU: a command says, from shapes
# alone, what each stage holds and computes. The numbers above are bounds that follow from this
# project's code, and they become results only when somebody runs it.
