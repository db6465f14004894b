"""The scoreboard: verdicts by rule in every direction, and links that lead somewhere."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jupytext
import numpy as np
import pandas as pd
import pytest
import yaml
from docutils.nodes import make_id
from scipy.special import expit

from alignpro.config import load_preset
from alignpro.judging.paper_table import PAPER
from alignpro.report import scoreboard
from alignpro.report.measured_claims import MEASURES, Found, gain_per_token, sensitivity
from alignpro.report.rlhf_cost import with_tokens
from alignpro.report.scoreboard import (
    CLAIMS,
    board,
    elsewhere_rows,
    measured_rows,
    measured_verdict,
    remark_verdict,
    theory_rows,
    theory_verdict,
)
from alignpro.report.theory_claims import CHECKS, _distance_to_optimum

ROOT = Path(__file__).parents[2]
EVERY = [claim for part in CLAIMS.values() for claim in part]


@pytest.mark.parametrize(
    ("stated", "corrected", "verdict"),
    [
        ([-0.1, 0.0, 1e-9], [-0.1, 0.0, 1e-9], "verified exactly"),
        ([-0.1, 0.2, -0.3], [-0.1, 0.0, -0.3], "verified with a correction"),
        ([-0.1, 0.2, -0.3], [-0.1, 0.1, -0.3], "not verified"),
        ([-0.1, 0.0, 0.0], [-0.1, 0.0, 1e-3], "not verified"),
    ],
)
def test_a_theoretical_verdict_follows_from_the_violations(stated, corrected, verdict):
    assert theory_verdict(np.array(stated), np.array(corrected)) == verdict


@pytest.mark.parametrize(
    ("without", "with_it", "verdict"),
    [
        ([-0.1, 0.2], [-0.1, 0.0], "confirmed"),
        ([-0.1, 0.0], [-0.1, 0.0], "not confirmed"),  # nothing shows that it is needed
        ([-0.1, 0.2], [-0.1, 0.1], "not confirmed"),  # it does not help
    ],
)
def test_a_remark_is_confirmed_where_it_is_needed_and_enough(without, with_it, verdict):
    assert remark_verdict(np.array(without), np.array(with_it)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "wanted", "verdict"),
    [
        (0.1, 0.2, 1, "same sign at small scale"),
        (-0.2, -0.1, 1, "opposite sign at small scale"),
        (-0.2, -0.1, -1, "same sign at small scale"),
        (0.1, 0.2, -1, "opposite sign at small scale"),
        (-0.1, 0.2, 1, "not told apart"),
        (-0.1, 0.2, -1, "not told apart"),
        (0.0, 0.2, 1, "not told apart"),
        (np.nan, np.nan, 1, "not told apart"),
        (-np.inf, np.inf, 1, "not told apart"),
    ],
)
def test_a_measured_verdict_follows_from_the_interval(low, high, wanted, verdict):
    assert measured_verdict(Found(0.15, low, high, 80, ""), wanted) == verdict


@pytest.mark.parametrize(("prompts", "verdict"), [(5, "too few prompts"), (6, "same sign here")])
def test_five_prompts_are_too_few_for_a_verdict(prompts, verdict):
    """Five of five have p = 1/16 by the sign test, six of six 1/32."""
    assert measured_verdict(Found(0.15, 0.1, 0.2, prompts, ""), 1, "here") == verdict


NULL_MEASURES = ["gain", "gain_over_constant", "variance", "variance_within", "preferred"]


@pytest.mark.parametrize(
    ("prompts", "runs", "trials"),
    [(1, 1, 5), (2, 1, 20), (3, 1, 20), (3, 3, 10), (6, 1, 60), (6, 3, 40), (12, 2, 40)],
)
def test_little_data_without_an_effect_rarely_has_the_sign_of_the_claim(prompts, runs, trials):
    """No configuration differs: rewards are all or nothing, and runs and prompts have effects."""
    rng = np.random.default_rng(100 * prompts + runs)
    counts = dict.fromkeys(NULL_MEASURES, 0)
    for _ in range(trials):
        ease = rng.uniform(0.1, 0.9, (1, prompts, 1))
        rows = []
        for name in ("Align-Pro", "No Fine-Tuning", "Best constant suffix"):
            luck = rng.normal(0, 0.05, (runs, 1, 1))  # some runs of a configuration end up better
            rewards = rng.random((runs, prompts, 4)) < ease + luck
            for seed, run in enumerate(rewards.astype(float)):
                rows += rows_of(name, run, seed)
        table = pd.DataFrame(rows)
        for key in NULL_MEASURES:
            verdict = measured_verdict(MEASURES[key](table, 200), 1)
            counts[key] += verdict.startswith("same sign")
    if prompts < 6:
        assert set(counts.values()) == {0}, counts
    # The rate should be about 2.5 %, one side of 95 %: at 5 % an eighth would be very rare.
    assert max(counts.values()) <= trials / 8, counts
    assert sum(counts.values()) <= 0.06 * trials * len(counts), counts


def test_null_spreads_of_suffixes_and_coins_rarely_have_the_sign_of_the_claim():
    rng, found = np.random.default_rng(6), 0
    for _ in range(100):
        table = pd.DataFrame(sum((rows_of(s, rng.random((6, 2))) for s in "abc"), []))
        found += measured_verdict(sensitivity(table, 200), 1).startswith("same sign")
    assert found <= 6


def test_every_claim_has_its_check_and_every_check_its_claim():
    keys = [claim["key"] for part in ("theory", "remarks") for claim in CLAIMS[part]]
    assert len(keys) == len(set(keys)) and set(keys) == CHECKS.keys()
    assert {claim["key"] for claim in CLAIMS["measured"]} == MEASURES.keys()


def test_what_needs_a_correction_is_found_to_need_one():
    rows, remarks = theory_rows(instances=40, seed=1)
    corrected = rows["correction"] != ""
    assert set(rows.loc[corrected, "verdict"]) == {"verified with a correction"}
    assert set(rows.loc[~corrected, "verdict"]) == {"verified exactly"}
    assert set(remarks["verdict"]) == {"confirmed"}


def test_errors_readings_and_limits_are_counted_as_in_the_book():
    """Three errors are the paper's; what must be read in, and the limits of use, are no claims."""
    corrections = " ".join(claim.get("correction", "") for claim in CLAIMS["theory"])
    kinds = [remark["kind"] for remark in CLAIMS["remarks"]]
    assert re.findall(r"\(E(\d)\)", corrections) == ["1", "2", "3"]
    assert kinds == [f"R{i}, to read in" for i in range(1, 5)] + [
        f"L{i}, limit of use" for i in range(1, 4)
    ]
    for text in ("book/gap.md", "book/setting.md", "book/intro.md", "README.md"):
        counted = " ".join((ROOT / text).read_text().split())
        for count in ("three errors", "four hypotheses", "three limits"):
            assert count in counted, f"{text} does not count {count}"
    chapter = (ROOT / "book" / "gap.md").read_text()
    assert re.findall(r"^### ([ERL]\d):", chapter, re.MULTILINE) == [
        *("E1", "E2", "E3", "R1", "R2", "R3", "R4", "L1", "L2", "L3")
    ]


def test_the_optimiser_knows_a_wrong_formula_from_the_right_one():
    """Two rewrites: the odds of the best prompter are those of ρ_sft times e^(difference / λ)."""
    q, g, lam = np.array([0.7, 0.3]), np.array([0.2, 0.9]), 0.25
    second = expit(np.log(0.3 / 0.7) + 0.7 / 0.25)
    right = np.array([1 - second, second])
    assert _distance_to_optimum(q, g, lam, right) < 1e-7
    assert _distance_to_optimum(q, g, lam, q) == pytest.approx(second - 0.3, abs=1e-7)


def rows_of(configuration, rewards, seed=0, dataset="help"):
    """Rows of an evaluation table from rewards [prompts, samples]."""
    return [
        {"configuration": configuration, "id": f"p{i}", "dataset": dataset, "sample": j,
         "prompt": f"question {i}", "response": f"{configuration} {i} {j}", "reward": r,
         "seed": seed}
        for i, row in enumerate(rewards) for j, r in enumerate(row)
    ]  # fmt: skip


@pytest.fixture
def preset():
    """The cpu preset with two datasets and a quick bootstrap."""
    cpu = load_preset("cpu")
    evaluation = dataclasses.replace(cpu.evaluation, resamples=300)
    return dataclasses.replace(cpu, datasets=("help", "chat"), evaluation=evaluation)


def keep(results, architecture, rows, seed=0, name="evaluation"):
    folder = results / "cpu" / "help" / architecture / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet", index=False)
    roles = {"P1F1": ["P1", "F1"], "F1": ["F1"]}[architecture]
    (folder / "card.json").write_text(json.dumps({"architecture": roles}))


def verdicts(results, preset, ours, base, oracle=None):
    """Verdicts on `help` by key, from rewards [seeds, prompts, samples] of each configuration."""
    for seed, (a, b) in enumerate(zip(ours, base)):
        rows = rows_of("Align-Pro", a, seed) + rows_of("No Fine-Tuning", b, seed)
        keep(results, "P1F1", rows, seed)
        keep(results, "P1F1", rows_of("(nothing)", b, seed), seed, "suffixes")
    if oracle is not None:
        keep(results, "F1", rows_of("RLHF", oracle))
    found = measured_rows(preset, results)
    return found[found["where"] == "help, P1F1"].set_index("key")["verdict"]


def noisy(middle, spread, seed):
    return middle + spread * np.random.default_rng(seed).uniform(-1, 1, (2, 30, 4))


@pytest.mark.parametrize(
    ("ours", "base", "gain", "variance", "within"),
    [
        ((0.7, 0.1), (0.3, 0.3), "same sign", "same sign", "same sign"),
        ((0.3, 0.3), (0.7, 0.1), "opposite", "opposite", "opposite"),
        ((0.5, 0.3), (0.5, 0.3), "not told", "not told", "not told"),
    ],
)
def test_verdicts_from_known_rewards(tmp_path, preset, ours, base, gain, variance, within):
    found = verdicts(tmp_path, preset, noisy(*ours, 1), noisy(*base, 2))
    assert found["gain"].startswith(gain) and found["preferred"].startswith(gain)
    assert found["variance"].startswith(variance)
    assert found["variance_within"].startswith(within)
    assert found["near_rlhf"] == found["learned_reward"] == "not run"


@pytest.mark.parametrize(
    ("oracle", "verdict"),
    [
        (0.65, "same sign at small scale"),  # Align-Pro has 0.5, No Fine-Tuning 0.3
        (0.55, "same sign at small scale"),
        (0.4, "same sign at small scale"),  # above the oracle
        (0.95, "opposite sign at small scale"),
        (0.3, "not told apart"),  # the oracle gained nothing
        (0.2, "not told apart"),
    ],
)
def test_near_means_nearer_to_the_oracle_than_to_no_prompter(tmp_path, preset, oracle, verdict):
    ours, base = noisy(0.5, 0.05, 1), noisy(0.3, 0.05, 2)
    found = verdicts(tmp_path, preset, ours, base, noisy(oracle, 0.05, 3)[0])
    assert found["near_rlhf"] == verdict


def test_a_gain_per_token_is_the_gain_over_no_prompter_by_what_training_generated():
    """By hand: 0.2 and 0.4 over 200,000 tokens are 0.15 per 100,000; 0.3 over 50,000 are 0.6."""
    prompts = np.array([[0.1], [0.3], [0.2], [0.4], [0.1], [0.3]])
    rows = []
    for seed, ours in enumerate((0.2, 0.4)):
        rows += rows_of("No Fine-Tuning", prompts, seed) + rows_of("RLHF", prompts + 0.3, seed)
        rows += rows_of("Align-Pro", prompts + ours, seed)
    table = pd.DataFrame(rows).assign(architecture="P1F1", tokens=9)  # those of the answer
    table.loc[table["configuration"] == "RLHF", "architecture"] = "F1"
    steps = [
        {"configuration": c, "dataset": "help", "architecture": a, "seed": seed,
         "val/generated_tokens": tokens}
        for c, a, tokens in (("Align-Pro", "P1F1", 100_000), ("RLHF", "F1", 25_000))
        for seed in (0, 1) for _ in range(2)
    ]  # fmt: skip
    table = with_tokens(table, pd.DataFrame(steps))
    found = gain_per_token(table, 200)
    assert found.value == pytest.approx(0.15 - 0.6)
    assert found.low < found.value < found.high
    assert found.note == "0.15 against 0.60"
    assert found.prompts == 6 and found.basis == "2 runs × 6 prompts"
    alone = table[(table["configuration"] != "RLHF") | (table["seed"] == 1)]
    assert gain_per_token(alone, 200).value == pytest.approx(0.2 - 0.6)
    unknown = with_tokens(table.drop(columns="training_tokens"), pd.DataFrame())
    assert gain_per_token(unknown, 200) is None


def test_what_is_missing_is_named_and_counts_for_nothing(tmp_path, preset):
    verdicts(tmp_path, preset, noisy(0.7, 0.1, 1), noisy(0.3, 0.1, 2))
    found = measured_rows(preset, tmp_path)
    missing = found[found["where"] == "chat, P1F1"]
    assert set(missing["verdict"]) == {"not run"} and missing["value"].isna().all()
    assert len(found) == 2 * len(CLAIMS["measured"])
    with pytest.raises(FileNotFoundError, match="reproduce"):
        measured_rows(preset, tmp_path / "nowhere")


def test_the_best_of_noisy_suffixes_is_no_sensitivity():
    rng = np.random.default_rng(4)
    shift = {"a": 0.0, "b": 0.0, "c": 0.3}
    noise = {s: rng.uniform(0, 0.5, (200, 4)) for s in shift}
    flat = pd.DataFrame(sum((rows_of(s, noise[s]) for s in shift), []))
    real = pd.DataFrame(sum((rows_of(s, noise[s] + shift[s]) for s in shift), []))
    naive = np.ptp([rewards[:, ::2].mean(axis=1) for rewards in noise.values()], axis=0).mean()
    assert naive > 0.15 and abs(sensitivity(flat, 300)[0]) < 0.03
    value, low, high, *_ = sensitivity(real, 300)
    assert 0.15 < low < value < high
    assert sensitivity(flat[flat["sample"] == 0], 300) is None


def test_the_papers_numbers_are_those_of_its_table():
    cells = [ab for row in PAPER.values() for ab in row.values()]
    (low_a, high_a), (low_b, high_b) = ((min(side), max(side)) for side in zip(*cells))
    shares = f"A wins {low_a} to {high_a} %, B {low_b} to {high_b} %"
    typed = [claim["paper"] for claim in EVERY if claim.get("place") == "Table 1"]
    assert len(typed) == 2 and all(shares in text for text in typed)


def headings(page: str) -> set[str]:
    """The anchors that Sphinx gives the headings of a page."""
    source = ROOT / f"{page}.py"
    if source.exists():
        cells = jupytext.read(source).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    else:
        text = (ROOT / f"{page}.md").read_text()
    text = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return {make_id(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: claim.get("key", claim["link"]))
def test_every_link_leads_to_a_heading_of_the_book(claim):
    page, anchor = claim["link"].split("#")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    pages = chapters + [page for chapter in chapters for page in chapter.get("sections", [])]
    assert page in {entry["file"] for entry in pages}
    assert anchor in headings(page)


def test_a_verdict_links_to_the_page_beside_the_scoreboard():
    html = board(elsewhere_rows(), ["place", "claim"]).to_html()
    page, anchor = CLAIMS["elsewhere"][0]["link"].split("#")
    assert f'<a href="../{page}.html#{anchor}">not run: needs a large GPU</a>' in html


@pytest.mark.parametrize(
    ("low", "verdict"), [(0.55, "same sign at small scale"), (0.45, "not told apart")]
)
def test_a_study_of_reward_learning_counts_where_there_is_one(
    tmp_path, preset, monkeypatch, low, verdict
):
    """Of two sizes the larger counts, and a coin's accuracy is no evidence."""
    rows = [
        ("expected accuracy", 10, 0.5, 0.4, 0.6),
        ("expected accuracy", 90, 0.6, low, 0.65),
        ("noise ceiling", 90, 0.8, 0.8, 0.8),
    ]
    table = pd.DataFrame(rows, columns=["measure", "pairs", "value", "low", "high"])
    study = SimpleNamespace(accuracy=lambda: table, test_pairs=pd.DataFrame({"id": range(80)}))
    monkeypatch.setattr(scoreboard, "read_study", lambda folder: study)
    (tmp_path / "reward_learning" / "cpu-help-seed0").mkdir(parents=True)
    found = verdicts(tmp_path, preset, noisy(0.5, 0.1, 1), noisy(0.5, 0.1, 2))
    assert found["learned_reward"] == verdict
    texts = measured_rows(preset, tmp_path).set_index(["key", "where"])["found"]
    assert "+0.100" in texts["learned_reward", "help, P1F1"]
    assert "90 pairs; the noise ceiling is +0.300" in texts["learned_reward", "help, P1F1"]
