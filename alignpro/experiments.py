"""The stages of one experiment cell, each resumable: baselines, training, evaluation.

preset → prompts → rewrites → responses → rewards → files; the notebooks and `python -m alignpro`
call these functions and nothing deeper.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignpro import data, devices, evaluation, models, ppo
from alignpro.config import ConfigError, PPOConfig, Preset, SamplingConfig, distinct_pairs
from alignpro.data import load_prompts
from alignpro.fast import linears
from alignpro.fast.adapter import add_lora, centre_adapter, merge_adapter
from alignpro.generation import Messages, Policy
from alignpro.prompter import Prompter
from alignpro.rewards import form_score, rubric
from alignpro.runs import RESULTS, STEP_PARTS, Run, stage_seed, write_json
from alignpro.sources import (
    files,
    finished_runs,
    kept_results,
    own_reward,
    prompter_folder,
    reference,
    room,
    trackers,
)
from alignpro.sources.endpoint import Endpoint
from alignpro.sources.model_card import write_model_card
from alignpro.sources.provenance import note_session
from alignpro.sources.reward_model import RewardModel
from alignpro.texts import Prompt, Response, Reward

DISK_NEEDED = 1e9
BEST_OF = (4, 16)


def untruncated(sampling: SamplingConfig, max_new_tokens: int) -> SamplingConfig:
    """`sampling` at temperature 1 without truncation: the KL is then that of what is sampled."""
    return dataclasses.replace(
        sampling, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=max_new_tokens
    )


def preset_reward(preset: Preset) -> Reward:
    """The reward that `preset` names: a function, a reward model by its role, or the rubric r*."""
    if preset.reward_function:
        return own_reward.load_reward(preset.reward_function)
    return RewardModel(preset.models[preset.reward]) if preset.reward else rubric


class Cell:
    """One dataset, one (prompter, frozen LLM) pair and one seed under a preset.

    `pair` names two roles of the preset (default: the preset's first pair). `reward` is any
    callable of prompts and responses (default: the preset's), tried on two prompts at once.
    `dataset` is a name, or the path of a file of prompts (`sources.prompt_files`). `root` is the
    folder of all runs. `gold`, a second reward, is written into the metrics and samples and never
    trained on. `again` allows training beside a finished run whose reward, prompts or preset were
    other ones. Raises ConfigError for a dataset or a pair that the preset cannot serve, and
    RunError for a reward that fails or that cannot be told from others.
    """

    trainer = ppo.Trainer

    def __init__(
        self,
        preset: Preset,
        dataset: str,
        seed: int,
        pair: Sequence[str] | None = None,
        reward: Reward | None = None,
        root: str | Path = "runs",
        gold: Reward | None = None,
        again: bool = False,
    ):
        self.gold, self.again = gold, again
        self.preset, self.source, self.seed = preset, str(dataset), seed
        self.reward = reward or preset_reward(preset)
        self.pair = tuple(pair or preset.architectures[0])
        data.check_dataset(self.source, preset.data.hub)
        self.dataset = data.dataset_name(self.source)
        for role in self.pair:
            if role not in preset.models:
                known = ", ".join(preset.models)
                raise ConfigError(f"no role {role!r} in preset {preset.name!r}: use one of {known}")
        self.remote = preset.models[self.pair[1]].endpoint is not None
        if data.is_file(self.source):  # what is missing must show before a warm start
            asked = [x for split in data.SPLITS for x in self.prompts(split)]
            if self.reward is rubric:
                _ = [form_score(x, Response("")) for x in asked]  # raises for a kind of your own
        trackers.check_tracker(preset.tracker)
        room.require(Path(root), DISK_NEEDED, room.memory_needed(preset, self.pair))
        own = reward is not None or preset.reward_function is not None
        self.own = own or data.is_file(self.source)
        name = own_reward.checked_name(self.reward, self.prompts("train")[:2] if own else [])
        self.process = devices.process()
        with self.process.main_process_first():
            named = {r: models.identity(s) for r in self.pair if (s := preset.models[r]).is_named}
            for_oracle = {r: named[r] for r in self.pair[1:] if r in named}
            cell = (root, preset, self.dataset)
            self.run = Run(*cell, self.pair, "align-pro", seed, name, named)
            self.oracle_run = Run(*cell, self.pair[1:], "rlhf", seed, name, for_oracle)
            finished_runs.note_parts(self.run, own_reward.reward_parts(self.reward))
        self._frozen: Policy | Endpoint | None = None

    def prompts(self, split: str) -> list[Prompt]:
        """The prompts of `split`, as many as the preset says."""
        sizes = self.preset.data
        limit, column = getattr(sizes, split), sizes.prompt_column or "prompt"
        return load_prompts(self.source, split, limit, sizes.hub, column)

    @property
    def frozen(self) -> Policy | Endpoint:
        """The frozen LLM π_F, loaded at first use. It is only ever asked for text.

        An endpoint is probed first. Raises EndpointError where it cannot be used.
        """
        if self._frozen is None:
            spec, batch = self.preset.models[self.pair[1]], self.preset.generation_batch
            if self.remote:
                kept = self.run.folder / "answers.jsonl"
                endpoint = Endpoint(spec, self.preset.frozen, batch, kept)
                self.process.print(endpoint.probe())
                self._frozen = endpoint
            else:
                model, tokenizer = models.load(spec)
                model = linears.to_fast(model, spec)
                self._frozen = Policy(model, tokenizer, self.preset.frozen, batch)
        return self._frozen

    @property
    def usage(self) -> str:
        """Calls and tokens of this object's endpoint so far; "" where there is none."""
        return str(self._frozen.usage) if isinstance(self._frozen, Endpoint) else ""

    def suffix_table(self, progress: bool = True) -> pd.DataFrame:
        """Rewards of every hand-written suffix on the validation prompts, one row per response."""

        def make() -> pd.DataFrame:
            suffixes = reference.candidates(self.preset.prompter.warm_start)
            rewriters = {suffix or "(nothing)": evaluation.constant(suffix) for suffix in suffixes}
            samples = self.preset.evaluation.validation_samples
            return self._table(path.name, rewriters, self.frozen, "validation", samples, progress)

        path = self.run.folder / "suffixes.parquet"
        return evaluation.kept(path, make)

    def untrained(self, progress: bool = True) -> Prompter:
        """The prompter at its reference ρ_sft: warm-started, with a fresh adapter at zero."""
        config, folder = self.preset.prompter, self.run.folder / "warm_start"
        sampling = untruncated(self.preset.frozen, config.max_new_tokens)
        warm = config.warm_start.steps > 0
        if warm and not folder.exists():
            self._warm_start(sampling, folder, progress)
        model, tokenizer = self._adapted(0, "adapter", folder if warm else None)
        policy = Policy(model, tokenizer, sampling, self.preset.generation_batch)
        return Prompter(policy, config.form, config.meta_prompt)

    def train(self, progress: bool = True) -> Prompter:
        """The trained prompter. Trains it, resumes its training, or loads it where it is done.

        It is loaded from the folder `prompter` of its run, which holds all that it needs but its
        base model: `Prompter.load` gives the same one anywhere.
        """
        folder = self.run.folder / "prompter"
        if not self.run.finished:
            with files.locked(self.run.folder, self.process.is_main_process):
                self._fit_prompter(folder, progress)
        self._describe()
        return Prompter.load(folder, self.preset.models[self.pair[0]].source)

    def _fit_prompter(self, folder: Path, progress: bool) -> None:
        """The training of `train`. It frees its memory when it returns."""
        finished_runs.before_training(self.run, self.own, self.again)
        if self.remote:
            _ = self.frozen  # an unusable server must not cost a warm start first
        with self.process.main_process_first():
            prompter = self.untrained(progress)
        for split in data.SPLITS:  # a prompt that is too long must show before the training
            prompter.policy.encode(prompter.messages(self.prompts(split)))
        if self.preset.prompter.lora_centred:
            asked = prompter.messages(self.prompts("train"))
            centre_adapter(prompter.policy.model, prompter.policy.encode(asked))
        config, spec = self.preset.prompter, self.preset.models[self.pair[0]]
        start = self.run.folder / "warm_start" if config.warm_start.steps else None
        self._fit(
            self.run,
            self.preset.ppo,
            prompter.policy,
            prompter.messages,
            self.score_rewrites(prompter),
            lambda place: prompter_folder.write(
                *(place, prompter.policy, prompter.form, prompter.meta_prompt),
                *(spec, config.lora_layers, start),
            ),
            folder,
            progress,
        )

    def train_oracle(self, progress: bool = True) -> Policy:
        """The RLHF oracle: the frozen LLM itself, fine-tuned by the same PPO on the same reward.

        Trains it, resumes its training, or loads it where it is done. π_F itself does not change.
        Raises ConfigError for an endpoint, which gives no weights to train.
        """
        run, spec = self.oracle_run, self.preset.models[self.pair[1]]
        if self.remote:
            raise ConfigError(
                f"preset {self.preset.name!r}: models.{self.pair[1]}.endpoint: RLHF trains the "
                "frozen LLM's weights, which an endpoint does not give. Set `source` to a model "
                "that can be loaded here and leave out `endpoint`, or do without the oracle"
            )
        folder = run.folder / "policy"
        self._frozen = None  # π_F and a trained copy of it may not fit side by side
        if not run.finished:
            with files.locked(run.folder, self.process.is_main_process):
                self._fit_oracle(folder, progress)
        files.check_seal(folder)
        model, tokenizer = models.load(spec)
        model = linears.to_fast(merge_adapter(model, folder), spec)
        return Policy(model, tokenizer, self.preset.frozen, self.preset.generation_batch)

    def _fit_oracle(self, folder: Path, progress: bool) -> None:
        """The training of `train_oracle`. It frees its memory when it returns."""
        model, tokenizer = self._adapted(1, "oracle")
        sampling = untruncated(self.preset.frozen, self.preset.frozen.max_new_tokens)
        self._fit(
            self.oracle_run,
            dataclasses.replace(self.preset.ppo, **dataclasses.asdict(self.preset.rlhf)),
            Policy(model, tokenizer, sampling, self.preset.generation_batch),
            lambda prompts: [[{"role": "user", "content": str(x)}] for x in prompts],
            lambda prompts, outputs, seed: self._scored(prompts, outputs),
            lambda place: files.save_adapter(model, place),
            folder,
            progress,
        )

    def evaluate(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of Align-Pro and every baseline, one row per response.

        Rewrites and answers are both sampled as the preset's `frozen` says: the paper gives one
        set of parameters for generation in evaluation.
        """

        def make() -> pd.DataFrame:
            best, by_kind = evaluation.best_suffixes(self.suffix_table(progress))
            rewriters: dict[str, evaluation.Rewriter] = {
                "No Fine-Tuning": evaluation.unchanged,
                "Untrained prompter": self._in_evaluation(self.untrained(progress)),
                "Best constant suffix": evaluation.constant(best),
            }
            if by_kind:
                rewriters[evaluation.TOLD_THE_KIND] = evaluation.per_kind(by_kind, best)
            rewriters["Align-Pro"] = self._in_evaluation(self.train(progress))
            samples = self.preset.evaluation.samples
            return self._table(path.name, rewriters, self.frozen, "test", samples, progress)

        path = self.run.folder / "evaluation.parquet"
        table = evaluation.kept(path, make)
        self._describe()
        return table

    def _describe(self) -> None:
        """Keep the run's card and a model card beside the trained prompter."""
        if self.process.is_main_process and (self.run.folder / "prompter").exists():
            with files.explained(self.run.folder / "prompter" / "README.md"):
                write_model_card(self.run.folder, self.preset.evaluation.resamples)

    def evaluate_best_of(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of best-of-n over rewrites of ρ_sft: what choosing gains untrained.

        ρ_sft is sampled without truncation, as in C12. There are fewer responses per prompt than in
        `evaluate`, since each costs n + 1 answers.
        """

        def make() -> pd.DataFrame:
            reference, samples = self.untrained(progress), self.preset.evaluation.validation_samples
            rewriters = {
                f"Best of {n} rewrites": evaluation.best_of(n, reference, self.frozen, self.reward)
                for n in BEST_OF
            }
            return self._table(path.name, rewriters, self.frozen, "test", samples, progress)

        path = self.run.folder / "best_of.parquet"
        return evaluation.kept(path, make)

    def evaluate_oracle(self, progress: bool = True) -> pd.DataFrame:
        """Held-out responses of the RLHF oracle to the prompts of `evaluate`, with its seeds."""

        def make() -> pd.DataFrame:
            oracle, samples = self.train_oracle(progress), self.preset.evaluation.samples
            rewriters: dict[str, evaluation.Rewriter] = {"RLHF": evaluation.unchanged}
            return self._table(path.name, rewriters, oracle, "test", samples, progress)

        path = self.oracle_run.folder / "evaluation.parquet"
        return evaluation.kept(path, make)

    def _table(
        self,
        stage: str,
        rewriters: dict[str, evaluation.Rewriter],
        policy: Policy | Endpoint,
        split: str,
        samples: int,
        progress: bool,
    ) -> pd.DataFrame:
        """`evaluate` on the prompts of `split`, with a seed of this `stage`."""
        seed, prompts = stage_seed(self.seed, stage), self.prompts(split)
        rows = evaluation.evaluate(rewriters, policy, self.reward, prompts, samples, seed, progress)
        return rows.assign(seed=self.seed)

    def _fit(
        self,
        run: Run,
        config: PPOConfig,
        policy: Policy,
        messages: Callable[[Sequence[Prompt]], list[Messages]],
        score: ppo.Score,
        save: Callable[[Path], None],
        folder: Path,
        progress: bool,
    ) -> None:
        """Train `policy` to the end of `run`, `save` it in `folder`, and write the run's card."""
        started = time.perf_counter()
        prompts, frozen = self.prompts("train"), self._frozen
        if self.process.is_main_process:
            if changes := note_session(run.folder):
                self.process.print(f"this run began with other software: {'; '.join(changes)}")
            files.try_out(save, run.folder)  # what cannot be saved must show before the training
        with trackers.tracked(run, self.preset.tracker):
            self.trainer(policy, prompts, messages, score, config, run).train(progress)
        if self.process.is_main_process:
            with run.writing("the trained adapter"):
                save(folder)
            rows = run.read("metrics.jsonl")
            seconds = sum(row[name] for row in rows for name in STEP_PARTS)
            trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
            run.finish(
                training_seconds=round(seconds, 1),
                session_seconds=round(time.perf_counter() - started, 1),
                trained_parameters=trained,
                arithmetic=linears.arithmetic(policy.model),
                processes=self.process.num_processes,
                changed_since_start=note_session(run.folder),
                **({"endpoint": frozen.facts()} if isinstance(frozen, Endpoint) else {}),
            )
        self.process.wait_for_everyone()

    def _adapted(self, role: int, stage: str, start: Path | None = None) -> tuple[Any, Any]:
        """The model of a role (0: prompter, 1: frozen LLM) with a fresh adapter, and its tokenizer.

        An adapter kept in `start` is merged into the weights first. `stage` seeds the fresh one.
        """
        spec, config = self.preset.models[self.pair[role]], self.preset.prompter
        model, tokenizer = models.load(spec)
        model = linears.to_fast(model, spec, config.lora_layers)
        if start is not None:
            files.check_seal(start)
            model = merge_adapter(model, start)
        model = add_lora(model, config, stage_seed(self.seed, self.dataset, stage))
        return linears.to_bf16(model, spec), tokenizer

    def _in_evaluation(self, prompter: Prompter) -> Prompter:
        """`prompter`, sampled with the parameters of evaluation, no longer at temperature 1."""
        length = prompter.policy.sampling.max_new_tokens
        prompter.policy.sampling = dataclasses.replace(self.preset.frozen, max_new_tokens=length)
        return prompter

    def _warm_start(self, sampling: SamplingConfig, folder: Path, progress: bool) -> None:
        """Teach a fresh adapter to write entries of the menu, and keep it in `folder`.

        How often it writes each of them is kept beside it, in `coverage.json`.
        """
        config = self.preset.prompter
        model, tokenizer = self._adapted(0, "warm start")
        policy = Policy(model, tokenizer, sampling, self.preset.generation_batch)
        prompter, prompts = Prompter(policy, config.form, config.meta_prompt), self.prompts("train")
        queries = policy.encode(prompter.messages(prompts))
        menu = reference.menu_of(config.warm_start)
        seed = stage_seed(self.seed, self.dataset, "warm start", "examples")
        reference.warm_start(policy, queries, menu, config.warm_start, seed, progress)
        seed = stage_seed(self.seed, self.dataset, "warm start", "coverage")
        coverage = reference.sampled_coverage(policy, queries, menu, seed)
        with files.explained(self.run.folder / "coverage.json"):
            write_json(self.run.folder / "coverage.json", coverage)
        files.save_adapter(model, folder)

    def score_rewrites(self, prompter: Prompter) -> ppo.Score:
        """The black box of the paper: rewrite x, ask π_F, and reward its answer against x."""

        def score(prompts: Sequence[Prompt], outputs: Sequence[Response], seed: int) -> ppo.Scored:
            start = time.perf_counter()
            rewrites = prompter.rewritten(prompts, outputs)
            responses = self.frozen.generate(rewrites, seed)
            seconds = {"frozen": round(time.perf_counter() - start, 3)}
            scored = self._scored(prompts, responses, rewrite=rewrites)
            scored.seconds = seconds | scored.seconds
            scored.tokens = sum(y.tokens for y in responses)
            return scored

        return score

    def _scored(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], **texts: Sequence[str]
    ) -> ppo.Scored:
        """Rewards of `responses`; `texts` are further columns of the samples file."""
        start = time.perf_counter()
        scores = evaluation.rewards_of(self.reward, prompts, responses)
        seconds = {"reward": round(time.perf_counter() - start, 3)}
        gold = evaluation.rewards_of(self.gold, prompts, responses) if self.gold else None
        columns = {"prompt": prompts, **texts, "response": responses}
        rows = [dict(zip(columns, map(str, row))) for row in zip(*columns.values(), strict=True)]
        return ppo.Scored(scores, rows, seconds, gold=gold)

    def export(self, results: Path = RESULTS) -> Path:
        """Copy the small, plain files of the finished runs that a reader needs into `results`.

        Returns the prompter's folder. The oracle's is named after the frozen LLM alone. Raises
        RunError for a damaged file, and where `results` holds runs of another configuration.
        """
        for run in (self.oracle_run, self.run):
            if run.finished:
                kept_results.keep(run, results)
        return kept_results.folder_of(self.run, results)


def reproduce(
    preset: Preset,
    root: str | Path = "runs",
    results: Path = RESULTS,
    datasets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[str]:
    """Train and evaluate every cell of a preset, with its oracle. Skips what is done.

    A cell is an architecture, a dataset and a seed. Cells that share a frozen LLM share its oracle;
    an endpoint has none. Architectures of the same two models are run once. `datasets` and `seeds`
    select cells; the preset, and with it the identity of each run, stays the same. Prints one line
    per cell with the time left. A failing cell is reported and the others go on. Returns the names
    of those that failed.
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
            for run in (cell.run, cell.oracle_run):
                kept_results.require_one_configuration(run, results)
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
