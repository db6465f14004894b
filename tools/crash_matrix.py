"""The crash matrix: every stage of a run under every fault, and what the same command then does.

Each cell forks a process that runs one stage at smoke scale. In the middle of the stage the fault
strikes: at the file-system event in the middle of those that the stage made when nothing went
wrong. Then the same stage runs again, and what it leaves is compared with the undisturbed outcome.

`python tools/crash_matrix.py` runs what is missing of it and writes `results/crash_matrix.json`
after each cell; another version of the code starts it anew, and `--again` runs what is there again.
Disks of their own (a full one, a
read-only one) need the right to mount a tmpfs; without it those cells are left out, and the file
says so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with one thread can be forked
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import nbformat  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from checkpoints import save_encoder  # noqa: E402
from judge_server import JudgeServer, longer, say  # noqa: E402

import book  # noqa: E402
from alignpro import experiments, rewards  # noqa: E402
from alignpro.config import ModelSpec, load_preset  # noqa: E402
from alignpro.judging.llm_judge import Judge  # noqa: E402
from alignpro.judging.store import VerdictStore  # noqa: E402
from alignpro.reward_learning.config import load_reward_learning  # noqa: E402
from alignpro.reward_learning.learn import learn_reward  # noqa: E402
from alignpro.runs import RunError, code_digest, write_json  # noqa: E402
from alignpro.sources import files  # noqa: E402
from alignpro.sources.provenance import provenance  # noqa: E402
from alignpro.sources.weights import tiny_folder  # noqa: E402

DAY = 86_400
PAIRS = [(f"Why is {n} a number?", "Because.", "Because it is " + "so " * n) for n in range(1, 9)]
# What may differ between two runs that are equal: times, and notes on how a run went. A killed
# process also leaves a hidden folder with what it was about to write.
NOTES = ("lock", "lock.json", "software.json", "README.md", "store.sqlite")
# The book of the stage of rendering, beside its executed notebook.
PAGES = {
    "_config.yml": "title: Sums\nauthor: Nobody\nexecute: {execute_notebooks: 'off'}\n",
    "_toc.yml": "format: jb-book\nroot: intro\nchapters: [{file: notebooks/01_sum}]\n",
    "intro.md": "# Sums\n\nThe next page adds.\n",
}


def small(url: str | None = None):
    """The smoke preset with one pair of models and as few steps as a resume needs."""
    preset = load_preset("smoke")
    sizes = {"train": 6, "validation": 2, "test": 2}
    steps = {"steps": 2, "batch_size": 4, "minibatch_size": 2, "epochs": 1}
    warm = dataclasses.replace(preset.prompter.warm_start, steps=2)
    frozen = ModelSpec("m", endpoint=url) if url else preset.models["F1"]
    return dataclasses.replace(
        preset,
        architectures=(("P1", "F1"),),
        models={"P1": preset.models["P1"], "F1": frozen},
        seeds=(0,),
        data=dataclasses.replace(preset.data, **sizes),
        prompter=dataclasses.replace(preset.prompter, warm_start=warm),
        ppo=dataclasses.replace(preset.ppo, **steps, checkpoint_every=1, sample_every=1),
        rlhf=dataclasses.replace(preset.rlhf, steps=2),
        evaluation=dataclasses.replace(preset.evaluation, samples=1, resamples=100),
    )


def cell(folder: Path, url: str | None = None, dataset: str = "help") -> experiments.Cell:
    return experiments.Cell(small(url), dataset, 0, root=folder / "runs")


def data_stage(folder: Path, url: str) -> None:
    """Prompts of a user's file: the run of another text has another name."""
    own = cell(folder, dataset=str(folder / "own.jsonl"))
    _ = [own.prompts(split) for split in ("train", "validation", "test")]


def oracle_stage(folder: Path, url: str) -> None:
    cell(folder).train_oracle(progress=False)
    cell(folder).evaluate_oracle(progress=False)


def judge_stage(folder: Path, url: str) -> None:
    judge = Judge("m", url, "none", concurrency=1, retries=0)
    table = judge.compare(PAIRS, folder / "store.sqlite", progress=False)
    write_json(folder / "verdicts.json", table[["prompt", "preference"]].to_dict("list"))


def write_notebook(folder: Path) -> None:
    """What the stage of papermill executes, and the stage of rendering shows."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('preset = ""')])
    notebook.cells[0].metadata.tags = ["parameters"]
    notebook.metadata.kernelspec = {"name": "python3", "language": "python"}
    notebook.cells += [nbformat.v4.new_code_cell(f"print({n} + 1)") for n in range(2)]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# A sum"))
    (folder / "notebooks").mkdir()
    nbformat.write(notebook, folder / "notebooks" / "01_sum.ipynb")
    (folder / "constraints.txt").touch()


def reward_stage(folder: Path, url: str) -> None:
    pairs = [(f"What is {n}?", f"It is number {n}.", "It is a thing.") for n in range(32)]
    pairs = pd.DataFrame(pairs, columns=["prompt", "chosen", "rejected"])
    numbers = dataclasses.replace(load_reward_learning("smoke"), epochs=2, batch_size=8)
    base = folder.parent / "encoder"
    reward = learn_reward(pairs, folder / "reward", numbers, 0, base, progress=False)
    write_json(folder / "scores.json", reward(pairs["prompt"], pairs["chosen"]).tolist())


def papermill_stage(folder: Path, url: str) -> None:
    """A notebook of four cells, executed as those of the book are."""
    book.ROOT, book.NOTEBOOKS, book.BUILD = folder, folder / "notebooks", folder / "_build"
    with book.only_build():
        book.execute("smoke")


def render_stage(folder: Path, url: str) -> None:
    """A book of two pages, one of them the executed notebook, rendered as the book is."""
    book.ROOT, book.BUILD = folder, folder / "_build"
    book.subprocess = SimpleNamespace(run=here)
    wanted = {Path(name): text.encode() for name, text in PAGES.items()}
    executed = book.BUILD / "executed" / "smoke" / "01_sum.ipynb"
    with book.only_build():
        wanted[Path("notebooks/01_sum.ipynb")] = executed.read_bytes()
        book.write_changed(book.BUILD / "src", wanted)
        book.render(book.BUILD / "src")


def here(command: list[str], cwd: Path) -> SimpleNamespace:
    """Run Jupyter Book in this process and not in one of its own: a fault strikes in its middle."""
    from jupyter_book.cli.main import main

    os.chdir(cwd)
    try:
        main(command[command.index("build") :])
    except SystemExit as ended:
        return SimpleNamespace(returncode=ended.code or 0)
    except Exception:  # as Python ends the process of Jupyter Book
        traceback.print_exc()
    return SimpleNamespace(returncode=1)


def matrix_stage(folder: Path, url: str) -> None:
    if failed := experiments.reproduce(small(), folder / "runs", folder / "results"):
        raise SystemExit(f"failed: {', '.join(failed)}")


# Each stage, and the one whose outcome it starts from.
STAGES: dict[str, tuple[Callable[[Path, str], None], str | None]] = {
    "data": (data_stage, None),
    "warm start": (lambda folder, url: cell(folder).untrained(progress=False), None),
    "PPO": (lambda folder, url: cell(folder).train(progress=False), "warm start"),
    "evaluation": (lambda folder, url: cell(folder).evaluate(progress=False), "PPO"),
    "best-of": (lambda folder, url: cell(folder).evaluate_best_of(progress=False), "PPO"),
    "oracle": (oracle_stage, None),
    "endpoint, training": (lambda folder, url: cell(folder, url).train(progress=False), None),
    "endpoint, evaluation": (
        lambda folder, url: cell(folder, url).evaluate(progress=False),
        "endpoint, training",
    ),
    "judge": (judge_stage, None),
    "reward learning": (reward_stage, None),
    "papermill": (papermill_stage, None),
    "render": (render_stage, "papermill"),
    "matrix": (matrix_stage, "PPO"),
}
FAULTS = (
    *("SIGKILL", "SIGINT", "SIGTERM", "disk full", "read-only", "second process"),
    *("truncated file", "flipped bit", "clock set back"),
)
MOUNTED = ("disk full", "read-only")
UNDISTURBED = "the undisturbed result"
DAMAGES = ("truncated file", "flipped bit")


class Events:
    """Counts what a stage does to files in `folder`, and calls `strike` at the event `when`."""

    def __init__(self, folder: Path, when: int = -1, strike: Callable[[], None] | None = None):
        self.folder, self.when, self.strike, self.count = str(folder), when, strike, 0
        put = VerdictStore.put

        def counted(store, *arguments):  # SQLite writes below Python
            self.happen()
            put(store, *arguments)

        VerdictStore.put = counted
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, _ = arguments
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if writes and isinstance(path, (str, os.PathLike)):
                if str(path).startswith(self.folder):
                    self.happen()
        elif event == "os.rename" and str(arguments[1]).startswith(self.folder):
            self.happen()

    def happen(self) -> None:
        self.count += 1
        if self.count == self.when and self.strike:
            strike, self.strike = self.strike, None
            strike()


def fork(stage: str, folder: Path, url: str, when: int = -1, strike=None, clock: int = 0) -> int:
    """Start `stage` in a process of its own; what it prints is in `folder`.log. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if clock:
            now = time.time
            time.time = lambda: now() + clock
        if when == 0:
            strike()
        events = Events(folder, when, strike)
        STAGES[stage][0](folder, url)
        if when < 0:
            Path(f"{folder}.events").write_text(str(events.count))
        code = 0
    except KeyboardInterrupt:
        print("stopped")
        code = 130
    except SystemExit as error:
        print(error.code if isinstance(error.code, str) else "")
        code = 2
    except BaseException as error:
        known = type(error).__module__.startswith("alignpro")
        print(f"{type(error).__name__}: {error}" if known else traceback.format_exc())
        code = 2 if known else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a process, negative for a signal, as `subprocess` gives it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(folder: Path, without: Path | None = None) -> dict[str, str]:
    """A hash of each file that a stage leaves, without times and notes, and `without` one file."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != without):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.name in NOTES or "checkpoints" in path.parts or name == "filler" or hidden:
            continue
        if path.name == "config.json":
            content = "a run of this name"
        elif path.suffix == ".ipynb":
            cells = nbformat.read(path, 4).cells
            content = json.dumps([[c.source, c.get("outputs")] for c in cells])
        elif path.suffix == ".parquet":
            content = pd.read_parquet(path).to_json()
        elif path.suffix == ".jsonl" and path.name != "own.jsonl":
            rows = [json.loads(x) for x in path.read_text().split("\n") if x.strip()]
            rows = [{k: v for k, v in row.items() if "time/" not in k} for row in rows]
            if path.name == "answers.jsonl":
                rows.sort(key=lambda row: row["key"])
            content = json.dumps(rows)
        elif path.name == "card.json":
            card = json.loads(path.read_text())
            content = json.dumps([card.get("trained_parameters"), card.get("seed")])
        else:
            content = path.read_bytes().hex()
        found[name] = hashlib.sha256(content.encode()).hexdigest()
    return found


def damaged_files(folder: Path, fresh: set[str]) -> list[Path]:
    """The files of a stage that a later command reads again: all but logs of what was done."""
    unread = ("config.json", "card.json", "coverage.json", "README.md", "software.json")
    unread += ("reward.json", "tokenizer_config.json", "special_tokens_map.json", "sha256.json")
    paths = [folder / name for name in sorted(fresh)]
    return [p for p in paths if p.name not in unread and p.suffix in (".parquet", ".safetensors")]


def refused(path: Path) -> bool:
    """Whether the reader of such files refuses the damaged one at `path`."""
    try:
        files.read_table(path) if path.suffix == ".parquet" else files.check_seal(path.parent)
    except RunError as error:
        return path.name in str(error)
    return False


class Matrix:
    """Runs cells of the matrix under `work`, from snapshots of undisturbed stages."""

    def __init__(self, work: Path):
        self.work, self.events, self.before, self.after = work, {}, {}, {}
        self.calls: dict[str, int] = {}
        self.mounts = can_mount(work)
        tiny_folder("llama"), tiny_folder("qwen2")
        save_encoder(work / "encoder")
        rewards.embed(["loaded before the first fork"])

    def prepare(self, stage: str) -> None:
        """The undisturbed outcome of `stage`, kept as a snapshot."""
        if stage in self.after:
            return
        base = STAGES[stage][1]
        if base:
            self.prepare(base)
        folder = self.work / "whole"
        with self.placed(folder, base), serving() as server:
            code = wait(fork(stage, folder, server.url))
            log = Path(f"{folder}.log").read_text()
            assert code == 0, f"{stage} fails undisturbed:\n{log}"
            self.events[stage] = int(Path(f"{folder}.events").read_text())
            self.calls[stage] = len(server.requests)
            self.after[stage] = outcome(folder)
            shutil.copytree(folder, self.work / "snapshots" / stage)

    @contextlib.contextmanager
    def placed(self, folder: Path, snapshot: str | None):
        """`folder` with a copy of a snapshot, or with the user's prompts alone."""
        folder.mkdir(parents=True, exist_ok=True)
        if snapshot:
            shutil.copytree(self.work / "snapshots" / snapshot, folder, dirs_exist_ok=True)
        else:
            rows = [
                {"prompt": f"Why is {split} {n} a number?", "split": split, "kind": "reason"}
                for split in ("train", "validation", "test")
                for n in range(8)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "own.jsonl").write_text(text)
            write_notebook(folder)
        try:
            yield
        finally:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def cell(self, stage: str, fault: str) -> dict:
        """One cell: what the fault did, what the same command did after it, and whether all is
        right: the undisturbed outcome, or a refusal that names what is wrong.
        """
        self.prepare(stage)
        folder = self.work / "cell"
        folder.mkdir(exist_ok=True)
        if fault in MOUNTED and not self.mounts:
            return {"stage": stage, "fault": fault, "right": None, "did": "no right to mount"}
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if fault in MOUNTED:
                stack.enter_context(tmpfs(folder))
            base = stage if fault in DAMAGES else STAGES[stage][1]
            stack.enter_context(self.placed(folder, base))
            server = stack.enter_context(serving())
            act = self.damage if fault in DAMAGES else self.strike
            facts = act(stage, fault, folder, server)
        seconds = round(time.perf_counter() - start, 1)
        return {"stage": stage, "fault": fault, **facts, "seconds": seconds}

    def strike(self, stage: str, fault: str, folder: Path, server) -> dict:
        # The files that a stage holds open keep its disk from becoming read-only in the middle.
        when = 0 if fault == "read-only" else self.events[stage] // 2 + 1
        pid = fork(stage, folder, server.url, when, lambda: STRIKES[fault](folder))
        if fault == "second process":
            os.waitpid(pid, os.WUNTRACED)  # it stops itself in the middle
            second = wait(fork(stage, folder, server.url))
            told = last_line(folder)
            os.kill(pid, signal.SIGCONT)
            code = wait(pid)
            right = self.undisturbed(stage, folder) and second in (0, 2) and code == 0
            did = "ran beside it, to the same result" if second == 0 else f"refused: {told}"
            return {"did": did, "then": "the first went on to its end", "right": right}
        code = wait(pid)
        did = {0: "went on", 1: "traceback", 2: "stopped", 130: "stopped in one line"}
        first = did.get(code, f"died of signal {-code}")
        told = last_line(folder) if code == 2 else ""
        release(folder, fault)
        asked = len(server.requests)
        if fault == "clock set back":
            for path in folder.rglob("*"):
                os.utime(path, (time.time() + DAY, time.time() + DAY))
        again = wait(fork(stage, folder, server.url, clock=-DAY if "clock" in fault else 0))
        same = again == 0 and self.undisturbed(stage, folder)
        extra = len(server.requests) - self.calls[stage]
        facts = {
            "did": f"{first}: {told}" if told else first,
            "then": UNDISTURBED if same else f"exit {again}: {last_line(folder)}",
            "right": same and code != 1,
        }
        if self.calls[stage]:
            facts |= {"calls": self.calls[stage], "before": asked, "extra": extra}
        return facts

    def undisturbed(self, stage: str, folder: Path, without: Path | None = None) -> bool:
        """Whether `folder` holds what `stage` leaves when nothing goes wrong.

        A file that it may be `without` is not looked at.
        """
        name = str(without.relative_to(folder)) if without else None
        expected = {k: v for k, v in self.after[stage].items() if k != name}
        try:
            return outcome(folder, without) == expected
        except (OSError, ValueError):  # a file that cannot be read
            return False

    def damage(self, stage: str, fault: str, folder: Path, server) -> dict:
        """Each file that the stage left is damaged in turn; none may be taken for a good one.

        A finished stage does not read all of its files again. One that it leaves alone must be
        refused by the reader of such files.
        """
        base = STAGES[stage][1]
        fresh = set(self.after[stage].items()) - set(self.after.get(base, {}).items())
        paths = damaged_files(folder, {name for name, _ in fresh})
        own = {
            "data": "own.jsonl",
            "judge": "store.sqlite",
            "papermill": "_build/executed/*/*.ipynb",
            "render": "_build/html/notebooks/*.html",
        }
        paths = [*folder.glob(own[stage])] if stage in own else paths
        told, unread, wrong = [], [], []
        for path in paths:
            whole = path.read_bytes()
            if fault == "truncated file":
                damaged = whole[: len(whole) * 2 // 3]
            else:
                middle = whole.index(b"number") if stage == "data" else len(whole) // 2
                damaged = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            path.write_bytes(damaged)
            code = wait(fork(stage, folder, server.url))
            if code == 2 and path.name in Path(f"{folder}.log").read_text():
                told.append(path.name)
            elif stage == "data" and code == 0:  # another text is another run
                told.append("another run")
                both = len(list(folder.glob("runs/*align-pro*"))) == 2
                wrong += [] if both else [path.name]
            elif code == 0 and path.read_bytes() == damaged and refused(path):
                unread.append(path.name)
                wrong += [] if self.undisturbed(stage, folder, path) else [path.name]
            elif not (code == 0 and self.undisturbed(stage, folder)):
                wrong.append(f"{path.name} ({code}: {last_line(folder)})")
            path.write_bytes(whole)
        count = f"{len(paths)} file{'s' * (len(paths) != 1)} damaged in turn"
        did = f"{count}; refused by name: {', '.join(dict.fromkeys(told)) or 'none'}"
        if unread:
            did += f"; refused when next read: {', '.join(dict.fromkeys(unread))}"
        then = f"silent or wrong: {', '.join(wrong)}" if wrong else "no wrong result"
        return {"did": did, "then": then, "right": not wrong}


def last_line(folder: Path) -> str:
    """The last line that a stage printed, without the place of this machine's folders."""
    lines = Path(f"{folder}.log").read_text().strip().splitlines() or [""]
    return lines[-1].replace(f"{folder}/", "").replace(str(folder), "the folder")[:300]


@contextlib.contextmanager
def serving():
    """A server that is the frozen LLM and the judge: its answers depend on the request alone."""

    def answer(body: dict) -> str:
        text = json.dumps(body["messages"])
        if "response 1" in text:
            return longer(body)
        greedy = body.get("temperature") == 0 or body.get("top_k") == 1 or body["top_p"] < 0.01
        noise = 0 if greedy else body.get("seed")
        return f"Answer {hashlib.sha256(f'{text} {noise}'.encode()).hexdigest()[:12]}."

    with JudgeServer(then=say(answer, usage=(9, 5))) as server:
        yield server


def fill(folder: Path) -> None:
    """Write to the disk of `folder` until it is full."""
    file = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, b"0" * 4096)
    os.close(file)


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


STRIKES = {
    "SIGKILL": lambda folder: os.kill(os.getpid(), signal.SIGKILL),
    "SIGINT": lambda folder: os.kill(os.getpid(), signal.SIGINT),
    "SIGTERM": lambda folder: os.kill(os.getpid(), signal.SIGTERM),
    "disk full": fill,
    "read-only": make_read_only,
    "second process": lambda folder: os.kill(os.getpid(), signal.SIGSTOP),
    "clock set back": lambda folder: os.kill(os.getpid(), signal.SIGKILL),
}


def release(folder: Path, fault: str) -> None:
    """Undo what a fault did to the disk, as a user would before the next try."""
    if fault == "disk full":
        (folder / "filler").unlink(missing_ok=True)
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@contextlib.contextmanager
def tmpfs(folder: Path):
    """A disk of 64 MB at `folder`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(work: Path) -> bool:
    place = work / "mount"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        return False
    return subprocess.run(["umount", str(place)]).returncode == 0


def run(wanted: list[tuple[str, str]], rows: dict[tuple[str, str], dict], out: Path) -> None:
    """Run the `wanted` cells, and write them after each one, with the other `rows`, to `out`."""
    with tempfile.TemporaryDirectory() as work:
        matrix = Matrix(Path(work))
        for place in wanted:
            rows[place] = matrix.cell(*place)
            print(json.dumps(rows[place]), flush=True)
            facts = {"code": code_digest(), **provenance()}
            write_json(out, {"rows": list(rows.values()), **facts})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stage", action="append", choices=STAGES, help="default: all")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "crash_matrix.json")
    text = "run cells that the file has already once more; default: only those that it lacks"
    parser.add_argument("--again", action="store_true", help=text)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiments.DISK_NEEDED = 0  # the disks of the cells are small
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    same = kept.get("code") == code_digest()  # cells of this code need not be run again
    rows = {(r["stage"], r["fault"]): r for r in kept["rows"]} if same else {}
    wanted = [(s, f) for s in arguments.stage or STAGES for f in arguments.fault or FAULTS]
    wanted = [place for place in wanted if arguments.again or place not in rows]
    if wanted:
        run(wanted, rows, arguments.out)
    else:
        print(f"{arguments.out} has all of these cells: --again runs them once more")
    sys.exit(any(row["right"] is False for row in rows.values()))


if __name__ == "__main__":
    main()
