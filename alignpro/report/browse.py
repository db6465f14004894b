"""The data of the page that shows kept answers one by one, with the rubric's terms."""

from __future__ import annotations

import pandas as pd

from alignpro.data import load_prompts
from alignpro.texts import Response


def rubric_terms(row: pd.Series, prompt) -> tuple[float, float, float]:
    """Relevance, form and no repetition of a kept answer. Their product is its kept reward.

    Form and repetition are scored again. Relevance is what is left of the reward, so that no model
    is needed: reward = relevance × (¼ + ¾ form) × no repetition. It is 0 for an empty answer.
    """
    from alignpro.rewards import form_score, no_repetition  # it loads torch

    response = Response(row["response"], row["ended"])
    form, fresh = form_score(prompt, response), no_repetition(response)
    return row["reward"] / ((0.25 + 0.75 * form) * fresh), form, fresh


def kept_answers(table: pd.DataFrame) -> dict:
    """The first answer of the first run to each prompt, by dataset and configuration, for JSON.

    `table` comes from `matrix_table` and was scored by the rubric. Per dataset, `prompts` holds
    [kind, text] and `answers`, by configuration and in the order of the prompts, holds
    [sent, answer, ended, relevance, form, no repetition, reward].
    """
    first = table[(table["seed"] == table["seed"].min()) & (table["sample"] == 0)]
    found = {}
    for dataset, part in first.groupby("dataset", sort=False):
        prompts = {prompt.id: prompt for prompt in load_prompts(dataset, "test")}
        order = list(part["id"].unique())
        answers = {}
        for configuration, rows in part.groupby("configuration", sort=False):
            rows = rows.drop_duplicates("id").set_index("id").reindex(order)
            answers[configuration] = [
                [
                    *(row["rewrite"], row["response"], bool(row["ended"])),
                    *(round(float(t), 3) for t in rubric_terms(row, prompts[key])),
                    round(float(row["reward"]), 3),
                ]
                for key, row in rows.iterrows()
            ]
        shown = [[prompts[key].kind, str(prompts[key])] for key in order]
        found[dataset] = {"prompts": shown, "answers": answers}
    return found
