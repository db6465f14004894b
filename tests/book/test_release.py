"""A release: its version, tag, citation and archive record agree, and so do the badges."""

import io
import json
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
import release
import yaml

import alignpro
import book

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "CITATION.cff", ".zenodo.json", "_config.yml", "alignpro/__init__.py")


def versions(root):
    """The version that each file names."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    archived = json.loads((root / ".zenodo.json").read_text())
    return {project["version"], cited["version"], archived["version"]}


def test_every_file_names_one_version_and_the_papers_doi():
    assert versions(ROOT) == {alignpro.__version__}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    archived = json.loads((ROOT / ".zenodo.json").read_text())
    assert (archived["title"], archived["license"]) == (cited["title"], cited["license"])
    assert [c["name"] for c in archived["creators"]] == [a["name"] for a in cited["authors"]]
    paper = [r["identifier"] for r in archived["related_identifiers"] if r["scheme"] == "doi"]
    assert paper == [cited["preferred-citation"]["doi"]] == ["10.1609/aaai.v39i26.34979"]


@pytest.fixture
def copy(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def test_a_release_is_fetched_by_its_badges_and_cells(copy):
    release.prepare("7.8.9", copy)
    assert versions(copy) == {"7.8.9"}
    assert yaml.safe_load((copy / "_config.yml").read_text())["repository"]["branch"] == "v7.8.9"
    sources = sorted((copy / "notebooks").glob("*.py"))
    assert sources and all('release = "v7.8.9"' in source.read_text() for source in sources)
    release.prepare("main", copy)
    assert versions(copy) == {"7.8.9"}
    for source in sources:
        assert source.read_text() == (ROOT / "notebooks" / source.name).read_text()


def test_a_version_without_three_numbers_is_refused(copy):
    with pytest.raises(SystemExit, match="not a version: 'v2'"):
        release.prepare("v2", copy)


def test_a_tagged_book_whose_badges_open_another_branch_is_not_built():
    tag = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v9.9.9"}
    with pytest.raises(SystemExit, match="release.py 9.9.9"):
        book.check_release(tag)
    book.check_release({"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"})
    book.check_release({})


def test_the_archive_of_results_is_whole_and_the_same_each_time():
    packed = book.results_archive()
    assert packed == book.results_archive()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    files = [p for p in (ROOT / "results").rglob("*") if p.is_file()]
    assert sorted(names) == sorted(p.relative_to(ROOT).as_posix() for p in files)
