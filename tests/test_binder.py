"""Binder builds the root of the repository: repo2docker's own detection."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_repo2docker_reads_environment_yml_and_post_build(monkeypatch):
    """Binder takes the first of repo2docker's build packs that detects what it needs."""
    why = "needs repo2docker: `pip install jupyter-repo2docker`, in an environment of its own"
    repo2docker = pytest.importorskip("repo2docker.app", reason=why)
    monkeypatch.chdir(ROOT)
    app = repo2docker.Repo2Docker()
    packs = (pack(base_image=app.base_image) for pack in app.buildpacks)
    chosen = next(pack for pack in packs if pack.detect())
    assert type(chosen).__name__ == "CondaBuildPack"
    assert chosen.environment_yaml_path == "environment.yml"
    assert chosen.python_version == "3.11"
    assert chosen.get_post_build_scripts() == ["postBuild"]
