"""Which code ran: the commit, a fingerprint of the files that decide a run's numbers, and whether records match it.

Reads only source text, so that tables can distinguish old records from fresh ones without importing torch.
"""

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import ConfigError
from bench.record import Recheck, RecheckKind, Record

ROOT = Path(__file__).resolve().parent.parent
DECIDING = tuple(
    f"bench/{name}.py"
    for name in ("batches", "budget", "capture", "corpus", "evaluate", "history", "schedule", "train")
)
Proofs = dict[tuple[str, str], RecheckKind]  # by run id and the fingerprint of the sources that repeated it
DECODING = ("decoding", "decoder")  # ends of module names that training and evaluation do not call


@cache
def fingerprint(architecture: str, root: Path = ROOT) -> str:
    """sha256 over the syntax trees of an architecture's file, what it imports from `models`, and the shared pipeline.

    Comments, docstrings, other architectures and decoders, which only write text, do not count.
    """
    digest = hashlib.sha256()
    for name in sorted({*DECIDING, *_of_models(architecture, root)}):
        digest.update(f"{name}\n{syntax(root / name)}\n".encode())
    return digest.hexdigest()


def proofs_of(rechecks: Iterable[Recheck]) -> Proofs:
    """The runs proved by equal numbers; of two kinds of proof, one with the record's own numbers counts."""
    proofs: Proofs = {}
    for recheck in rechecks:
        key = recheck.run_id, recheck.fingerprint
        if recheck.equal and proofs.get(key) in (None, "sources compared"):
            proofs[key] = recheck.kind
    return proofs


def standing(record: Record, proofs: Proofs) -> Literal["current"] | RecheckKind | None:
    """Why a record is valid: made by the current sources, or the kind of its proof; None where neither holds."""
    current = current_fingerprint(record.config.get("architecture"))
    if current is None:
        return None
    return "current" if record.sources.fingerprint == current else proofs.get((record.run_id, current))


def current_fingerprint(architecture: object) -> str | None:
    """The fingerprint of the present sources; None for an architecture without sources here."""
    if not isinstance(architecture, str) or not architecture.isidentifier():
        return None
    try:
        return fingerprint(architecture)
    except OSError:
        return None


def syntax(path: Path) -> str:
    """A file's syntax tree without its docstrings, as text: equal where only words differ."""
    return dump(without_docstrings(ast.parse(path.read_text(encoding="utf-8"))))


def commit() -> tuple[str | None, bool | None]:
    """The commit and whether the tree differs from it: from git, else from BENCH_COMMIT, else unknown."""
    with suppress(ConfigError):
        if Path(git(ROOT, "rev-parse", "--show-toplevel")) == ROOT:  # not a repository that contains this folder
            head = git(ROOT, "rev-parse", "HEAD")
            return head, bool(git(ROOT, "status", "--porcelain", "--", "models", "bench", "jobs", "pyproject.toml"))
    return os.environ.get("BENCH_COMMIT") or None, None


def git(repository: Path, *arguments: str) -> str:
    """The output of git in a repository. ConfigError where it cannot be run or fails.

    Hooks are off, and variables such as GIT_DIR, which a hook sets, are removed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(repository), "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=120,
            start_new_session=True,  # Ctrl-C reaches only this process, which then cleans up
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"git cannot be run ({error}); install it, or use a machine that has it") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigError(f"git {arguments[0]} failed in {repository}: {reason[0]}")
    return done.stdout.strip()


def _of_models(architecture: str, root: Path) -> set[str]:
    """An architecture's file, its readings and, through their imports, every other file of `models` they depend on."""
    readings = f"models/{architecture}_readings.py"
    found, waiting = set(), [f"models/{architecture}.py", *([readings] if (root / readings).is_file() else [])]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("models.") and not module.endswith(DECODING):
                waiting.append(module.replace(".", "/") + ".py")
    return found


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The same tree, from which the docstrings are removed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def dump(node: Any) -> str:
    """A syntax tree as text, the same for every Python version: empty fields are left out."""
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "type_comment"))
        inner = ",".join(f"{name}={dump(value)}" for name, value in fields if value not in (None, []))
        return f"{type(node).__name__}({inner})"
    return "[" + ",".join(dump(item) for item in node) + "]" if isinstance(node, list) else repr(node)
