"""Each fault in the table of faults has a test, and each test of a fault is of one in the table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "jobs" / "README.md"
N_FAULTS = 26


def marked() -> Iterator[tuple[str, str]]:
    """The names of a fault and of a test marked with it."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
                        yield from ((name.value, node.name) for name in decorator.args)  # type: ignore[attr-defined]


def promised() -> list[str]:
    """The names in the table's first column."""
    return re.findall(r"^\| (F\d+) \|", TABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_table_has_every_fault_once_and_in_order():
    assert promised() == [f"F{number}" for number in range(1, N_FAULTS + 1)]


def test_the_faults_of_the_table_are_those_of_the_tests():
    assert {name for name, _ in marked()} == set(promised())
