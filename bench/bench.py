"""Time a PPO step, the sampler and each optimisation against TRL and transformers.

python bench/bench.py                  everything, into results/bench/
python bench/bench.py --memory NAME    one step of one contender; prints its peak memory

All contenders run in one process and take turns. Each round is on disk when it ends. The benchmark
stops when its minutes are over. The same command then goes on, as long as code, versions and
machine are the same. Only the ratios carry over to another machine. It runs on one thread: beside a
neighbour that computes too, two threads wait for each other and take ten times as long.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from contenders import BATCH, CONTENDERS, MINIBATCH, Ours, settings, stock_generate  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from trials import trials  # noqa: E402

from alignpro import devices, models  # noqa: E402
from alignpro.experiments import Cell  # noqa: E402
from alignpro.fast.clock import StageClock  # noqa: E402
from alignpro.generation import Policy  # noqa: E402
from alignpro.report import benchmark  # noqa: E402
from alignpro.runs import code_digest, write_json  # noqa: E402
from alignpro.sources.provenance import provenance  # noqa: E402
from alignpro.texts import Response  # noqa: E402

# Shares of --minutes; the rest is for loading, the machine's peaks and each contender's memory.
SHARES = {"sampling": 0.10, "steps": 0.42, "trials": 0.22}
Measure = Callable[[], list[dict]]


class OutOfTime(BaseException):
    """The minutes are over. No library takes it for an error of its own and goes on."""


def stop_after(minutes: float) -> None:
    """Raise OutOfTime in this process after `minutes`, whatever it is doing."""

    def stop(number, frame):
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)


class Record:
    """The result so far, written after each round. Continues an interrupted one."""

    def __init__(self, folder: Path, preset: str):
        made = provenance()
        tools = b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))
        identity = {
            "preset": preset,
            "batch": BATCH,
            "minibatch": MINIBATCH,
            "code": f"{code_digest()}-{hashlib.sha256(tools).hexdigest()[:10]}",
            "versions": {**made["versions"], "trl": metadata.version("trl")},
            "hardware": made["hardware"],
        }
        found = made["hardware"]
        machine = f"{found['cpu']} {found['instructions']} {found['threads']} threads {preset}"
        self.path = folder / f"{re.sub('[^a-z0-9]+', '-', machine.lower())}.json"
        kept = json.loads(self.path.read_text()) if self.path.exists() else {"finished": True}
        if kept["finished"] or any(kept[name] != value for name, value in identity.items()):
            kept = {"finished": False, "spent": {}, **made, **identity}
        self.result = kept

    def add(self, section: str, value: object, seconds: float) -> None:
        """Keep `value`, a round's rows or a whole section, and the seconds that it took."""
        if isinstance(value, list):
            value = self.result.get(section, []) + value
        self.result[section] = value
        spent = self.result["spent"]
        spent[section] = round(spent.get(section, 0) + seconds, 1)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.result)

    def rounds(self, section: str, minutes: float, make: Callable[[], Measure]) -> None:
        """Run rounds of the measurement that `make` prepares until the section's time is spent.

        There are at least two rounds. The first also shows how long one takes.
        """
        measure, share = None, SHARES[section] * minutes * 60
        while True:
            done = len({row["round"] for row in self.result.get(section, [])})
            spent = self.result["spent"].get(section, 0)
            if done >= 2 and spent * (done + 1) / done >= share:
                return
            measure = measure or make()
            started = time.perf_counter()
            rows = [{**row, "round": done} for row in measure()]
            self.add(section, rows, time.perf_counter() - started)

    def once(self, section: str, measure: Callable[[], dict]) -> None:
        """Run a section that needs no rounds, unless its result is kept already."""
        if section not in self.result:
            started = time.perf_counter()
            self.add(section, measure(), time.perf_counter() - started)


def show(name: str, value: str) -> None:
    print(f"  {name:46} {value}", flush=True)


def steps(root: Path, preset: str) -> Measure:
    """The seconds that each contender needs for one step, by part."""
    running = {name: make(root, preset) for name, make in CONTENDERS.items()}
    cell = running[benchmark.OURS].cell
    cell.reward(
        cell.prompts("train")[:1], [Response("Yes.")]
    )  # loads its encoder once for all contenders

    def measure() -> list[dict]:
        rows = []
        for name, contender in running.items():
            seconds = contender.step()
            rows.append({"contender": name, **{k: round(v, 3) for k, v in seconds.items()}})
            show(name, f"{sum(seconds.values()):6.1f} s")
        return rows

    return measure


def sampling(root: Path, preset: str) -> Measure:
    """Tokens and seconds of the frozen LLM's answers to one batch of prompts, by sampler.

    `beside` names the sampler that the rate is compared with: transformers' own in the same
    precision, or in float32 for 8-bit products, which transformers lacks.
    """
    cell = Cell(settings(preset), "help", 0, root=root)
    prompts, spec = [str(x) for x in cell.prompts("train")], cell.preset.models["F1"]

    def loaded(precision: torch.dtype) -> Policy:
        return Policy(*models.load(spec, precision=precision), cell.preset.frozen, BATCH)

    fp32, stock = loaded(torch.float32), "transformers.generate, fp32"
    samplers = {
        stock: (stock, lambda: stock_generate(fp32, prompts, seed=0)),
        "alignpro, fp32": (stock, lambda: fp32.generate(prompts, seed=0)),
    }
    if devices.dtype() == torch.bfloat16:
        half, stock = loaded(torch.bfloat16), "transformers.generate, bf16"
        samplers[stock] = stock, lambda: stock_generate(half, prompts, seed=0)
    samplers["alignpro"] = stock, lambda: cell.frozen.generate(prompts, seed=0)

    def measure() -> list[dict]:
        rows = []
        for name, (beside, sample) in samplers.items():
            started = time.perf_counter()
            tokens = sum(y.tokens for y in sample())
            seconds = round(time.perf_counter() - started, 3)
            rows.append({"sampler": name, "beside": beside, "tokens": tokens, "seconds": seconds})
            show(name, f"{tokens / seconds:6.0f} tokens/s")
        return rows

    return measure


def limits(root: Path, preset: str) -> dict:
    """The machine's measured peaks, and the work of one of our steps in float32."""

    def best(run, work, repeats=5):
        run()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return work / min(seconds) / 1e9

    a, big = torch.randn(2048, 2048), torch.randn(1 << 26)
    half, out = a.bfloat16(), torch.empty_like(big)
    return {
        "fp32_gflops": best(lambda: a @ a, 2 * 2048**3),
        "bf16_gflops": best(lambda: half @ half, 2 * 2048**3),
        "gb_per_second": best(lambda: out.copy_(big), 2 * big.nbytes),
        "work": work_of_a_step(Ours(root, preset, exact=True)),
    }


def work_of_a_step(ours: Ours) -> list[dict]:
    """GFLOP and GB of weights read, by part of a step. `score` is the frozen LLM and the reward."""
    read, marks = [0], [("", 0, 0)]

    def count(linear, inputs, output):
        # The backward pass reads a weight once more.
        read[0] += linear.weight.nbytes * (2 if output.requires_grad else 1)

    for model in (ours.trainer.model, ours.cell.frozen.model):
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter:

        class Marked(StageClock):
            def lap(self, name):
                super().lap(name)
                marks.append((name, counter.get_total_flops(), read[0]))

        ours.trainer.clock = Marked
        ours.step()
    return [
        {"part": name, "gflop": (flops - f) / 1e9, "gb": (read - b) / 1e9}
        for (_, f, b), (name, flops, read) in zip(marks, marks[1:])
    ]


def peak_memory(name: str, preset: str) -> float:
    """Peak resident memory, in GB, of a new process that runs one step of contender `name`."""
    command = [sys.executable, __file__, "--memory", name, "--preset", preset]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    gb = float(done.stdout.split()[-1])
    show(name, f"{gb:6.1f} GB")
    return gb


def measure(record: Record, root: Path, preset: str, minutes: float) -> None:
    """Run every section of `record` that is not complete."""
    for section, make in (("sampling", sampling), ("steps", steps), ("trials", trials)):
        print(section, flush=True)
        record.rounds(section, minutes, partial(make, root, preset))
    print("limits", flush=True)
    record.once("limits", lambda: limits(root, preset))
    print("peak memory", flush=True)
    measured = {row["contender"] for row in record.result.get("memory", [])}
    for name in [name for name in CONTENDERS if name not in measured]:
        started, gb = time.perf_counter(), peak_memory(name, preset)
        row = {"contender": name, "gb": round(gb, 2)}
        record.add("memory", [row], time.perf_counter() - started)


def main() -> None:
    """Measure for the given minutes, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", choices=CONTENDERS)
    parser.add_argument(
        "--preset", default="cpu", help="cpu, or smoke to test the benchmark itself"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "bench")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        root, preset = Path(folder), arguments.preset
        if arguments.memory:
            CONTENDERS[arguments.memory](root, preset).step()
            # getrusage would start from the parent's peak.
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            print(int(peak[1]) * 1024 / 1e9)
            return
        record = Record(arguments.results, preset)
        try:
            stop_after(arguments.minutes)
            measure(record, root, preset, arguments.minutes)
        except OutOfTime:
            record.save()
            print(f"\n{arguments.minutes:g} minutes are over: the same command goes on")
            print(f"in {record.path}")
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    record.result["finished"] = True
    record.save()
    for table in (
        benchmark.step_table,
        benchmark.sampling_table,
        benchmark.trial_table,
        benchmark.limit_table,
    ):
        print(f"\n{table(record.result).round(2).to_string()}")
    print(f"\nin {record.path}")


if __name__ == "__main__":
    main()
