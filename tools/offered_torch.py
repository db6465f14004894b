"""Exit with 0 where pip would install PyPI's torch here, or has; with 1 for another index's build.

    python tools/offered_torch.py torch==2.13.0

Builds of the PyTorch index have a local version, such as 2.13.0+cpu. Nothing is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata


def offered(requirement: str) -> str:
    """The version of torch that pip would install for `requirement`, or that is there already."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
    command += ["--report", "-", requirement]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)["install"]
    return found[0]["metadata"]["version"] if found else metadata.version("torch")


if __name__ == "__main__":
    sys.exit(1 if "+" in offered(sys.argv[1]) else 0)
