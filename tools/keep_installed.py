"""Constraints for an environment that is already in use, such as Colab's.

python tools/keep_installed.py constraints.txt > spared.txt

Colab brings a PyTorch for its GPU, and NumPy and others that its kernel has loaded by the time a
notebook's first cell runs. Another build of torch costs gigabytes, and a module that is exchanged
on disk while it is loaded breaks. In an empty environment the constraints come out as they were.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

# Stays in the version found: pip reports a conflict rather than exchange it. Not pyarrow, of which
# the pinned `datasets` needs a newer one than Colab has had: then nothing could be resolved.
KEPT = {"matplotlib", "numpy", "pandas", "scikit-learn", "scipy", "torch"}
# What the code is written against: exactly the pinned version, whatever was there.
EXACT = {
    "accelerate", "datasets", "gguf", "huggingface-hub", "openai", "peft", "safetensors",
    "sentence-transformers", "tokenizers", "transformers",
}  # fmt: skip


def canonical(name: str) -> str:
    """A package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def spared(pins: list[str], installed: dict[str, str]) -> list[str]:
    """`pins` (lines NAME==VERSION) for an environment that holds `installed` (version by name).

    What is not there is pinned as written. What is there loses its pin, so that pip exchanges it
    only where a dependency needs a newer one, apart from KEPT and EXACT.
    """
    lines = []
    for pin in pins:
        name = canonical(pin.split("==")[0])
        if name not in installed or name in EXACT:
            lines.append(pin)
        elif name in KEPT:
            lines.append(f"{name}=={installed[name]}")
    return lines


def main() -> None:
    pins = [line for line in Path(sys.argv[1]).read_text().split("\n") if "==" in line]
    installed = {canonical(d.name): d.version for d in metadata.distributions() if d.name}
    print("\n".join(spared(pins, installed)))


if __name__ == "__main__":
    main()
