"""The commit of a result: marked as changed where the code was, not where results were added."""

import shutil
import subprocess

import pytest

from alignpro.sources import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_is_marked_where_the_code_was_changed(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/rows.jsonl"):
        (tmp_path / name).write_text("one\n")
    git("add", ".")
    git("commit", "-qm", "x")
    commit = git("rev-parse", "--short=12", "HEAD")
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.provenance()["commit"] == commit
    (tmp_path / "results" / "rows.jsonl").write_text("one\ntwo\n")
    assert provenance.provenance()["commit"] == commit
    (tmp_path / "code.py").write_text("two\n")
    assert provenance.provenance()["commit"] == f"{commit}-dirty"
