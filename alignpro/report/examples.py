"""Examples that fixed rules choose, and the table that shows them."""

from __future__ import annotations

import random

import pandas as pd
from pandas.io.formats.style import Styler

from alignpro.report.html import text_table

RANDOM, LARGEST_GAIN, LARGEST_LOSS = "drawn at random", "the largest gain", "the largest loss"


def choose_examples(table: pd.DataFrame, seed: int, drawn: int = 2) -> pd.DataFrame:
    """Choose pairs of answers from the runs of one dataset by rules alone, one row per pair.

    A pair is an answer under No Fine-Tuning and the one under Align-Pro from the same run and
    sample. The rules choose `drawn` prompts at random by `seed`, each with its first pair; the
    prompt whose mean reward over all pairs rose most, with the pair that rose most; and the prompt
    whose mean fell most (or rose least, if none fell), with the pair that fell most. Ties go to the
    first id, run and sample.

    Columns: rule, id, dataset, kind, seed, sample, prompt, rewrite, change (of the mean), pairs
    (behind it), own (the change of the pair shown), and response, reward and ended, each with
    `_before` and `_after`. Raises ValueError if the two configurations have not answered the same
    prompts equally often.
    """
    keys, fields = ["id", "seed", "sample"], ["response", "reward", "ended"]
    names = ("No Fine-Tuning", "Align-Pro")
    before, after = (table[table["configuration"] == name] for name in names)
    before = before[[*keys, "dataset", "kind", "prompt", *fields]]
    after = after[[*keys, "rewrite", *fields]]
    pairs = before.merge(after, on=keys, suffixes=("_before", "_after"), validate="1:1")
    if not len(pairs) == len(before) == len(after):
        raise ValueError(f"{' and '.join(names)} have not answered the same prompts equally often")
    pairs = pairs.sort_values(keys, ignore_index=True)
    # Rounding makes ties of values that differ only in their last bits.
    pairs["own"] = (pairs["reward_after"] - pairs["reward_before"]).round(9)
    by_prompt = pairs.groupby("id")["own"]
    pairs["change"] = by_prompt.transform("mean").round(9)
    pairs["pairs"] = by_prompt.transform("size")
    first = pairs.drop_duplicates("id")
    picks = random.Random(seed).sample(list(first.index), drawn)
    for end in (pd.Series.idxmax, pd.Series.idxmin):
        extreme = first.loc[end(first["change"]), "id"]
        picks.append(end(pairs.loc[pairs["id"] == extreme, "own"]))
    rules = [RANDOM] * drawn + [LARGEST_GAIN, LARGEST_LOSS]
    return pairs.loc[picks].assign(rule=rules).reset_index(drop=True)


def example_table(example: pd.Series) -> Styler:
    """Show a row of `choose_examples`: prompts, answers and rewards, before and after."""
    sides = {"No Fine-Tuning": ("prompt", "before"), "Align-Pro": ("rewrite", "after")}
    frame = pd.DataFrame(
        {
            name: {
                "prompt sent": example[sent],
                "answer": example[f"response_{side}"],
                "ended": "by itself" if example[f"ended_{side}"] else "cut at the limit",
                "reward": f"{example[f'reward_{side}']:.2f}",
            }
            for name, (sent, side) in sides.items()
        }
    )
    caption = (
        f"{example['dataset']}, {example['rule']} (seed {example['seed']}, sample "
        f"{example['sample']}). Change of this pair: {example['own']:+.2f}; mean change of the "
        f"prompt: {example['change']:+.2f} over {example['pairs']} pairs"
    )
    return text_table(frame, caption, columns=dict.fromkeys(sides, "45%"))
