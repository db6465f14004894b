"""Measure a PPO step and the sampler against TRL and transformers, in one process, alternating.

python tools/bench.py                  everything, into results/bench/bench.json (about 9 minutes)
python tools/bench.py --memory NAME    one step of one contender, its peak memory on stdout

Both trainers get the same prompts, model, LoRA layers, lengths, minibatches, epochs and reward.
Only ratios mean something on another machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import AutoModelForSequenceClassification  # noqa: E402
from transformers.cache_utils import DynamicLayer  # noqa: E402
from trl.experimental.ppo import PPOConfig as TRLConfig  # noqa: E402
from trl.experimental.ppo import PPOTrainer, ppo_trainer  # noqa: E402
from trl_adapter import BlackBoxReward, ValueOnTrunk  # noqa: E402

from alignpro import generation, models, ppo  # noqa: E402
from alignpro.config import Preset, load_preset  # noqa: E402
from alignpro.experiments import Cell  # noqa: E402
from alignpro.generation import Policy, filter_logits, left_pad  # noqa: E402
from alignpro.runs import provenance, write_json  # noqa: E402

BATCH, MINIBATCH = 32, 16
PARTS = ("rollout", "frozen", "reward", "reference", "update")
RESULT = ROOT / "results" / "bench" / "bench.json"


def settings(int8: bool) -> Preset:
    """The cpu preset at the benchmark's batch size, with or without 8-bit products."""
    preset = load_preset("cpu")
    specs = {k: dataclasses.replace(v, int8=int8) for k, v in preset.models.items()}
    return dataclasses.replace(
        preset,
        models=specs,
        generation_batch=BATCH,
        prompter=dataclasses.replace(
            preset.prompter, warm_start=dataclasses.replace(preset.prompter.warm_start, steps=8)
        ),
        ppo=dataclasses.replace(preset.ppo, batch_size=BATCH, minibatch_size=MINIBATCH, steps=99),
        data=dataclasses.replace(preset.data, train=BATCH),
    )


class Ours:
    """This project's trainer, one step at a time."""

    def __init__(self, root: Path, int8: bool):
        self.cell = Cell(settings(int8), "help", 0, root=root)
        prompter = self.cell._untrained(progress=False)
        self.trainer = ppo.Trainer(
            prompter.policy,
            self.cell.prompts("train"),
            prompter.messages,
            self.cell._score(prompter),
            self.cell.preset.ppo,
            self.cell.run,
        )
        self.steps = 0

    def step(self) -> dict[str, float]:
        """Seconds of one step by part; the policy's own pass counts as update."""
        self.steps += 1
        metrics, _ = self.trainer._step(self.steps)
        spent = {name: metrics[f"time/{name}"] for name in PARTS}
        spent["update"] += metrics["time/policy"]
        return spent


class TRLs:
    """TRL's PPOTrainer on the same work, its frozen LLM asked through transformers.generate."""

    def __init__(self, root: Path, best: bool):
        cell = Cell(settings(int8=False), "help", 0, root=root)
        prompter = cell._untrained(progress=False)
        policy, tokenizer = prompter.policy.model, prompter.policy.tokenizer
        prompts = cell.prompts("train")
        queries = prompter.policy.encode(prompter.messages(prompts))
        by_query = {tuple(q): x for q, x in zip(queries, prompts)}
        self.frozen, self.seconds = cell.frozen, dict.fromkeys(PARTS, 0.0)
        if best:
            value = ValueOnTrunk(policy, torch.nn.Linear(policy.config.hidden_size, 1))
            half = models.dtype() == torch.bfloat16
            switches = {"gradient_checkpointing": False, "bf16": half}
        else:
            value = AutoModelForSequenceClassification.from_pretrained(
                models.smollm2_folder(), num_labels=1
            )
            switches = {}
        arguments = TRLConfig(
            output_dir=str(root / f"trl-{best}"),
            use_cpu=models.device().type == "cpu",
            report_to="none",
            disable_tqdm=True,
            num_sample_generations=0,
            save_strategy="no",
            stop_token="eos",
            temperature=1.0,
            per_device_train_batch_size=BATCH,
            num_mini_batches=BATCH // MINIBATCH,
            num_ppo_epochs=cell.preset.ppo.epochs,
            total_episodes=BATCH,
            response_length=cell.preset.prompter.max_new_tokens,
            learning_rate=cell.preset.ppo.learning_rate,
            kl_coef=cell.preset.ppo.lam,
            **switches,
        )

        def reward(rows: list[list[int]]) -> torch.Tensor:
            started = time.perf_counter()
            asked, rewrites = [], []
            for ids in rows:
                query = next(q for q in by_query if tuple(ids[: len(q)]) == q)
                asked.append(by_query[query])
                rewrites.append(tokenizer.decode(ids[len(query) :], skip_special_tokens=True))
            answers = stock_generate(self.frozen, prompter.rewritten(asked, rewrites), seed=0)
            answered = time.perf_counter()
            scores = torch.as_tensor(cell.reward(asked, answers))
            self.seconds["frozen"] += answered - started
            self.seconds["reward"] += time.perf_counter() - answered
            return scores

        tokenizer.padding_side = "left"
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            self.trainer = PPOTrainer(
                arguments,
                tokenizer,
                policy,
                ref_model=None,
                reward_model=BlackBoxReward(reward),
                train_dataset=Dataset.from_dict({"input_ids": queries}),
                value_model=value,
            )
        self.trainer.log = lambda logs: None

    def step(self) -> dict[str, float]:
        """Seconds of one batch by part; what is none of the others counts as update."""
        self.seconds = dict.fromkeys(PARTS, 0.0)

        def timed(name, function):
            def call(*arguments, **options):
                started = time.perf_counter()
                try:
                    return function(*arguments, **options)
                finally:
                    self.seconds[name] += time.perf_counter() - started

            return call

        @contextlib.contextmanager
        def reference():
            started = time.perf_counter()
            with original():
                yield
            self.seconds["reference"] += time.perf_counter() - started

        original = self.trainer.null_ref_context
        started = time.perf_counter()
        with (
            mock.patch.object(
                ppo_trainer, "batch_generation", timed("rollout", ppo_trainer.batch_generation)
            ),
            mock.patch.object(self.trainer, "null_ref_context", reference),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            self.trainer.train()
        self.seconds["update"] = time.perf_counter() - started - sum(self.seconds.values())
        return self.seconds


@torch.inference_mode()
def stock_generate(policy: Policy, prompts: list[str], seed: int) -> list[generation.Response]:
    """The same request answered by transformers.generate, in one left-padded batch."""
    torch.manual_seed(seed)
    encoded = policy.encode([[{"role": "user", "content": x}] for x in prompts])
    ids, mask = left_pad(encoded, policy.tokenizer.pad_token_id, policy.model.device)
    drawn = policy.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=policy.sampling.temperature,
        top_k=policy.sampling.top_k,
        top_p=policy.sampling.top_p,
        max_new_tokens=policy.sampling.max_new_tokens,
        pad_token_id=policy.tokenizer.pad_token_id,
    )[:, ids.shape[1] :].tolist()
    responses = []
    for row in drawn:
        kept = [t for t in row if t != policy.tokenizer.pad_token_id]
        text = policy.tokenizer.decode(kept, skip_special_tokens=True).strip()
        responses.append(generation.Response(text, kept[-1:] == [policy.eos_ids[0]], kept))
    return responses


CONTENDERS = {
    "TRL, its defaults": lambda root: TRLs(root, best=False),
    "TRL, at its best": lambda root: TRLs(root, best=True),
    "alignpro, fp32": lambda root: Ours(root, int8=False),
    "alignpro": lambda root: Ours(root, int8=True),
}


def steps(root: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds by part of `rounds` steps of each contender, in turns; a first round warms up."""
    running = {name: make(root) for name, make in CONTENDERS.items()}
    spent: dict[str, list] = {name: [] for name in running}
    for turn in range(rounds + 1):
        for name, contender in running.items():
            seconds = contender.step()
            print(f"  {name:20} {sum(seconds.values()):6.1f} s", flush=True)
            if turn:
                spent[name].append(seconds)
    return spent


def sampling(rounds: int) -> dict[str, list[float]]:
    """Tokens a second of the frozen LLM's sampling, in turns; a first round warms up."""
    exact, eight = (settings(int8=i) for i in (False, True))
    model, tokenizer = models.load(exact.models["F1"])
    fp32 = Policy(model, tokenizer, exact.frozen, BATCH)
    spec = eight.models["F1"]
    model, tokenizer = models.load(spec)
    int8 = Policy(models.to_int8(model, spec), tokenizer, eight.frozen, BATCH)
    prompts = [str(x) for x in Cell(exact, "help", 0, root=tempfile.mkdtemp()).prompts("train")]
    runs = {
        "transformers.generate, fp32": lambda seed: stock_generate(fp32, prompts, seed),
        "alignpro, fp32": lambda seed: fp32.generate(prompts, seed),
        "alignpro, 8-bit": lambda seed: int8.generate(prompts, seed),
    }
    rates: dict[str, list] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            tokens = sum(len(y.token_ids) for y in run(turn))
            rate = tokens / (time.perf_counter() - started)
            print(f"  {name:30} {rate:6.0f} tokens/s", flush=True)
            if turn:
                rates[name].append(rate)
    return rates


def _sorted_filter(logits, temperature, top_k, top_p):
    """The whole vocabulary sorted, as transformers does it: the way not taken."""
    if top_k:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    return filter_logits(logits, temperature, 0, top_p)


# What each optimisation is worth: the time without it over the time with it.
WITHOUT = {
    "shared prefix of the queries": lambda: mock.patch.multiple(
        "alignpro.generation", shared_prefix=lambda encoded: 0
    ),
    "shared prefix in the update": lambda: mock.patch(
        "alignpro.logprobs.shared_prefix", lambda encoded: 0
    ),
    "trunk computed once": lambda: mock.patch("alignpro.ppo.with_trunk", lambda m, b, p: b),
    "top-k before the sort": lambda: mock.patch(
        "alignpro.generation.filter_logits", _sorted_filter
    ),
    "cache grows in chunks": lambda: mock.patch("alignpro.generation.GrowingLayer", DynamicLayer),
}


def ablations(root: Path, rounds: int) -> dict[str, list[float]]:
    """For each optimisation, the ratios of a step without it to the step with it beside it."""
    contender = Ours(root, int8=True)
    contender.step()
    ratios: dict[str, list] = {name: [] for name in WITHOUT}
    for _ in range(rounds):
        for name, patch in WITHOUT.items():
            kept = sum(contender.step().values())
            with patch():
                dropped = sum(contender.step().values())
            ratios[name].append(dropped / kept)
            print(f"  without: {name:32} x{dropped / kept:.2f}", flush=True)
    return ratios


def limits(root: Path) -> dict[str, float]:
    """The CPU's measured peaks, and what a step of ours (fp32) needs of them."""

    def best(run, work, repeats=5):
        run()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return work / min(seconds)

    a, big = torch.randn(2048, 2048), torch.randn(1 << 26)
    thin, weight = torch.randn(BATCH, 576), torch.randn(1536, 576)
    eight = weight.to(torch.int8)
    out = torch.empty_like(big)

    def many(function, count=200):
        return lambda: [function() for _ in range(count)]

    work = 2 * BATCH * 576 * 1536 * 200
    contender = Ours(root, int8=False)
    with FlopCounterMode(display=False) as counter:
        contender.step()
    return {
        "fp32_peak_gflops": best(lambda: a @ a, 2 * 2048**3) / 1e9,
        "fp32_decoding_gflops": best(many(lambda: thin @ weight.t()), work) / 1e9,
        "int8_decoding_gflops": best(
            many(lambda: torch._int_mm(thin.to(torch.int8), eight.t())), work
        )
        / 1e9,
        "bandwidth_gb_per_s": best(lambda: out.copy_(big), 2 * big.nbytes) / 1e9,
        "step_gflop": counter.get_total_flops() / 1e9,
    }


def peak_memory(name: str) -> float:
    """Peak resident memory in GB of a fresh process that runs one step of contender `name`."""
    command = [sys.executable, __file__, "--memory", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.memory:
            CONTENDERS[arguments.memory](root).step()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
            return
        started = time.perf_counter()
        result = {"batch": BATCH, "threads": torch.get_num_threads()}
        print("sampling")
        result["tokens_per_second"] = sampling(arguments.rounds)
        print("steps")
        result["seconds"] = steps(root, arguments.rounds)
        print("optimisations")
        result["ratio_without"] = ablations(root, arguments.rounds)
        print("limits")
        result["limits"] = limits(root)
        print("peak memory")
        result["peak_memory_gb"] = {name: peak_memory(name) for name in CONTENDERS}
        result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULT, {**result, **provenance()})
    report(result)


def report(result: dict) -> None:
    """Print the tables."""
    totals = {
        name: min(sum(step.values()) for step in spent) for name, spent in result["seconds"].items()
    }
    ours = totals["alignpro"]
    print(
        f"\n{'seconds a step':22}" + "".join(f"{p:>11}" for p in PARTS) + "      total   ratio  GB"
    )
    for name, spent in result["seconds"].items():
        best = min(spent, key=lambda step: sum(step.values()))
        row = "".join(f"{best[p]:11.1f}" for p in PARTS)
        memory = result["peak_memory_gb"][name]
        print(f"{name:22}{row}{totals[name]:11.1f}{totals[name] / ours:8.2f}{memory:6.1f}")
    print("\ntokens a second")
    for name, rates in result["tokens_per_second"].items():
        print(f"{name:30} {max(rates):6.0f}")


if __name__ == "__main__":
    main()
