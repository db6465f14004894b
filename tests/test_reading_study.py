"""The study of reading: kept rewrites are sent again as they were."""

import pandas as pd
import pytest
from reading_study import again

from alignpro.report import reading
from alignpro.report.kept_runs import matrix_table
from alignpro.texts import Prompt


def test_a_kept_rewrite_goes_to_its_prompt_and_sample_whatever_the_order():
    x, y = (Prompt(text, "help", "test") for text in ("Why?", "How?"))
    rows = pd.DataFrame(
        [(y.id, 1, "How? d"), (x.id, 0, "Why? a"), (y.id, 0, "How? c"), (x.id, 1, "Why? b")],
        columns=["id", "sample", "rewrite"],
    )
    assert again(rows)([x, x, y, y], 0) == ["Why? a", "Why? b", "How? c", "How? d"]


@pytest.mark.parametrize("dataset", reading.with_longer_answers())
def test_the_longer_answers_are_to_the_rewrites_of_the_kept_runs(dataset):
    runs = matrix_table(reading.PRESET)
    ours = runs[(runs["configuration"] == "Align-Pro") & (runs["dataset"] == dataset)]
    ours = ours.assign(suffix=reading.suffix_of(ours)).replace({"suffix": {reading.NOTHING: ""}})
    longer = reading.with_more_room(dataset)
    longer = longer[longer["configuration"] == "Align-Pro"].astype({"seed": int})
    key = ["seed", "id", "sample", "suffix"]
    pd.testing.assert_frame_equal(
        *(table[key].sort_values(key, ignore_index=True) for table in (ours, longer))
    )
