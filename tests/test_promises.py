"""Each row of the tables of failures has a test, and each test that is marked with a row is of one in its table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLES = [  # a marker, the file with its table, and how many rows are named by which letter
    ("fault", "jobs/README.md", "F", 26),
    ("met", "CONTRIBUTING.md", "U", 28),
]


def marked(marker: str) -> Iterator[tuple[str, str]]:
    """The name of a row and of a test that a marker marks with it."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{marker}":
                        yield from ((name.value, node.name) for name in decorator.args)  # type: ignore[attr-defined]


def promised(file: str, letter: str) -> list[str]:
    """The names in the first column of a file's table."""
    text = (TESTS.parent / file).read_text(encoding="utf-8")
    return re.findall(rf"^\| ({letter}\d+) \|", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("marker", "file", "letter", "n_rows"), TABLES)
def test_a_table_has_every_row_once_and_in_order(marker, file, letter, n_rows):
    assert promised(file, letter) == [f"{letter}{number}" for number in range(1, n_rows + 1)], marker


@pytest.mark.parametrize(("marker", "file", "letter", "n_rows"), TABLES)
def test_the_rows_of_a_table_are_those_of_the_tests(marker, file, letter, n_rows):
    assert {name for name, _ in marked(marker)} == set(promised(file, letter))
