"""The benchmark's tables against arithmetic by hand, and its record against interruption."""

import json
import time

import pytest
import torch

from alignpro import generation, models
from alignpro.fast import decode, linears, logprobs
from alignpro.figures import speed
from alignpro.report import benchmark

PARTS = ("rollout", "frozen", "reward", "policy", "reference", "update")


def step(contender, number, *seconds):
    return {"contender": contender, **dict(zip(PARTS, seconds)), "round": number}


@pytest.fixture
def bench():
    """Two rounds; the second was made on a machine half as fast."""
    return {
        "date": "2026-01-02",
        "steps": [
            step("TRL", 0, 4, 4, 1, 0, 1, 10),
            step("alignpro, fp32", 0, 1, 2, 1, 1, 1, 4),
            step("alignpro", 0, 1, 1, 1, 0.5, 0.5, 1),
            step("TRL", 1, 8, 8, 2, 0, 2, 40),
            step("alignpro, fp32", 1, 2, 4, 2, 2, 2, 8),
            step("alignpro", 1, 2, 2, 2, 1, 1, 2),
        ],
        "memory": [{"contender": "TRL", "gb": 4.0}, {"contender": "alignpro", "gb": 1.5}],
        "sampling": [
            {"sampler": name, "beside": beside, "tokens": tokens, "seconds": seconds, "round": n}
            for n, rows in enumerate(
                [
                    [
                        ("stock", "stock", 100, 2),
                        ("half", "half", 99, 1),
                        ("ours", "half", 90, 0.5),
                    ],
                    [
                        ("stock", "stock", 100, 4),
                        ("half", "half", 90, 1),
                        ("ours", "half", 90, 0.2),
                    ],
                ]
            )
            for name, beside, tokens, seconds in rows
        ],
        "trials": [
            {"trial": t, "part": "rollout", "without": a, "with": b, "round": n}
            for n, rows in enumerate(
                [
                    [("failed", 1, 2), ("unclear", 1.1, 1), ("good", 3, 1)],
                    [("failed", 1, 4), ("unclear", 0.9, 1), ("good", 5, 1)],
                ]
            )
            for t, a, b in rows
        ],
        "limits": {
            "fp32_gflops": 100.0,
            "gb_per_second": 10.0,
            "work": [
                {"part": "rollout", "gflop": 20.0, "gb": 5.0},
                {"part": "score", "gflop": 120.0, "gb": 9.0},
                {"part": "update", "gflop": 200.0, "gb": 1.0},
            ],
        },
    }


def test_ratios_are_taken_round_by_round_and_seconds_from_the_fastest(bench):
    table = benchmark.step_table(bench)
    assert list(table.index) == ["TRL", "alignpro, fp32", "alignpro"]
    assert table["total"].tolist() == [20, 10, 5]
    assert table["ratio"].tolist() == [5, 2, 1]
    assert table.loc["TRL", ["low", "high"]].tolist() == [4, 6]
    assert table["peak_gb"].fillna(0).tolist() == [4, 0, 1.5]


def test_a_sampler_is_compared_with_the_one_that_it_stands_beside(bench):
    table = benchmark.sampling_table(bench)
    assert table["tokens_per_second"].tolist() == [50, 99, 450]
    assert table["ratio"].tolist() == pytest.approx([1, 1, (180 / 99 + 5) / 2])
    assert table["beside"].tolist() == ["stock", "half", "half"]


def test_a_trial_whose_rounds_disagree_is_no_gain(bench):
    table = benchmark.trial_table(bench)
    assert list(table.index) == ["good", "unclear", "failed"]
    assert table["ratio"].tolist() == pytest.approx([4, 1, 0.375])
    assert table["outcome"].tolist() == ["faster", "no difference seen", "slower"]


def test_the_limit_is_the_slower_of_computing_and_reading(bench):
    table = benchmark.limit_table(bench)
    assert table["bound"].tolist()[:3] == ["reading", "computing", "computing"]
    assert table["least"].tolist() == pytest.approx([0.5, 1.2, 2.0, 3.7])
    assert table["took"].tolist() == [1, 3, 4, 8]
    assert table["reached"].tolist() == pytest.approx([0.5, 0.4, 0.5, 3.7 / 8])


def test_the_newest_benchmark_comes_first_and_none_is_no_error(bench, tmp_path):
    assert benchmark.benches(tmp_path) == []
    for name, date in {"a": "2026-01-02", "b": "2026-03-04", "c": "2025-12-31"}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**bench, "date": date}))
    assert [b["date"] for b in benchmark.benches(tmp_path)] == [
        "2026-03-04",
        "2026-01-02",
        "2025-12-31",
    ]


def test_a_bar_ends_at_the_seconds_of_its_step(bench):
    axes = speed.step_parts(benchmark.step_table(bench)).axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    assert ends == [20, 10, 5]
    assert [t.get_text().strip() for t in axes.texts] == [
        "20.0 s, ×5.0",
        "10.0 s, ×2.0",
        "5.0 s, ×1.0",
    ]
    dots = speed.trials(benchmark.trial_table(bench)).axes[0].collections[-1].get_offsets()
    assert dots[:, 0].tolist() == pytest.approx([4, 1, 0.375])


@pytest.fixture
def learned():
    """Two seeds of each learner; the second learner costs half as much time and ends lower."""

    def run(learner, seed, *points):
        keys = ("step", "tokens", "seconds", "reward")
        return {"learner": learner, "seed": seed, "points": [dict(zip(keys, p)) for p in points]}

    return {
        "runs": [
            run("PPO", 0, (0, 0, 0.0, 0.5), (10, 1000, 60.0, 0.7)),
            run("GRPO", 0, (0, 0, 0.0, 0.5), (10, 1200, 30.0, 0.6)),
            run("PPO", 1, (0, 0, 0.0, 0.3), (10, 3000, 180.0, 0.9)),
            run("GRPO", 1, (0, 0, 0.0, 0.3), (10, 1000, 90.0, 0.2)),
        ]
    }


def test_what_is_learned_is_the_mean_over_seeds_at_the_last_step(learned):
    table = benchmark.learning_table(learned)
    assert list(table.index) == ["PPO", "GRPO"]
    assert table.loc["PPO"].tolist() == pytest.approx([2, 0.4, 0.8, 0.7, 0.9, 2000, 120])
    assert table.loc["GRPO"].tolist() == pytest.approx([2, 0.4, 0.4, 0.2, 0.6, 1100, 60])


def test_a_learning_curve_is_drawn_against_tokens_and_against_minutes(learned):
    figure = speed.learning(benchmark.learning_points(learned))
    tokens, minutes = figure.axes
    means = {line.get_label(): line for line in tokens.lines if line.get_label()[0] != "_"}
    assert means["PPO"].get_xdata().tolist() == [0, 2]
    assert means["PPO"].get_ydata().tolist() == pytest.approx([0.4, 0.8])
    (grpo,) = [line for line in minutes.lines if line.get_label() == "GRPO"]
    assert grpo.get_xdata().tolist() == [0, 1]
    assert len(tokens.lines) == 6


@pytest.mark.slow
def test_both_learners_train_and_are_billed_for_the_same_answers(tmp_path, monkeypatch, smoke):
    """Both ask for one answer per completion; how long answers are is all that can differ."""
    import learning

    command = ["learning.py", "--preset", "smoke", "--steps", "2", "--every", "1", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*command, "--results", str(tmp_path)])
    learning.main()
    (result,) = benchmark.benches(tmp_path)
    assert [run["learner"] for run in result["runs"]] == list(learning.LEARNERS)
    most = smoke.ppo.batch_size * smoke.frozen.max_new_tokens
    for run in result["runs"]:
        assert [point["step"] for point in run["points"]] == [0, 1, 2]
        spent = [point["tokens"] for point in run["points"]]
        assert spent[0] == 0 and 0 < spent[1] <= most and spent[1] < spent[2] <= 2 * most
        assert 0 < run["points"][1]["seconds"] < run["points"][2]["seconds"]
    first, second = (run["points"][0]["reward"] for run in result["runs"])
    assert first == second, "both start from the same prompter"
    learning.main()
    assert benchmark.benches(tmp_path) == [result], "a finished run is not repeated"
    command[command.index("--steps") + 1] = "3"
    monkeypatch.setattr("sys.argv", [*command, "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds 2 runs of another steps: move it away"):
        learning.main()
    assert benchmark.benches(tmp_path) == [result], "nothing is overwritten"


def counted(record, share=0.0):
    """A section of rounds that take no time; how many were measured now."""
    measured = []

    def make():
        return lambda: measured.append(1) or [{"trial": "x"}]

    record.rounds("trials", share, make)
    return len(measured)


def test_an_interrupted_benchmark_keeps_its_rounds_and_goes_on(tmp_path):
    from bench import Record

    class Interrupted(Exception):
        pass

    def one_round():
        yield [{"trial": "x"}]
        raise Interrupted

    rounds = one_round()
    with pytest.raises(Interrupted):
        Record(tmp_path, "smoke").rounds("trials", 0.0, lambda: lambda: next(rounds))
    again = Record(tmp_path, "smoke")
    assert [row["round"] for row in again.result["trials"]] == [0]
    assert counted(again) == 1
    again.once("limits", lambda: {"peak": 1})
    again.once("limits", lambda: {"peak": 2})
    kept = json.loads(again.path.read_text())
    assert kept["limits"] == {"peak": 1} and [r["round"] for r in kept["trials"]] == [0, 1]
    assert {"date", "commit", "versions", "hardware"} <= kept.keys() and not kept["finished"]


def test_a_finished_benchmark_and_one_of_other_code_are_measured_anew(tmp_path, monkeypatch):
    import bench

    first = bench.Record(tmp_path, "smoke")
    assert counted(first) == 2
    monkeypatch.setattr(bench, "code_digest", lambda: "other")
    other = bench.Record(tmp_path, "smoke")
    assert counted(other) == 2
    assert counted(bench.Record(tmp_path, "smoke")) == 0
    other.result["finished"] = True
    other.save()
    assert counted(bench.Record(tmp_path, "smoke")) == 2


def test_a_benchmark_stops_when_its_minutes_are_over_and_keeps_its_rounds(
    tmp_path, monkeypatch, capsys
):
    import bench

    def one_round_and_then_for_ever(root, preset):
        rounds = iter([[{"sampler": "x"}]])
        return lambda: next(rounds, None) or time.sleep(60)

    before = torch.get_num_threads()
    monkeypatch.setattr(bench, "sampling", one_round_and_then_for_ever)
    command = ["bench.py", "--preset", "smoke", "--minutes", "0.05", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    started = time.monotonic()
    bench.main()
    assert time.monotonic() - started < 30
    torch.set_num_threads(before)
    assert "0.05 minutes are over: the same command goes on" in capsys.readouterr().out
    (path,) = tmp_path.glob("*-1-threads-smoke.json")
    kept = json.loads(path.read_text())
    assert kept["sampling"] == [{"sampler": "x", "round": 0}] and not kept["finished"]


def test_ways_to_decode_are_timed_on_a_cpu_too(tmp_path, monkeypatch, smoke):
    import decoding

    command = ["decoding.py", "--preset", "smoke", "--rows", "3", "--prompt-tokens", "8"]
    command += ["--rounds", "1", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    decoding.main()
    kept = json.loads((tmp_path / "smoke.json").read_text())
    ways = {row["way"]: row for row in kept["ways"]}
    for name in ("alignpro", "transformers, dynamic cache"):
        assert ways[name]["tokens"] == 3 * smoke.frozen.max_new_tokens, "answers of full length"
        assert 0 < ways[name]["seconds"]
    assert all("seconds" in row or row["error"] for row in kept["ways"]) and len(ways) == 4
    assert kept["rows"] == 3 and kept["hardware"]["gpu"] is None or torch.cuda.is_available()


@pytest.mark.slow
def test_every_trial_runs_and_leaves_no_patch_behind(tmp_path):
    from trials import trials

    modules = (generation, decode, linears, logprobs, models)
    before = [dict(vars(module)) for module in modules]
    measure = trials(tmp_path, "smoke")
    for _ in range(2):
        rows = measure()
        assert all(row["without"] > 0 and row["with"] > 0 for row in rows)
    assert len({(row["part"], row["trial"]) for row in rows}) == len(rows) > 10
    assert [dict(vars(module)) for module in modules] == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_every_contender_makes_a_step_of_all_its_parts(tmp_path, monkeypatch, precision):
    from contenders import CONTENDERS

    monkeypatch.setattr(models, "dtype", lambda: precision)
    for name, make in CONTENDERS.items():
        seconds = make(tmp_path, "smoke").step()
        assert list(seconds) == list(PARTS)
        missing = {"policy"} if name.startswith("TRL") else set()
        assert {part for part, spent in seconds.items() if spent <= 0} == missing, name


@pytest.mark.slow
def test_a_step_reads_each_weight_once_a_pass(tmp_path):
    """Sampling reads all weights for each token, and all but the head for the shared prefix."""
    from contenders import Ours

    from bench import work_of_a_step

    ours = Ours(tmp_path, "smoke", exact=True)
    work = {row["part"]: row for row in work_of_a_step(ours)}
    assert list(work) == ["rollout", "score", "policy", "reference", "update"]
    for part, policy in (("rollout", ours.trainer.policy), ("score", ours.cell.frozen)):
        linear = [m for m in policy.model.modules() if isinstance(m, torch.nn.Linear)]
        read = work[part]["gb"] * 1e9 + policy.model.get_output_embeddings().weight.nbytes
        passes = read / sum(m.weight.nbytes for m in linear)
        assert passes == pytest.approx(round(passes), abs=1e-6)
        assert 2 <= round(passes) <= 1 + policy.sampling.max_new_tokens
    assert all(row["gflop"] > 0 for row in work.values())
    # The adapter is off, and the pass back costs at least as much as the one before it.
    assert work["reference"]["gflop"] < work["policy"]["gflop"] < work["update"]["gflop"]
