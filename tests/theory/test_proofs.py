"""The machine-checked proofs: they compile, rest on Coq's own axioms, and are what the book shows.

Tests that run Coq are skipped where it is missing, unless REQUIRE_COQ=1 is set, as in CI.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
sys.path.insert(0, str(ROOT / "tools"))

import proofs  # noqa: E402

STATEMENTS = (proofs.PROOFS / "Statements.v").read_text()
FILES = re.findall(r"^\w+\.v$", (proofs.PROOFS / "_CoqProject").read_text(), re.MULTILINE)
# What Coq's standard library assumes to define the real numbers and to reason classically.
STDLIB_AXIOMS = {
    "ClassicalDedekindReals.sig_not_dec",
    "ClassicalDedekindReals.sig_forall_dec",
    "FunctionalExtensionality.functional_extensionality_dep",
    "Classical_Prop.classic",
}


def compile_from(first: str, folder: Path) -> subprocess.CompletedProcess:
    """Compile `first` and the files after it, up to the first that fails."""
    for name in FILES[FILES.index(first) :]:
        command = ["coqc", "-q", "-Q", ".", "AlignPro", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode:
            break
    return done


def assumptions(output: str) -> set[str]:
    """The names in the answer to `Print Assumptions`, and any line of another kind as it is.

    Where a check was switched off, Coq reports that in a line of its own below `Axioms:`.
    """
    lines = [line for line in output.splitlines() if line and not line.startswith(" ")]
    assert lines[0] == "Axioms:", output
    return {re.sub(r"^([\w.']+)(?: :.*)?$", r"\1", line) for line in lines[1:]}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A fresh folder with every file compiled, and the answer about the axioms."""
    if shutil.which("coqc") is None and os.environ.get("REQUIRE_COQ") != "1":
        pytest.skip("Coq is not installed, so the proofs are not checked: run `make coq`")
    folder = tmp_path_factory.mktemp("proofs")
    for name in FILES:
        shutil.copy(proofs.PROOFS / name, folder)
    done = compile_from(FILES[0], folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_theorems_rest_on_the_axioms_of_the_standard_library_alone(compiled):
    assert assumptions(compiled[1]) == STDLIB_AXIOMS


FAULTS = {
    "a proof left open": (
        "Counterexamples.v",
        "Proof. split; [intros []|unfold sum, P; simpl]; unfold P; lra. Qed.",
        "Proof. Admitted.",
        "dist_P",
    ),
    "an axiom": (
        "Statements.v",
        "Proof. exact (pinsker p q p_distribution q_distribution). Qed.",
        "Axiom magic : forall claim : Prop, claim.\nexact (magic _). Qed.",
        "magic",
    ),
    "a recursion without end": (
        "Counterexamples.v",
        "Lemma point_dist b : dist (point b).\nProof.",
        "Unset Guard Checking.\nFixpoint loop (n : nat) : False := loop n.\n"
        "Set Guard Checking.\n"
        "Lemma point_dist b : dist (point b).\nProof. destruct (loop 0). Qed.\n"
        "Goal forall b, dist (point b).\nProof. intros b.",
        "loop is assumed to be guarded",
    ),
    "signed rewards in Theorem 6.1": (
        "Statements.v",
        "Theorem theorem_6_1 : forall r_max, (forall x y, 0 <= r x y <= r_max) ->",
        "Theorem theorem_6_1 : forall r_max, (forall x y, Rabs (r x y) <= r_max) ->",
        "error",
    ),
    "a prompter off the support": (
        "Statements.v",
        "Theorem regret_identity : forall rho, dist rho -> rho << rho_sft ->",
        "Theorem regret_identity : forall rho, dist rho ->",
        "error",
    ),
    "a leash of any sign": (
        "Statements.v",
        "Hypotheses (lam_positive : 0 < lam) (rho_sft_distribution : dist rho_sft).",
        "Hypotheses (lam_positive : 0 <= lam) (rho_sft_distribution : dist rho_sft).",
        "error",
    ),
    "a smaller constant": (
        "Statements.v",
        "KL rho_star rho_sft <= osc rho_sft g * osc rho_sft g / (8 * (lam * lam))",
        "KL rho_star rho_sft <= osc rho_sft g * osc rho_sft g / (9 * (lam * lam))",
        "error",
    ),
    "another definition of KL": (
        "Divergence.v",
        "Σ a, p a * ln (p a / q a).",
        "Σ a, p a * ln (q a / p a).",
        "error",
    ),
    "half of the total variation": (
        "Divergence.v",
        ":= / 2 * Σ a, Rabs (p a - q a).",
        ":= / 4 * Σ a, Rabs (p a - q a).",
        "error",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, compiled, tmp_path):
    """What the checks above are worth: each of these changes has to fail one of them."""
    name, right, wrong, found = FAULTS[fault]
    folder = shutil.copytree(compiled[0], tmp_path / "proofs")
    text = (folder / name).read_text()
    assert right in text, "the fault no longer applies: give it the new text"
    (folder / name).write_text(text.replace(right, wrong, 1))
    done = compile_from(name, folder)
    if found == "error":
        assert done.returncode != 0 and "Error" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert any(found in line for line in assumptions(done.stdout) - STDLIB_AXIOMS)


def test_every_file_is_compiled_and_the_audit_is_the_last():
    assert sorted(FILES) == sorted(p.name for p in proofs.PROOFS.glob("*.v"))
    assert FILES[-2:] == ["Statements.v", "Audit.v"]


def test_no_proof_is_left_open_and_nothing_is_assumed():
    """Also in lemmas that no theorem uses, which the axioms of the theorems do not show."""
    words = r"Admitted|admit|Abort|Axioms?|Conjectures?|Parameters?|Unset|bypass_check|Declare"
    for name in FILES:
        code = re.sub(r"\(\*.*?\*\)", "", (proofs.PROOFS / name).read_text(), flags=re.DOTALL)
        assert not re.search(rf"\b(?:{words})\b", code), name


def test_each_theorem_is_closed_by_a_term_and_has_a_place_in_the_book():
    checked = proofs.theorems(STATEMENTS)
    assert [t.name for t in checked] == re.findall(r"^Theorem (\w+)", STATEMENTS, re.MULTILINE)
    book = "\n".join(p.read_text() for p in (ROOT / "book").glob("*.md"))
    for theorem in checked:
        kind, label = theorem.label.split("-")[0], theorem.label
        place = {"eq": f"$$ ({label})", "sec": f"({label})=", "reading": f"({label})="}.get(
            kind, f":label: {label}\n"
        )
        assert place in book or label == "other", theorem


@pytest.mark.parametrize("path", proofs.wanted(), ids=lambda p: p.name)
def test_what_follows_from_the_statements_has_not_drifted(path):
    assert path.read_text() == proofs.wanted()[path], "run `python tools/proofs.py`"


def test_a_link_leads_to_the_line_of_its_theorem():
    lines, page = STATEMENTS.splitlines(), proofs.PAGE.read_text()
    links = re.findall(r"\[statement\]\(#proof-(\S+)\), \[line (\d+)\]\(\S+#L(\d+)\)", page)
    assert len(links) == STATEMENTS.count("\nTheorem ")
    for name, shown, line in links:
        theorem = re.match(r"Theorem (\w+)", lines[int(line) - 1])[1]
        assert shown == line and theorem.lower().replace("_", "-") == name
        assert f"(proof-{name})=\n\n```coq\nTheorem {theorem}" in page


def test_a_theorem_that_is_gone_or_weaker_is_missed():
    """The audit and the page name every theorem and show every statement and definition."""
    page = proofs.PAGE.read_text()
    (gone,) = re.findall(r"\(\*\* lem-phi.*?Qed\.\n", STATEMENTS, re.DOTALL)
    without = STATEMENTS.replace(gone, "")
    audit = (proofs.PROOFS / "Audit.v").read_text()
    assert proofs.audit(proofs.theorems(without)) != audit
    assert proofs.generated(without) not in page
    weaker = STATEMENTS.replace("forall rho, prompter rho ->", "forall rho, False ->", 1)
    assert weaker != STATEMENTS and proofs.generated(weaker) not in page
