"""The page of kept answers: its terms are the rubric's, and its answers are those of the runs."""

import numpy as np
import pandas as pd

from alignpro.data import load_prompts
from alignpro.report.browse import kept_answers, rubric_terms
from alignpro.rewards import rubric
from alignpro.texts import Response

ANSWERS = [
    ("1. Boil water. 2. Lower the egg in. 3. Wait seven minutes.", True),
    ("You boil an egg in hot water. You boil an egg in hot water.", False),
    ("Because it is", False),
    ("", True),
]


def table():
    prompts = load_prompts("help", "test")[: len(ANSWERS)]
    responses = [Response(text, ended) for text, ended in ANSWERS]
    rewards = rubric(prompts, responses).tolist()
    rows = [
        {"configuration": name, "id": p.id, "dataset": "help", "sample": sample, "seed": seed,
         "rewrite": f"{p} Be brief.", "response": str(y), "ended": y.ended, "reward": r}
        for name in ("No Fine-Tuning", "Align-Pro") for seed in (1, 2) for sample in (0, 1)
        for p, y, r in zip(prompts, responses, rewards)
    ]  # fmt: skip
    return prompts, pd.DataFrame(rows)


def test_the_terms_multiply_to_the_reward_and_relevance_is_a_cosine():
    prompts, rows = table()
    for prompt, (_, row) in zip(prompts, rows.iterrows()):
        relevance, form, fresh = rubric_terms(row, prompt)
        assert 0 <= relevance <= 1 + 1e-6 and 0 <= form <= 1 and 0 < fresh <= 1
        assert np.isclose(relevance * (0.25 + 0.75 * form) * fresh, row["reward"])


def test_each_prompt_has_the_first_answer_of_the_first_run_in_every_configuration():
    prompts, rows = table()
    rows.loc[(rows["seed"] == 1) & (rows["sample"] == 0), "rewrite"] += " First."
    found = kept_answers(rows.sample(frac=1, random_state=0))["help"]
    assert sorted(text for _, text in found["prompts"]) == sorted(map(str, prompts))
    for answers in found["answers"].values():
        for (_, text), (sent, answer, ended, *_, reward) in zip(found["prompts"], answers):
            assert sent == f"{text} Be brief. First."
            kept = rows[(rows["rewrite"] == sent)].iloc[0]
            assert (answer, ended, reward) == (
                kept["response"],
                kept["ended"],
                round(kept["reward"], 3),
            )
