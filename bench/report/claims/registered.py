"""The rules as registered: which rule judges which claim, and the hash that a manifest keeps of them at launch."""

import ast
import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.report.claims.evidence import Planned
from bench.report.claims.finding import Rule
from bench.report.claims.rules import (
    approaches,
    k_operators_perplexity,
    matched_advantage,
    no_positions,
    survives,
    transformer_perplexity,
)
from bench.report.claims.rules_dynamics import fewer_parameters, layers_specialise, mixing_moves
from bench.report.claims.rules_forms import deciding, interchangeable
from bench.report.published import PUBLISHED, load_published
from bench.sources import dump, without_docstrings

JUDGED_ON = ("paper", "tuning", "matched", "ablation", "stress", "backends")
REPORT = Path(__file__).parent.parent
DECIDING = tuple(  # files whose definitions count where a rule reaches them
    REPORT / name
    for name in (
        *(
            f"claims/{name}.py"
            for name in ("evidence", "finding", "rules", "rules_dynamics", "rules_forms", "searches")
        ),
        "searches.py",
        "statistics.py",
        "student.py",
    )
)
K_OPERATORS = Planned("paper", "k_operators", 10)
NANOGPT = Planned("paper", "nanogpt_2023", 10)

RULES: dict[str, Rule] = {
    "C1": Rule(read=k_operators_perplexity, arms=(K_OPERATORS,), all_seeds=True),
    "C2": Rule(read=transformer_perplexity, arms=(NANOGPT,), all_seeds=True),
    "C3": Rule(read=approaches, arms=(K_OPERATORS, NANOGPT), all_seeds=True),
    "C4": Rule(read=fewer_parameters, arms=(Planned("paper", "k_operators", 1), Planned("paper", "nanogpt_2023", 1))),
    "C5": Rule(
        read=no_positions, arms=(Planned("ablation", "k_operators", 5), Planned("ablation", "learned-positions", 5))
    ),
    "C6": Rule(
        read=interchangeable,
        arms=tuple(
            Planned("backends", f"{form}-T{context}", 3)
            for form in ("mask", "block")
            for context in (64, 128, 256, 512)
        ),
        measured=deciding,
    ),
    "C7": Rule(read=mixing_moves, arms=(K_OPERATORS,)),
    "C8": Rule(read=layers_specialise, arms=(K_OPERATORS,)),
    "C9": Rule(
        read=survives,
        arms=tuple(
            Planned("stress", label, 5)
            for label in ("refine-lr0.1", "refine-lr1", "refine-lr3", "refine-lr10", "plain-lr10", "frozen-lr10")
        ),
    ),
    "C10": Rule(
        read=matched_advantage,
        arms=(
            Planned("matched", "k_operators", 10),
            Planned("matched", "transformer-params", 10),
            Planned("matched", "transformer_rotary-params", 5),
            Planned("matched", "modern-params", 5),
        ),
        all_seeds=True,
    ),
}


@cache
def rules_sha256(published: Path = PUBLISHED) -> str:
    """sha256 over the claims as the file states them, their rules with the planned arms, and what the rules reach.

    Comments, docstrings, annotations, imports, private names, file names and published figures do not count.
    """
    claims = [claim.model_dump() for claim in load_published(published).claim]
    rules = {claim: [rule.read.__name__, repr(rule.arms), rule.all_seeds] for claim, rule in RULES.items()}
    reached = definitions_reached({rule.read.__name__ for rule in RULES.values()}, DECIDING)
    return hashlib.sha256(json.dumps([claims, rules, reached], sort_keys=True).encode()).hexdigest()


def definitions_reached(names: set[str], files: Sequence[Path]) -> list[str]:
    """The syntax of each top-level definition that `names` lead to, as text, sorted.

    A name stands for a definition in its own file, else for one in any of the files.
    """
    defined = {(path, name): node for path in files for name, node in definitions_of(path)}
    anywhere = {name: (path, name) for path, name in defined}
    waiting = [anywhere[name] for name in sorted(names)]
    found: set[tuple[Path, str]] = set()
    while waiting:
        key = waiting.pop()
        if key in found:
            continue
        found.add(key)
        used = {node.id for node in ast.walk(defined[key]) if isinstance(node, ast.Name)}
        waiting += [place for name in used if (place := _place(name, key[0], defined, anywhere)) is not None]
    return sorted(dump(_WithoutPrivateNames().visit(defined[key])) for key in found)


def _place(name: str, path: Path, defined: Container[Any], anywhere: dict[str, Any]) -> tuple[Path, str] | None:
    return (path, name) if (path, name) in defined else anywhere.get(name)


def definitions_of(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The top-level definitions of a file, by name: functions, classes and assigned names."""
    for node in without_docstrings(ast.parse(path.read_text(encoding="utf-8"))).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id, node


class _WithoutPrivateNames(ast.NodeTransformer):
    """Numbers the private names of a definition in the order in which they occur, and drops its annotations."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("name", "id", "attr", "arg"):
            name: Any = getattr(node, field, None)
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                setattr(node, field, self.numbers.setdefault(name, f"_{len(self.numbers)}"))
        for field in ("annotation", "returns"):
            if hasattr(node, field):
                setattr(node, field, None)
        return super().generic_visit(node)
