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
# # Training the prompter
#
# **What you will know at the end.** How a small prompter is trained with PPO in front of a frozen
# LLM that is only ever asked for text; what its learning curve and its KL look like; and what it
# learns to write.

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
import pandas as pd

from alignpro.figures import style, training
from alignpro.config import load_preset
from alignpro.experiments import Cell

style.use_style()
pd.set_option("display.max_colwidth", None)
settings = load_preset(preset)
cell = Cell(settings, dataset, seed)

# %% [markdown]
# ## Two models, one of them closed
#
# Both roles are played by the models that the preset names. The prompter ρ gets a LoRA adapter;
# the frozen LLM π_F gets nothing, and training reads neither its weights nor its probabilities.
# On a CPU with AMX tiles both compute in bfloat16. Where a preset says `int8`, the layers that are not
# trained multiply in 8 bits on a CPU with AVX512-VNNI alone, and those beside the adapter in 16 where
# it has AVX512-BF16: a step is then faster, and π_F is a slightly different, but still one fixed,
# model. Elsewhere both compute in float32; what a run was computed in stands on its card.

# %%
pd.DataFrame(
    {
        "role": ["prompter ρ", "frozen LLM π_F"],
        "model": [settings.models[role].source for role in cell.pair],
    }
)

# %% [markdown]
# ## What the prompter is asked
#
# Without a meta-prompt a prompter answers the prompt instead of rewriting it (the paper's App.
# C.1). The paper's wording is not available; ours asks for a short instruction, which is added to
# the prompt: x' = x + suffix. A rewrite therefore always keeps x word for word. The meta-prompt is
# the system message, and the user's message is x alone.

# %%
from alignpro.texts import META_PROMPT, NEUTRAL_MENU

print(META_PROMPT[settings.prompter.form])

# %% [markdown]
# A model this small needs a hint of what an instruction looks like. A short supervised start shows
# it a dozen neutral ones, drawn at random for every prompt. The result is ρ_sft, the reference of
# the KL leash. The suffixes of the last chapter that were written for a kind of question are *not*
# on this menu: what serves which kind, PPO has to find out.

# %%
pd.DataFrame({"the warm start's menu": NEUTRAL_MENU})

# %% [markdown]
# ## What the adapter sees
#
# A LoRA adapter adds B A h to what a layer computes from its input h. Before training B is zero,
# and a gradient step for one prompt moves another the more, the more alike their A h are. At the
# last token of a chat prompt, where the suffix is about to be written, they are nearly the same
# for all prompts: a reward earned by one kind of question then pushes all of them, and the noise
# of such pushes drowns what tells the kinds apart. Where the preset says `lora_centred`, A starts
# at the principal directions in which the training prompts *differ*, without their mean.

# %%
import numpy as np

from alignpro.prompter import adapter_similarity, centre_adapter

untrained = cell.untrained()
encode, ask = untrained.policy.encode, untrained.messages
unseen = sorted(cell.prompts("validation"), key=lambda x: str(x.kind))
views = {"A at random": adapter_similarity(untrained.policy, encode(ask(unseen)))}
centre_adapter(untrained.policy, encode(ask(cell.prompts("train"))))
views["A centred"] = adapter_similarity(untrained.policy, encode(ask(unseen)))
del untrained  # its memory is wanted for training
kinds = np.array([str(x.kind) for x in unseen])
training.similarity_maps(views, kinds);

# %% [markdown]
# *How alike validation prompts look to the adapter before training, sorted by kind.* What is nearly
# one colour on the left falls into blocks on the right: prompts of a kind then learn together, and
# those of different kinds apart.

# %%
same = kinds[:, None] == kinds
pairs = {"same kind": same & ~np.eye(len(kinds), dtype=bool), "different kinds": ~same}
print("centred in this run:", bool(settings.prompter.lora_centred))
rows = {t: {n: v.numpy()[p].mean() for n, p in pairs.items()} for t, v in views.items()}
pd.DataFrame(rows).T.rename_axis("mean cosine").round(2)

# %% [markdown]
# ## The loop
#
# Each PPO step draws a batch of suffixes from ρ, asks π_F for an answer to each, scores the answers
# against the original prompts, and moves ρ. The reward of a suffix is r(x, y) at its last token,
# minus λ times the log-ratio to ρ_sft at every token, whose sum over the suffix estimates
# λ KL(ρ‖ρ_sft). The run is kept on disk: if it is stopped, the same call goes on where it was.

# %%
import dataclasses

pd.Series(dataclasses.asdict(settings.ppo), dtype=object).to_frame("value")

# %%
trained = cell.train()
metrics = pd.DataFrame(cell.run.read("metrics.jsonl"))
episodes = metrics["episode"].iloc[-1]
print(f"{len(metrics)} steps, {episodes} episodes, in {cell.run.folder.name}")

# %%
training.learning_curve(metrics);

# %% [markdown]
# *Training batches against the PPO step: thin lines are single batches, thick lines a running
# mean of five.* Top left is what PPO is after. Top right is the price, in nats a sequence. The two
# panels below are the health signs to watch: entropy and variety that fall to nothing mean that
# the policy has collapsed onto one suffix.

# %%
scores, kl = metrics["objective/scores"], metrics["objective/kl"]
early, late = scores.head(5).mean(), scores.tail(5).mean()
print(f"mean reward of a batch: {early:.3f} (first five), {late:.3f} (last five)")
print(f"KL at the end: {kl.tail(5).mean():.2f} nats a sequence")

# %% [markdown]
# These are rewards on training prompts, under sampling with exploration. What the prompter is worth
# on prompts that it has never seen is the subject of the next chapter.
#
# ## Where the time goes

# %%
training.step_times(metrics);

# %% [markdown]
# *Median seconds by stage of a step.* Asking the frozen LLM and moving the prompter take the
# most; the KL leash costs one more forward pass, since the reference is the same model with its
# adapter switched off.
#
# ## Before and after
#
# Three held-out prompts, drawn by the seed and not by hand: the answer to the prompt as it is, and
# the answer to what the trained prompter makes of it.

# %%
import random

from alignpro.evaluation import evaluate, unchanged
from alignpro.runs import stage_seed
from alignpro.report.html import text_table

drawn = random.Random(seed).sample(cell.prompts("test"), 3)
rewriters = {"before": unchanged, "after": trained}
draw_seed = stage_seed(seed, "examples")
examples = evaluate(rewriters, cell.frozen, cell.reward, drawn, 1, draw_seed, False)
columns = ["configuration", "rewrite", "response", "reward"]
shown = examples.sort_values("id", kind="stable")[columns]
shown = shown.assign(reward=shown["reward"].map("{:.2f}".format))
text_table(shown).hide(axis="index")

# %% [markdown]
# Two rows a prompt: what was sent to the frozen LLM, what it answered, and the reward against the
# original prompt. Single answers are noisy, so one of three may well have got worse.
#
# ## What it learned to write

# %%
outputs = trained.propose(cell.prompts("train"), stage_seed(seed, "suffixes"))
asked = [p.kind for p in cell.prompts("train")]
written = pd.Series([str(o) for o in outputs]).groupby(asked)
share = written.value_counts(normalize=True).groupby(level=0).head(3)
share.rename_axis(["kind", "suffix"]).round(2).to_frame("share of its kind")

# %% [markdown]
# One suffix for each training prompt, counted by kind. Where the rows differ, the prompter has
# learned to read what kind of question it was given, which nobody told it.
#
# **Summary.** A LoRA adapter on a small model was trained by PPO through a frozen LLM that it can
# only ask. The curve, the KL and the texts above come from the run that this notebook made.
