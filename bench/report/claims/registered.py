"""The rules as registered: which rule judges which claim, and the hash that a manifest keeps of them at launch."""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bench.report.claims.evidence import Evidence
from bench.report.claims.rules import (
    Finding,
    approaches,
    k_operators_perplexity,
    matched_advantage,
    no_positions,
    survives,
    transformer_perplexity,
)
from bench.report.claims.rules_dynamics import fewer_parameters, interchangeable, layers_specialise, mixing_moves
from bench.report.published import PUBLISHED, Claim, Published, load_published
from bench.sources import dump, without_docstrings

JUDGED_ON = ("paper", "tuning", "matched", "ablation", "stress", "backends")
RULE_FILES = ("evidence.py", "rules.py", "rules_dynamics.py")
# Until commit f4fac3a the hash covered file names and imports too. The manifests launched before carry that hash of
# the same rules: the new one, taken over the files of that commit without the unused constant FINAL, is the value here.
EARLIER_HASH = "3b4086a90cb184bda80944be83c70bdcbe1d4c209a805dde261d1ef103f5f15f"
ITS_RULES = "b0ff259601eae259dac7d59efd35692fccc49c4b505b298a2f0895cb3c34ab51"

Rule = Callable[[Claim, Evidence, Published], Finding]
RULES: dict[str, Rule] = {
    "C1": k_operators_perplexity,
    "C2": transformer_perplexity,
    "C3": approaches,
    "C4": fewer_parameters,
    "C5": no_positions,
    "C6": interchangeable,
    "C7": mixing_moves,
    "C8": layers_specialise,
    "C9": survives,
    "C10": matched_advantage,
}


def same_rules(registered: str | None, now: str) -> bool:
    """Whether the hash that a manifest carries is of the rules whose hash is `now`."""
    return (ITS_RULES if registered == EARLIER_HASH else registered) == now


@cache
def rules_sha256(published: Path = PUBLISHED) -> str:
    """sha256 over the claims as the file states them, which rule judges each, and the syntax of the rules.

    Comments, docstrings, annotations, imports, private names, file names and published figures do not count.
    """
    claims = [claim.model_dump() for claim in load_published(published).claim]
    rules = {claim: rule.__name__ for claim, rule in RULES.items()}
    files = [Path(__file__).with_name(name) for name in RULE_FILES]
    definitions = sorted(text for path in files for text in definitions_of(path))
    return hashlib.sha256(json.dumps([claims, rules, definitions], sort_keys=True).encode()).hexdigest()


def definitions_of(path: Path) -> Iterator[str]:
    """The syntax of each top-level definition of a file but its imports, as text."""
    for node in without_docstrings(ast.parse(path.read_text(encoding="utf-8"))).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            yield dump(_WithoutPrivateNames().visit(node))


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
