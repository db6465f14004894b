"""A real local endpoint, end to end on the CPU: `transformers serve` with SmolLM2 as the judge."""

import json

import pandas as pd
import pytest

from alignpro.judging import smollm2_judge
from alignpro.judging.llm_judge import Judge
from alignpro.judging.protocol import CUT_OFF, SYSTEM_PROMPT, parse_verdict
from alignpro.judging.report import validate
from alignpro.judging.smollm2_judge import ServerError, local_server, rubric_judge
from alignpro.report.kept_runs import reference_tables
from alignpro.runs import RESULTS
from alignpro.sources.weights import cache_folder, smollm2_folder

FOLDER = RESULTS / "judge" / "smollm2-135m"
VERDICTS = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.slow
def test_a_local_server_judges_two_pairs_and_is_gone(tmp_path):
    pairs = [
        ("What is an atlas?", "An atlas is a book of maps.", "I like cheese."),
        ("Is water wet?", "Yes, since it makes other things wet.", "Water."),
    ]
    with local_server(smollm2_folder()) as (url, model):
        assert str(cache_folder()) not in model
        judge = Judge(model, url, "none", max_tokens=16, concurrency=1, retries=0)
        table = judge.compare(pairs, tmp_path / "verdicts.sqlite", progress=False)
        # It takes a schema and ignores it: sixteen tokens of its own make no verdict.
        assert table["a_first_problem"].str.startswith("unparsed").all()
        assert table["a_first_reply"].str.len().gt(0).all()
    again = judge.compare(pairs, tmp_path / "verdicts.sqlite", progress=False)
    assert again.equals(table), "kept, although it is no verdict"
    gone = judge.compare(pairs[:1], tmp_path / "other.sqlite", progress=False)
    assert gone["a_first_problem"].tolist() == ["failed: APIConnectionError"]


@pytest.mark.slow
def test_the_measurement_of_the_page_can_be_made_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = next(iter(reference_tables("cpu", "help").values()))
    smollm2_judge.measure(table, {"a prompt": SYSTEM_PROMPT}, tmp_path / "new", 1, max_tokens=8)
    card = json.loads((tmp_path / "new" / "card.json").read_text())
    assert card["pairs"] == 1 and card["system_prompts"] == {"a prompt": SYSTEM_PROMPT}
    said = pd.read_json(tmp_path / "new" / "a_prompt.jsonl", lines=True, dtype=False)
    kept = pd.read_json(VERDICTS[0], lines=True, dtype=False)
    assert list(said.columns) == list(kept.columns) and len(said) == 1
    assert len(rubric_judge(said, "help", 0.05)) == 1


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2_judge, "PROGRAM", "raise SystemExit('no such thing')")
    with pytest.raises(ServerError, match="no such thing"), local_server(tmp_path / "nothing"):
        pass


@pytest.mark.parametrize("path", VERDICTS, ids=lambda p: p.stem)
def test_the_stored_verdicts_follow_from_the_stored_replies(path):
    table = pd.read_json(path, lines=True, dtype=False)
    card = json.loads((FOLDER / "card.json").read_text())
    assert len(table) == card["pairs"]
    for order, names in (("a_first", "AB"), ("b_first", "BA")):
        for row in table.to_dict("records"):
            try:
                winner = parse_verdict(row[f"{order}_reply"]).verdict
            except ValueError as error:
                problem = row[f"{order}_problem"].removesuffix(CUT_OFF)
                assert problem == f"unparsed: {error}" and pd.isna(row[order])
            else:
                assert row[order] == {"1": names[0], "2": names[1], "tie": "tie"}[winner]
    found = validate(table, rubric_judge(table, card["dataset"], 0.05)["preference"])
    assert found.agreement.n + found.agreement.unparsed == len(table)


def test_the_card_says_how_the_verdicts_were_made():
    card = json.loads((FOLDER / "card.json").read_text())
    assert {"judge", "server", "temperature", "max_tokens", "date", "commit", "hardware"} <= set(
        card
    )
    assert {"transformers", "openai", "fastapi", "uvicorn"} <= set(card["versions"])
    assert [p.stem.replace("_", " ") for p in VERDICTS] == sorted(card["system_prompts"])
    assert card["system_prompts"]["our prompt"] == SYSTEM_PROMPT, "the page shows the kept one"
