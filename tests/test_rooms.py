"""The rules of the house: who may import whom, how large files and functions may be, and that maps name every file."""

import ast
import sys
from pathlib import Path

import pytest

from tests.command_line import run_python

ROOT = Path(__file__).parent.parent
ALLOWED = {"models": set(), "bench": {"models"}, "jobs": {"bench"}}
MODEL_PACKAGES = {"torch", "einops", "numpy", "fla"}  # fla: only inside the function of the backend of that name
OF_REPORTS = {f"bench.{name}" for name in ("record", "store", "files", "errors", "sources", "dotted", "corpora")}
USERS = {
    "bench.report": {"bench.app", "jobs.outcome"},
    "jobs.slurm": {"jobs.app", "jobs.control", "jobs.doctor", "jobs.status", "jobs.why"},
}
FORBIDDEN_CALLS = ("weights_only=False", "pickle.load", "eval(", "exec(", "yaml.load")
MAX_LINES = {"file": 400, "class": 200, "function": 60}
FILES = {path: path.read_text(encoding="utf-8") for room in (*ALLOWED, "tests") for path in (ROOT / room).rglob("*.py")}
TREES = {path: ast.parse(text) for path, text in FILES.items()}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES if path.relative_to(ROOT).parts[0] != "tests"}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports anywhere, by its dotted name; of our own the file, not a name in it."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            files = {f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in MODULES}
            found |= files or {name}
    return found


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def in_room(room: str) -> dict[str, set[str]]:
    return {module: found for module, found in IMPORTS.items() if module.split(".")[0] == room}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_from_the_one_before_it(room):
    others = (set(ALLOWED) | {"tests"}) - ALLOWED[room] - {room}
    for module, found in in_room(room).items():
        assert not {name.split(".")[0] for name in found} & others, module


def test_models_need_torch_and_einops_alone():
    for module, found in in_room("models").items():
        assert {name.split(".")[0] for name in found} <= MODEL_PACKAGES | {"models"} | sys.stdlib_module_names, module


def test_reports_only_read_records():
    for module, found in IMPORTS.items():
        if module.startswith("bench.report"):
            ours = {name for name in found if name.split(".")[0] in ALLOWED and not name.startswith("bench.report")}
            assert ours <= OF_REPORTS, module
            assert "torch" not in {name.split(".")[0] for name in found}, module


@pytest.mark.parametrize(("package", "meant"), USERS.items())
def test_reports_and_slurm_are_imported_where_they_are_meant(package, meant):
    others = {module: found for module, found in IMPORTS.items() if not module.startswith(package)}
    assert {module for module, found in others.items() if any(name.startswith(package) for name in found)} == meant


def test_no_import_leads_in_a_circle():
    ours = {module: {name for name in found if name in MODULES} for module, found in IMPORTS.items()}
    while free := [module for module, found in ours.items() if not found & ours.keys()]:
        for module in free:
            del ours[module]
    assert not ours, f"in or behind a circle: {sorted(ours)}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bench.report.tables", ("torch", "models", "submitit", "pooch", "matplotlib")),
        ("bench.report.claims.ledger", ("torch", "models", "matplotlib")),
        ("bench.store", ("torch", "models", "pandas", "matplotlib")),
        ("jobs.status", ("torch", "models")),
        ("jobs.worker", ("typer", "rich", "submitit", "pandas", "matplotlib", "pooch", "scipy", "requests")),
        ("bench.run", ("pandas", "matplotlib", "submitit", "pooch", "scipy")),
        ("bench.experiments", ("bench.report", "pandas", "matplotlib")),
    ],
)
def test_importing_one_thing_does_not_pull_in_another(module, absent):
    assert run_python(f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])") == "[]\n"


def test_nothing_loads_or_runs_what_a_file_says():
    for path in MODULES.values():
        text = FILES[path].replace("model.eval()", "").replace(".eval(", "")
        assert not [call for call in FORBIDDEN_CALLS if call in text], path


def test_files_classes_and_functions_fit_on_a_few_screens():
    too_long = [path for path, text in FILES.items() if len(text.splitlines()) > MAX_LINES["file"]]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                if (node.end_lineno or 0) - node.lineno + 1 > MAX_LINES[kind]:
                    too_long.append(f"{path}: {node.name}")
    assert too_long == []


@pytest.mark.parametrize("room", ["bench", "bench.report", "jobs"])
def test_the_map_of_a_folder_names_each_of_its_files_once(room):
    folder = MODULES[room].parent
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    map_lines = (ast.get_docstring(TREES[MODULES[room]], clean=False) or "").splitlines()
    entries = [line.split("  ")[2].strip() for line in map_lines if line.startswith("    ")]
    named = [name for entry in entries for name in entry.split(", ")]
    assert sorted(named) == sorted(there - {"__init__"})
