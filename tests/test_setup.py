"""A notebook on somebody else's machine: what its first cell fetches, spares and picks."""

import importlib
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent

import keep_installed  # noqa: E402
import try_setup  # noqa: E402

import alignpro  # noqa: E402
from alignpro.config import preset_for_hardware  # noqa: E402

PINS = ["numpy==2.4.6", "PyYAML==6.0.3", "tokenizers==0.23.3", "torch==2.13.0", "gguf==0.19.0"]


def test_an_empty_environment_gets_the_pins_as_written():
    assert keep_installed.spared(PINS, {}) == PINS


def test_what_colab_brings_stays_and_what_the_code_needs_is_exact():
    colab = {"numpy": "2.0.2", "torch": "2.10.0+cu128", "pyyaml": "6.0.2", "tokenizers": "0.22.0"}
    assert keep_installed.spared(PINS, colab) == [
        "numpy==2.0.2",
        "tokenizers==0.23.3",
        "torch==2.10.0+cu128",
        "gguf==0.19.0",
    ]


def test_a_pyarrow_that_is_too_old_for_the_pinned_datasets_is_free_to_be_exchanged():
    """Kept at 18.1 beside `datasets` in the pinned version, pip had nothing to resolve."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    lines = keep_installed.spared(pins, {"pyarrow": "18.1.0", "datasets": "2.14.4"})
    assert not [line for line in lines if line.startswith("pyarrow")]
    [pinned] = [line for line in lines if line.startswith("datasets")]
    assert pinned == f"datasets=={metadata.version('datasets')}"
    needs = [r for r in metadata.requires("datasets") if re.match(r"pyarrow\W", r)]
    assert not any("<" in need for need in needs), "any newer one serves"


def test_a_pyarrow_that_was_exchanged_in_a_session_asks_for_another(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__="18.1.0"))
    with pytest.raises(ImportError, match="pyarrow was exchanged .*: restart the session"):
        importlib.reload(alignpro)


def test_every_package_with_a_rule_has_a_pin():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {keep_installed.canonical(line.split("==")[0]) for line in lines}
    assert keep_installed.KEPT | keep_installed.EXACT <= pinned


def test_pip_takes_the_constraints_that_the_tool_prints(tmp_path):
    """Over the command line, with a torch that is there by its metadata alone."""
    there = tmp_path / "torch-2.10.0+cu128.dist-info"
    there.mkdir()
    (there / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.10.0+cu128\n")
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "tools" / "keep_installed.py", ROOT / "constraints.txt"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "torch==2.10.0+cu128" in lines and "torch==2.13.0" not in lines
    assert "transformers==5.23.0" in lines and len(lines) > 100


@pytest.mark.parametrize(
    ("gib", "preset"),
    [(None, "cpu"), (14.6, "colab"), (39.4, "colab"), (44.4, "colab"), (79.1, "h100")],
)
def test_the_preset_follows_the_gpu(monkeypatch, gib, preset):
    """T4, A100 40 GB, L40S and H100 by the memory that CUDA reports for them."""
    import torch

    properties = SimpleNamespace(total_memory=int((gib or 0) * 2**30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gib is not None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert preset_for_hardware() == preset


def test_the_stand_in_is_what_the_cell_clones(tmp_path, monkeypatch):
    for name, value in try_setup.stand_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    address, release = try_setup.named_in_cell("repository"), try_setup.named_in_cell("release")
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", release, address]
    subprocess.run([*clone, tmp_path / "clone"], check=True)

    def commit(folder):
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=folder, text=True)

    assert commit(tmp_path / "clone") == commit(ROOT)


@pytest.mark.parametrize(("version", "status"), [("2.13.0", 0), ("2.13.0+cpu", 1)])
def test_a_torch_of_another_index_is_told_from_pypis(tmp_path, version, status):
    """Over pip itself, from a folder that holds one wheel and in place of any index."""
    facts = f"torch-{version}.dist-info"
    with zipfile.ZipFile(tmp_path / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        head = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        wheel.writestr(f"{facts}/METADATA", head)
        wheel.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{facts}/RECORD", "")
    pip = {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "IGNORE_INSTALLED": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {f"PIP_{k}": v for k, v in pip.items()} | {"PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, ROOT / "tools" / "offered_torch.py", "torch==2.13.0"]
    assert subprocess.run(command, env=environment).returncode == status
