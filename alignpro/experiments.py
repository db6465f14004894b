"""The stages of one experiment cell, each resumable: baselines, training, evaluation.

preset → prompts → rewrites → responses → rewards → files; the notebooks and `python -m alignpro`
call these functions and nothing deeper.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from alignpro import data, devices, models, ppo
from alignpro.config import ConfigError, PPOConfig, Preset, SamplingConfig, distinct_pairs
from alignpro.data import load_prompts
from alignpro.evaluation import (
    Rewriter,
    best_of,
    best_suffixes,
    constant,
    evaluate,
    per_kind,
    unchanged,
)
from alignpro.fast import linears
from alignpro.generation import Policy
from alignpro.prompter import Prompter, add_lora, centre_adapter, merge_adapter, save_prompter
from alignpro.rewards import RewardModel, rubric
from alignpro.runs import (
    RESULTS,
    STEP_PARTS,
    Run,
    atomic_write,
    function_name,
    require,
    stage_seed,
    write_json,
)
from alignpro.sources.endpoint import Endpoint
from alignpro.texts import BEST_SUFFIXES, NEUTRAL_MENU, Prompt, Response

DISK_NEEDED = 1e9
EXPORTED = (
    "config.json",
    "card.json",
    "coverage.json",
    "metrics.jsonl",
    "samples.jsonl",
    "suffixes.parquet",
    "evaluation.parquet",
    "best_of.parquet",
)
BEST_OF = (4, 16)
COVERAGE_SAMPLES = 16  # for each entry of the menu, on average


def as_it_is(sampling: SamplingConfig, max_new_tokens: int) -> SamplingConfig:
    """`sampling` at temperature 1 without truncation: the KL is then that of what is sampled."""
    return dataclasses.replace(
        sampling, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=max_new_tokens
    )


def preset_reward(preset: Preset) -> Callable:
    """The reward that `preset` names: a reward model by its role, or the rubric r*."""
    return RewardModel(preset.models[preset.reward]) if preset.reward else rubric


class Cell:
    """One dataset, one (prompter, frozen LLM) pair and one seed under a preset.

    `reward` is any function of prompts and responses; the default is the preset's. `root` is the
    folder of all runs. `gold`, a second reward, is written into the prompter's metrics and samples
    and never trained on. Raises ConfigError for a dataset or a pair that the preset cannot serve.
    """

    trainer = ppo.Trainer

    def __init__(
        self,
        preset: Preset,
        dataset: str,
        seed: int,
        pair: Sequence[str] | None = None,
        reward: Callable | None = None,
        root: str | Path = "runs",
        gold: Callable | None = None,
    ):
        self.gold = gold
        self.preset, self.dataset, self.seed = preset, dataset, seed
        self.reward = reward or preset_reward(preset)
        self.pair = tuple(pair or preset.architectures[0])
        data.check_dataset(dataset, preset.data.hub)
        for role in self.pair:
            if role not in preset.models:
                known = ", ".join(preset.models)
                raise ConfigError(f"no role {role!r} in preset {preset.name!r}: use one of {known}")
        self.remote = preset.models[self.pair[1]].endpoint is not None
        require(Path(root), DISK_NEEDED, models.memory_needed(preset, self.pair))
        name = function_name(self.reward)
        self.process = devices.process()
        with self.process.main_process_first():
            self.run = Run(root, preset, dataset, self.pair, "align-pro", seed, name)
            self.oracle_run = Run(root, preset, dataset, self.pair[1:], "rlhf", seed, name)
        self._frozen: Policy | Endpoint | None = None

    def prompts(self, split: str) -> list[Prompt]:
        """The prompts of `split`, as many as the preset says."""
        sizes = self.preset.data
        return load_prompts(self.dataset, split, getattr(sizes, split), sizes.hub)

    @property
    def frozen(self) -> Policy | Endpoint:
        """The frozen LLM π_F, which is only ever asked for text.

        An endpoint is probed first; raises EndpointError where it cannot be used.
        """
        if self._frozen is None:
            spec, batch = self.preset.models[self.pair[1]], self.preset.generation_batch
            if self.remote:
                endpoint = Endpoint(spec, self.preset.frozen, batch)
                self.process.print(endpoint.probe())
                self._frozen = endpoint
            else:
                model, tokenizer = models.load(spec)
                model = linears.to_fast(model, spec)
                self._frozen = Policy(model, tokenizer, self.preset.frozen, batch)
        return self._frozen

    @property
    def usage(self) -> str:
        """What an endpoint answered to this object so far, "" where none was asked."""
        return str(self._frozen.usage) if isinstance(self._frozen, Endpoint) else ""

    def suffix_table(self, progress: bool = True) -> pd.DataFrame:
        """Rewards of every hand-written suffix on the validation prompts, a row a response."""
        suffixes = ("", *NEUTRAL_MENU, *BEST_SUFFIXES)
        return self._stage(
            self.run.folder / "suffixes.parquet",
            lambda: ({s or "(nothing)": constant(s) for s in suffixes}, self.frozen),
            "validation",
            self.preset.evaluation.validation_samples,
            progress,
        )

    def untrained(self, progress: bool = True) -> Prompter:
        """The prompter at its reference ρ_sft: warm-started, with a fresh adapter at zero."""
        config, folder = self.preset.prompter, self.run.folder / "warm_start"
        # ρ is sampled as it is, so that the KL to ρ_sft is the KL of what is sampled.
        sampling = as_it_is(self.preset.frozen, config.max_new_tokens)
        if config.warm_start.steps:
            if not folder.exists():
                self._warm_start(sampling, folder, progress)
        model, tokenizer = self._trainable(0)
        if config.warm_start.steps:
            model = merge_adapter(model, folder)
        adapted = self._adapted(model, 0, "adapter")
        policy = Policy(adapted, tokenizer, sampling, self.preset.generation_batch)
        return Prompter(policy, config.form)

    def train(self, progress: bool = True) -> Prompter:
        """Train the prompter (or go on, or load it where that is done) and return it."""
        folder = self.run.folder / "prompter"
        if self.run.finished:
            prompter = self.untrained(progress)
        else:
            if self.remote:
                _ = self.frozen  # a server that will not do must not cost a warm start first
            with self.process.main_process_first():
                prompter = self.untrained(progress)
            if self.preset.prompter.lora_centred:
                asked = prompter.messages(self.prompts("train"))
                centre_adapter(prompter.policy, prompter.policy.encode(asked))
            self._fit(
                self.run,
                self.preset.ppo,
                prompter.policy,
                prompter.messages,
                self.score_rewrites(prompter),
                lambda: save_prompter(prompter, folder),
                progress,
            )
        prompter.policy.model.load_adapter(folder, "default", is_trainable=False)
        return prompter

    def train_oracle(self, progress: bool = True) -> Policy:
        """The RLHF oracle: the frozen LLM itself, fine-tuned by the same PPO on the same reward.

        Trains it, or goes on, or loads it where that is done; π_F itself stays as it is. Raises
        ConfigError for an endpoint, which gives no weights to train.
        """
        run, spec = self.oracle_run, self.preset.models[self.pair[1]]
        if self.remote:
            raise ConfigError(
                f"preset {self.preset.name!r}: models.{self.pair[1]}.endpoint: RLHF trains the "
                "frozen LLM's weights, which an endpoint does not give. Set `source` to a model "
                "that can be loaded here and leave `endpoint` out, or do without the oracle"
            )
        folder = run.folder / "policy"
        self._frozen = None  # π_F and a trained copy of it may not fit side by side
        if not run.finished:
            self._fit_oracle(folder, progress)
        model, tokenizer = models.load(spec)
        model = linears.to_fast(merge_adapter(model, folder), spec)
        return Policy(model, tokenizer, self.preset.frozen, self.preset.generation_batch)

    def _fit_oracle(self, folder: Path, progress: bool) -> None:
        """The training of `train_oracle`; what it holds in memory is free again afterwards."""
        model, tokenizer = self._trainable(1)
        adapted = self._adapted(model, 1, "oracle")
        sampling = as_it_is(self.preset.frozen, self.preset.frozen.max_new_tokens)
        self._fit(
            self.oracle_run,
            dataclasses.replace(self.preset.ppo, **dataclasses.asdict(self.preset.rlhf)),
            Policy(adapted, tokenizer, sampling, self.preset.generation_batch),
            lambda prompts: [[{"role": "user", "content": str(x)}] for x in prompts],
            self._score_answers,
            lambda: adapted.save_pretrained(folder, safe_serialization=True),
            progress,
        )

    def evaluate(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of Align-Pro and every baseline, a row a response.

        Rewrites and answers are both drawn with the preset's `frozen` sampling: the paper gives
        one set of parameters for generation in evaluation.
        """

        def made() -> tuple[dict[str, Rewriter], Policy]:
            best, by_kind = best_suffixes(self.suffix_table(progress))
            rewriters = {
                "No Fine-Tuning": unchanged,
                "Untrained prompter": self._evaluated(self.untrained(progress)),
                "Best constant suffix": constant(best),
            }
            if by_kind:
                rewriters["Best suffix per kind (oracle)"] = per_kind(by_kind)
            rewriters["Align-Pro"] = self._evaluated(self.train(progress))
            return rewriters, self.frozen

        path, samples = self.run.folder / "evaluation.parquet", self.preset.evaluation.samples
        return self._stage(path, made, "test", samples, progress)

    def evaluate_best_of(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of best-of-n over rewrites of ρ_sft: what choosing gains untrained.

        ρ_sft is drawn from as it is, as C12 has it; fewer answers a prompt, since each costs n + 1.
        """

        def made() -> tuple[dict[str, Rewriter], Policy]:
            reference = self.untrained(progress)
            of = {n: best_of(n, reference, self.frozen, self.reward) for n in BEST_OF}
            return {f"Best of {n} rewrites": rewriter for n, rewriter in of.items()}, self.frozen

        path = self.run.folder / "best_of.parquet"
        return self._stage(path, made, "test", self.preset.evaluation.validation_samples, progress)

    def evaluate_oracle(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of the RLHF oracle to the prompts of `evaluate`, from its seeds."""
        return self._stage(
            self.oracle_run.folder / "evaluation.parquet",
            lambda: ({"RLHF": unchanged}, self.train_oracle(progress)),
            "test",
            self.preset.evaluation.samples,
            progress,
        )

    def _stage(
        self,
        path: Path,
        made: Callable[[], tuple[dict[str, Rewriter], Policy]],
        split: str,
        samples: int,
        progress: bool,
    ) -> pd.DataFrame:
        """The table kept at `path`; only where there is none are its models made and asked."""
        if not path.exists():
            rewriters, policy = made()
            seed, prompts = stage_seed(self.seed, path.name), self.prompts(split)
            table = evaluate(rewriters, policy, self.reward, prompts, samples, seed, progress)
            with atomic_write(path) as partial:
                table.assign(seed=self.seed).to_parquet(partial, index=False)
        return pd.read_parquet(path)

    def _fit(
        self,
        run: Run,
        config: PPOConfig,
        policy: Policy,
        messages: Callable,
        score: ppo.Score,
        save: Callable[[], None],
        progress: bool,
    ) -> None:
        """Train `policy` to the end of `run`, `save` it, and write the run's card."""
        started = time.perf_counter()
        prompts = self.prompts("train")
        self.trainer(policy, prompts, messages, score, config, run).train(progress)
        if self.process.is_main_process:
            with run.writing("the trained adapter"):
                save()
            rows = run.read("metrics.jsonl")
            seconds = sum(row[name] for row in rows for name in STEP_PARTS)
            trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
            run.finish(
                training_seconds=round(seconds, 1),
                session_seconds=round(time.perf_counter() - started, 1),
                trained_parameters=trained,
                arithmetic=linears.arithmetic(policy.model),
                processes=self.process.num_processes,
                **({"endpoint": self._frozen.facts()} if self.remote else {}),
            )
        self.process.wait_for_everyone()

    def _trainable(self, role: int):
        """The model (0: prompter, 1: frozen LLM) whose last layers an adapter can train."""
        spec = self.preset.models[self.pair[role]]
        model, tokenizer = models.load(spec)
        return linears.to_fast(model, spec, self.preset.prompter.lora_layers), tokenizer

    def _adapted(self, model, role: int, stage: str):
        """`model` with a fresh adapter, its fixed products in the fastest format."""
        seed = stage_seed(self.seed, self.dataset, stage)
        adapted = add_lora(model, self.preset.prompter, seed)
        return linears.to_bf16(adapted, self.preset.models[self.pair[role]])

    def _evaluated(self, prompter: Prompter) -> Prompter:
        """`prompter`, sampled in evaluation as every model is, no longer at temperature 1."""
        length = prompter.policy.sampling.max_new_tokens
        prompter.policy.sampling = dataclasses.replace(self.preset.frozen, max_new_tokens=length)
        return prompter

    def _warm_start(self, sampling: SamplingConfig, folder: Path, progress: bool) -> None:
        """Teach a fresh adapter to write entries of the menu, and keep it in `folder`.

        How often it writes each of them is kept beside it, in `coverage.json`.
        """
        config = self.preset.prompter
        model, tokenizer = self._trainable(0)
        adapted = self._adapted(model, 0, "warm start")
        policy = Policy(adapted, tokenizer, sampling, self.preset.generation_batch)
        prompter, prompts = Prompter(policy, config.form), self.prompts("train")
        queries = policy.encode(prompter.messages(prompts))
        menu = NEUTRAL_MENU + (BEST_SUFFIXES if config.warm_start.menu == "all" else ())
        seed = stage_seed(self.seed, self.dataset, "warm start", "examples")
        ppo.warm_start(policy, queries, menu, config.warm_start, seed, progress)
        repeats = math.ceil(COVERAGE_SAMPLES * len(menu) / len(prompts))
        seed = stage_seed(self.seed, self.dataset, "warm start", "coverage")
        coverage = ppo.menu_coverage(policy.generate_ids(queries * repeats, seed), menu)
        write_json(self.run.folder / "coverage.json", coverage)
        if rare := ppo.rarely_written(coverage):
            print(
                f"after the warm start {coverage['off_menu']:.0%} of the suffixes are off the menu "
                f"and these entries are hardly ever written: {', '.join(rare)}. PPO learns little "
                "about what it does not try; a warm start with more steps helps",
                file=sys.stderr,
            )
        with atomic_write(folder) as partial:
            adapted.save_pretrained(partial, safe_serialization=True)

    def score_rewrites(self, prompter: Prompter) -> ppo.Score:
        """The black box of the paper: rewrite, ask the frozen LLM, reward against the original."""

        def score(prompts: Sequence[Prompt], outputs: Sequence[Response], seed: int) -> ppo.Scored:
            start = time.perf_counter()
            rewrites = prompter.rewritten(prompts, outputs)
            responses = self.frozen.generate(rewrites, seed)
            answered = time.perf_counter()
            scores = self.reward(prompts, responses)
            done = time.perf_counter()
            texts = [
                {"prompt": str(x), "rewrite": z, "response": str(y), "score": round(float(r), 4)}
                for x, z, y, r in zip(prompts, rewrites, responses, scores)
            ]
            if self.gold:
                for row, value in zip(texts, self.gold(prompts, responses)):
                    row["gold"] = round(float(value), 4)
            seconds = {"frozen": round(answered - start, 3), "reward": round(done - answered, 3)}
            tokens = sum(y.tokens for y in responses)
            return ppo.Scored(scores, texts, seconds, tokens)

        return score

    def _score_answers(
        self, prompts: Sequence[Prompt], outputs: Sequence[Response], seed: int
    ) -> ppo.Scored:
        """The oracle's score: the reward of its own answers."""
        start = time.perf_counter()
        scores = self.reward(prompts, outputs)
        seconds = {"reward": round(time.perf_counter() - start, 3)}
        texts = [
            {"prompt": str(x), "response": str(y), "score": round(float(r), 4)}
            for x, y, r in zip(prompts, outputs, scores)
        ]
        return ppo.Scored(scores, texts, seconds)

    def export(self, results: Path = RESULTS) -> Path:
        """Copy what a reader needs of the finished runs into `results/`: small, plain files.

        Returns the prompter's folder; the oracle's is named after the frozen LLM alone.
        """
        for run in (self.oracle_run, self.run):
            architecture = "".join(run.cell["architecture"])
            folder = results / self.preset.name / self.dataset / architecture / f"seed{self.seed}"
            if run.finished:
                for path in filter(Path.exists, (run.folder / name for name in EXPORTED)):
                    with atomic_write(folder / path.name) as partial:
                        shutil.copyfile(path, partial)
        return folder


def reproduce(
    preset: Preset,
    root: str | Path = "runs",
    results: Path = RESULTS,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[str]:
    """Train and evaluate every cell of a preset, oracle included, skipping what is done.

    A cell is an architecture, a dataset and a seed; those that share a frozen LLM share its oracle,
    and an endpoint has none. Architectures that name the same two models are one. `datasets` and
    `seeds` select cells and leave the preset, and with it each run's identity, as it is. Prints one
    line a cell with the time left. A failing cell is reported and the others go on; returns the
    names of those that failed.
    """
    seeds, datasets = seeds or preset.seeds, datasets or preset.datasets
    pairs = distinct_pairs(preset)
    distinct = dict.fromkeys(pairs.values())
    cells = [(seed, d, pair) for seed in seeds for d in datasets for pair in distinct]
    failed, start, process = [], time.perf_counter(), devices.process()
    for pair, same in pairs.items():
        if pair != same:
            process.print(f"{''.join(pair)} has the models of {''.join(same)}: run once, as that")
    for number, (seed, dataset, pair) in enumerate(cells, 1):
        name = f"{preset.name}/{dataset}/{''.join(pair)}/seed{seed}"
        try:
            cell = Cell(preset, dataset, seed, pair, root=root)
            cell.train()
            if not cell.remote:
                cell.train_oracle()
            if process.is_main_process:  # sampling for a table is not worth sharing out
                cell.evaluate()
                cell.evaluate_best_of()
                if not cell.remote:
                    cell.evaluate_oracle()
                cell.export(results)
            outcome = f"in {results}" + (f", {cell.usage}" if cell.usage else "")
        except Exception as error:  # one cell must not take the others down
            failed.append(name)
            outcome = f"FAILED: {error}"
        process.wait_for_everyone()
        spent = time.perf_counter() - start
        left = spent / number * (len(cells) - number) / 60
        process.print(f"[{number}/{len(cells)}] {name} {outcome}; about {left:.0f} min left")
    return failed
