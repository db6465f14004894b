"""The reading experiment: does the trained prompter choose by the question, and what else would?

Reads what `tools/reading_study.py` keeps in `results/reading/`, and the runs of the preset. Every
comparator is chosen on training or validation prompts and judged on the test prompts, by the
answers of `every_suffix`: the frozen LLM's four answers to each test prompt under each of the 18
hand-written suffixes, and under none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from alignpro.evaluation import TOLD_THE_KIND, best_suffixes
from alignpro.report.kept_runs import matrix_table, prompt_means
from alignpro.runs import RESULTS

PRESET = "cpu"  # whose frozen LLM has answered
NOTHING = "(nothing)"
CONSTANT = "Best constant suffix"
CALLS = (480, 960, 1440, 2880)  # frozen calls at which learners are compared
DRAWS = 40  # subsets of the search's calls that are averaged


def every_suffix(dataset: str, results: Path = RESULTS) -> pd.DataFrame:
    """The answers to the test prompts of `dataset` under every suffix."""
    return pd.read_parquet(results / "reading" / dataset / "every_suffix.parquet")


def search_calls(dataset: str, results: Path = RESULTS) -> pd.DataFrame:
    """One answer to each training prompt of `dataset` under every suffix."""
    return pd.read_parquet(results / "reading" / dataset / "search.parquet")


def studied(preset_name: str = PRESET, results: Path = RESULTS) -> list[str]:
    """The datasets whose suffixes have all been answered; none of another preset."""
    if preset_name != PRESET:
        return []
    return sorted(p.parent.name for p in (results / "reading").glob("*/every_suffix.parquet"))


def with_longer_answers(results: Path = RESULTS) -> list[str]:
    """The datasets whose kept rewrites have been answered with twice the limit of tokens."""
    return sorted(p.parent.name for p in (results / "reading").glob("*/longer.parquet"))


def pooled_choice(suffixes: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """The best constant suffix and the best by kind, chosen once from the tables of all runs."""
    constant, by_kind = best_suffixes(suffixes)
    return constant or NOTHING, {kind: suffix or NOTHING for kind, suffix in by_kind.items()}


def with_pooled_choices(
    table: pd.DataFrame, preset_name: str = PRESET, results: Path = RESULTS
) -> pd.DataFrame:
    """`table`, the answers of all runs, with one constant suffix for all runs of a dataset.

    Each run chooses its constant suffix, and its suffix per kind, from two answers per validation
    prompt: this is a noisy choice, and differs between runs. Here the choice is made once, from the
    answers of all runs together. Its test answers are those of `every_suffix`, beside each run. A
    dataset without them keeps what its runs chose.
    """
    if not studied(preset_name, results):
        return table
    suffixes = matrix_table(preset_name, results, ["suffixes"])
    chosen = table["configuration"].isin([CONSTANT, TOLD_THE_KIND])
    parts = []
    for dataset in studied(preset_name, results):
        replaced = chosen & (table["dataset"] == dataset)
        runs = table.loc[replaced, ["architecture", "frozen", "seed"]].drop_duplicates()
        table, chosen = table[~replaced], chosen[~replaced]
        constant, by_kind = pooled_choice(suffixes[suffixes["dataset"] == dataset])
        answers = every_suffix(dataset, results)
        told = answers["configuration"] == answers["kind"].map(by_kind)
        both = {CONSTANT: answers["configuration"] == constant, TOLD_THE_KIND: told}
        for (name, rows), run in itertools.product(both.items(), runs.to_dict("records")):
            parts.append(answers[rows].assign(dataset=dataset, configuration=name, **run))
    return pd.concat([table, *parts], ignore_index=True)


def with_more_room(dataset: str, results: Path = RESULTS) -> pd.DataFrame:
    """The answers of `dataset` at twice the limit of tokens, paired as those of the runs.

    The answers without a prompter and those of the constant suffix are repeated beside each run.
    Raises FileNotFoundError where they have not been made.
    """
    table = pd.read_parquet(results / "reading" / dataset / "longer.parquet")
    ours = table[table["seed"].notna()]
    common = table[table["seed"].isna()]
    beside = [common.assign(seed=seed) for seed in ours["seed"].unique()]
    return pd.concat([ours, *beside], ignore_index=True)


def suffix_of(table: pd.DataFrame) -> pd.Series:
    """What each rewrite of `table` adds to its prompt, NOTHING where it adds nothing."""
    pairs = zip(table["prompt"], table["rewrite"], strict=True)
    return pd.Series([z.removeprefix(x).strip() or NOTHING for x, z in pairs], table.index)


def reading(table: pd.DataFrame, answers: pd.DataFrame) -> dict[str, float]:
    """How much the rewrites of one configuration depend on the question.

    table: the test answers of one configuration, all runs. answers: those of `every_suffix`.

    Returns `on_menu`, the share of hand-written suffixes; and for these: `top_two`, the share that
    are among the two best of their kind on the test prompts; `information`, between kind and suffix
    in nats; `own`, the mean value of the suffix for its own prompt; and `shuffled`, that of the
    same suffixes dealt to the prompts of a run at random.
    """
    value = prompt_means(answers)
    suffix = suffix_of(table)
    on_menu = suffix.isin(value.columns)
    rows = table.assign(suffix=suffix)[on_menu]
    by_kind = answers.groupby(["kind", "configuration"])["reward"].mean()
    top = {kind: set(by_kind[kind].nlargest(2).index) for kind in rows["kind"].unique()}
    own = value.to_numpy()[
        value.index.get_indexer(rows["id"]), value.columns.get_indexer(rows["suffix"])
    ]
    shuffled = []
    for _, run in rows.groupby("seed"):
        share = run["suffix"].value_counts(normalize=True).reindex(value.columns, fill_value=0.0)
        shuffled.append(value.loc[run["id"].unique()].to_numpy() @ share.to_numpy())
    return {
        "on_menu": float(on_menu.mean()),
        "top_two": float(np.mean([s in top[k] for s, k in zip(rows["suffix"], rows["kind"])])),
        "information": information(rows["kind"], rows["suffix"]),
        "own": float(own.mean()),
        "shuffled": float(np.mean(np.concatenate(shuffled))),
    }


def information(first: pd.Series, second: pd.Series) -> float:
    """The mutual information of two columns of labels, in nats, by their joint shares."""
    joint = pd.crosstab(first, second, normalize=True).to_numpy()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def search_constant(calls: pd.DataFrame) -> Callable[[pd.DataFrame], list[str]]:
    """The suffix with the best mean reward over `calls`, for every prompt."""
    best = calls.groupby("configuration")["reward"].mean().idxmax()
    return lambda prompts: [best] * len(prompts)


def search_by_classifier(calls: pd.DataFrame) -> Callable[[pd.DataFrame], list[str]]:
    """A classifier of the kind, and for each kind the suffix with the best mean over `calls`.

    The classifier learns from the kinds of the prompts in `calls`: logistic regression on their
    words and word pairs. It is told the kind of training prompts, which a prompter is not, but not
    that of test prompts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    prompts = calls.drop_duplicates("id")
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    classifier = make_pipeline(words, LogisticRegression(C=30.0))
    classifier.fit(prompts["prompt"], prompts["kind"])
    best = {
        kind: part.groupby("configuration")["reward"].mean().idxmax()
        for kind, part in calls.groupby("kind")
    }
    return lambda prompts: [best[kind] for kind in classifier.predict(prompts["prompt"])]


SEARCHES = {"Search for a constant": search_constant, "Classifier of kinds": search_by_classifier}


def search_curve(
    name: str,
    calls: pd.DataFrame,
    answers: pd.DataFrame,
    prompts: pd.DataFrame,
    counts: Sequence[int] = CALLS,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Held-out reward of a search without training, by the number of frozen calls it has made.

    name: one of SEARCHES. calls: those of `search_calls`, with the column prompt. answers: those of
    `every_suffix`. prompts: id and prompt of the test prompts. A search of n calls learns from n
    random calls; `draws` such searches are made, and one where `counts` asks for all.

    Columns: calls, reward (mean over the searches), low and high (the middle 95 % of them).
    """
    value, rng, rows = prompt_means(answers), np.random.default_rng(seed), []
    for count in counts:
        earned = []
        for _ in range(draws if count < len(calls) else 1):
            seen = calls.iloc[rng.permutation(len(calls))[:count]]
            chosen = SEARCHES[name](seen)(prompts)
            at = value.index.get_indexer(prompts["id"]), value.columns.get_indexer(chosen)
            earned.append(value.to_numpy()[at].mean())
        low, high = np.quantile(earned, [0.025, 0.975])
        rows.append(
            {"calls": min(count, len(calls)), "reward": np.mean(earned), "low": low, "high": high}
        )
    return pd.DataFrame(rows)


def learning_curve(
    dataset: str, table: pd.DataFrame, results: Path = RESULTS, calls: int = CALLS[-1]
) -> pd.DataFrame:
    """Held-out reward of the prompters of a dataset at 0, 480, 960, 1,440 and 2,880 calls.

    table: the answers of all runs. One row per run and number of calls: seed, calls, reward.
    """
    rows, ends = [], {"Untrained prompter": 0, "Align-Pro": calls}
    for path in sorted((results / "reading" / dataset).glob("curve-seed*.parquet")):
        seed, curve = int(path.stem.removeprefix("curve-seed")), pd.read_parquet(path)
        run = table[(table["dataset"] == dataset) & (table["seed"] == seed)]
        for name, count in ends.items():
            reward = run.loc[run["configuration"] == name, "reward"].mean()
            rows.append({"seed": seed, "calls": count, "reward": reward})
        for name, part in curve.groupby("configuration"):
            count = int(name.removesuffix(" calls"))
            rows.append({"seed": seed, "calls": count, "reward": part["reward"].mean()})
    return pd.DataFrame(rows).sort_values(["seed", "calls"], ignore_index=True)
