"""Imports point one way, and reading results needs neither torch nor the models."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {"models": set(), "bench": {"models"}, "jobs": {"bench"}}
MODEL_PACKAGES = {"torch", "einops", "numpy", "fla"}  # fla: only inside the function of the backend of that name
FORBIDDEN_CALLS = ("weights_only=False", "pickle.load", "eval(", "exec(", "yaml.load")


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_from_the_one_before_it(room):
    others = (set(ALLOWED) | {"tests"}) - ALLOWED[room] - {room}
    for path in (ROOT / room).rglob("*.py"):
        assert not imported(path) & others, path


def test_models_need_torch_and_einops_alone():
    for path in (ROOT / "models").rglob("*.py"):
        assert imported(path) <= MODEL_PACKAGES | {"models"} | sys.stdlib_module_names, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bench.report.tables", ("torch", "models", "submitit", "pooch")),
        ("bench.report.claims.ledger", ("torch", "models", "pandas", "matplotlib")),
        ("bench.store", ("torch", "models", "pandas", "matplotlib")),
        ("bench.report.claims.ledger", ("torch", "models", "matplotlib")),
        ("jobs.status", ("torch", "models")),
        ("jobs.worker", ("typer", "rich", "submitit", "pandas", "matplotlib", "pooch", "scipy", "requests")),
        ("bench.run", ("pandas", "matplotlib", "submitit", "pooch", "scipy")),
    ],
)
def test_importing_one_thing_does_not_pull_in_another(module, absent):
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_nothing_loads_or_runs_what_a_file_says():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8").replace("model.eval()", "")
            assert not [call for call in FORBIDDEN_CALLS if call in text.replace(".eval(", "")], path
