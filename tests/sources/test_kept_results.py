"""What `results/` holds of a preset is of one configuration, and whole."""

import dataclasses
import json

import pandas as pd
import pytest

from alignpro.runs import Run, RunError, write_json
from alignpro.sources.files import write_table
from alignpro.sources.kept_results import folder_of, keep, require_one_configuration


def finished(tmp_path, preset, seed=0, kind="align-pro", pair=("P1", "F1"), **options):
    run = Run(tmp_path / "runs", preset, "help", pair, kind, seed, **options)
    run.append("metrics.jsonl", [{"step": 1}])
    write_json(run.folder / "card.json", {"seed": seed})
    return run


def changed(preset, **ppo):
    return dataclasses.replace(preset, ppo=dataclasses.replace(preset.ppo, **ppo))


def test_another_configuration_never_lands_among_the_kept_runs(tmp_path, quick):
    """Neither in the folder of its own seed nor in that of another, which is averaged with it."""
    results = tmp_path / "results"
    first = finished(tmp_path, quick)
    keep(first, results)
    kept = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    other = changed(quick, lam=0.5)
    for seed in (0, 1):
        run = finished(tmp_path, other, seed)
        with pytest.raises(RunError, match=r"another configuration \(ppo.lam 0.02, now 0.5\)"):
            keep(run, results)
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == kept
    own = finished(tmp_path, dataclasses.replace(other, name="mine"))
    keep(own, results)
    assert json.loads((folder_of(own, results) / "config.json").read_text())["preset"]["ppo"][
        "lam"
    ] == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"reward": "mine-1"}, {"weights": {"F1": "m@1"}}])
def test_another_reward_or_other_weights_are_another_configuration(tmp_path, quick, options):
    keep(finished(tmp_path, quick), tmp_path / "results")
    with pytest.raises(RunError, match=next(iter(options))):
        keep(finished(tmp_path, quick, **options), tmp_path / "results")


def test_what_chooses_runs_or_belongs_to_others_may_differ(tmp_path, quick):
    """More seeds, another pair's model, and the oracle's settings leave a prompter's run alone."""
    results = tmp_path / "results"
    keep(finished(tmp_path, quick), results)
    other_pair = {**quick.models, "P2": quick.models["P1"]}
    wider = dataclasses.replace(quick, seeds=(0, 1, 2), models=other_pair)
    wider = dataclasses.replace(wider, rlhf=dataclasses.replace(quick.rlhf, lam=0.9))
    keep(finished(tmp_path, wider, seed=1), results)
    keep(finished(tmp_path, quick, kind="rlhf", pair=("F1",)), results)
    with pytest.raises(RunError, match="ppo.lam"):
        require_one_configuration(
            finished(tmp_path, wider, seed=1, kind="rlhf", pair=("F1",)), results
        )


def test_a_damaged_file_leaves_every_kept_one_as_it_was(tmp_path, quick):
    results, run = tmp_path / "results", finished(tmp_path, quick)
    keep(run, results)
    kept = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    write_json(run.folder / "card.json", {"seed": "new"})
    (run.folder / "metrics.jsonl").write_text('{"step": 1\n')
    write_table(run.folder / "best_of.parquet", pd.DataFrame({"a": [1]}))
    with pytest.raises(RunError, match="metrics.jsonl is damaged"):
        keep(run, results)
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == kept
