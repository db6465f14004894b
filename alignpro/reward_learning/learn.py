"""Reward learning (Eq. 1): a Bradley–Terry reward model, fitted to preferences by TRL.

An encoder with a scalar head reads the pair (prompt, response). TRL's RewardTrainer minimises
−log σ(r(x, chosen) − r(x, rejected)). The result is a checkpoint that `RewardModel` loads.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from alignpro import devices, models
from alignpro.config import ModelSpec
from alignpro.reward_learning.config import RewardLearningConfig
from alignpro.reward_learning.preferences import read_preferences
from alignpro.runs import RunError, atomic_write, digest, write_json
from alignpro.sources.files import explained, locked, read_json, seal
from alignpro.sources.provenance import provenance
from alignpro.sources.reward_model import RewardModel
from alignpro.sources.weights import minilm_folder


def learn_reward(
    preferences,
    folder: str | Path,
    config: RewardLearningConfig,
    seed: int,
    base: str | Path | None = None,
    progress: bool = True,
) -> RewardModel:
    """Learn a reward model from `preferences` (see `read_preferences`) and keep it in `folder`.

    `base` is an encoder, by default MiniLM: a directory or a Hub id. It has no chat template, since
    the model reads the text pair (prompt, response). If `folder` is finished, it is loaded. A
    training that was stopped resumes from its last epoch. Raises RunError if `folder` holds a model
    learned from something else, and PreferenceError for preferences that cannot be used.
    """
    folder, base = Path(folder), str(base or minilm_folder())
    table, dropped = read_preferences(preferences)
    settings = {f: getattr(config, f) for f in ("epochs", "batch_size", "learning_rate")}
    base_name = models.identity(ModelSpec(base))
    key = digest(table.to_dict("list"), base_name, settings, seed)
    if not folder.exists():
        started = time.perf_counter()
        work = folder.with_name(f"{folder.name}-{key}.training")
        with explained(work):
            work.mkdir(parents=True, exist_ok=True)
        with locked(work), explained(work):
            trainer = _trainer(table, base, work, settings, seed, progress)
            trainer.train(resume_from_checkpoint=_last_checkpoint(work))
            card = {"key": key, "base": base_name, "seed": seed, **settings}
            card |= {"pairs": len(table), "dropped": dropped, **provenance()}
            card["versions"] |= {name: metadata.version(name) for name in ("trl", "datasets")}
            card["seconds"] = round(time.perf_counter() - started, 1)
            _publish(trainer, card, folder)
            shutil.rmtree(work)
    if read_json(folder / "card.json").get("key") != key:
        raise RunError(
            f"{folder} holds a reward model learned from other preferences or settings: "
            "choose another folder, or delete that one"
        )
    return RewardModel(ModelSpec(str(folder)))


def _trainer(table: pd.DataFrame, base: str, work: Path, settings: dict, seed: int, progress: bool):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    # The trainer's collator passes no segment ids. The saved tokenizer must not add them, or the
    # model would score inputs unlike those that it was trained on.
    names = ["input_ids", "attention_mask"]
    tokenizer = models.pretrained(AutoTokenizer, ModelSpec(base), model_input_names=names)
    if tokenizer.chat_template is not None:
        raise RunError(f"{base}: has a chat template; reward learning here takes an encoder")
    prompts = table["prompt"].tolist()
    text = {"truncation": True, "split_special_tokens": True}  # as `RewardModel` reads them
    ids = {
        f"{side}_ids": tokenizer(prompts, table[side].tolist(), **text)["input_ids"]
        for side in ("chosen", "rejected")
    }
    arguments = RewardConfig(
        output_dir=str(work),
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        max_length=None,
        seed=seed,
        use_cpu=devices.device().type == "cpu",
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="epoch",
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=not progress,
    )
    trainer = RewardTrainer(
        _with_head(base, seed),
        arguments,
        train_dataset=Dataset.from_dict(ids),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _with_head(base: str, seed: int) -> torch.nn.Module:
    """The encoder `base` with a scalar head on top. Only the head starts at random."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would warn of the missing head
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, loading = models.pretrained(
            AutoModelForSequenceClassification,
            ModelSpec(base),
            num_labels=1,
            dtype=torch.float32,
            output_loading_info=True,
        )
    transformers_logging.set_verbosity(verbosity)
    encoder = [k for k in loading["missing_keys"] if k.startswith(f"{model.base_model_prefix}.")]
    if missing := sorted(key for key in encoder if "pooler" not in key):
        raise RunError(f"{base}: no weights for {missing[0]}, which would start at random")
    return model


def _last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint in `work`: the trainer writes its state last.

    On a full disk it may have written a part of it.
    """
    states = work.glob("checkpoint-*/trainer_state.json")
    whole = [path.parent for path in states if _is_json(path)]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def _is_json(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes()))
    except ValueError:
        return False


def _publish(trainer, card: dict, folder: Path) -> None:
    with atomic_write(folder) as partial:
        trainer.model.save_pretrained(partial, safe_serialization=True)
        trainer.processing_class.save_pretrained(partial)
        seal(partial)
        write_json(partial / "card.json", card)


@dataclasses.dataclass(frozen=True)
class ScaledReward:
    """A learned reward in the unit of r*: the model's logits times the `scale` of its labels.

    λ then prices KL as it does under r*. A constant for each prompt stays unknown under
    Bradley–Terry. It changes no comparison within a prompt.
    """

    model: RewardModel
    scale: float

    @property
    def name(self) -> str:
        return f"{self.model.name}-x{self.scale:g}"

    def __call__(self, prompts, responses) -> torch.Tensor:
        return self.scale * self.model(prompts, responses)
