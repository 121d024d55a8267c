"""Whether a record stands under the present sources: made by them, or proved by a recheck."""

from collections.abc import Iterable
from typing import Literal

from bench import sources
from bench.record import Recheck, RecheckKind, Record

Proofs = dict[tuple[str, str], RecheckKind]  # by run id and the fingerprint of the sources that showed it


def proofs_of(rechecks: Iterable[Recheck]) -> Proofs:
    """The runs proved by equal numbers; where both kinds of proof are there, the stronger one, repetition, counts."""
    proofs: Proofs = {}
    for recheck in rechecks:
        key = recheck.run_id, recheck.fingerprint
        if recheck.equal and proofs.get(key) != "repeated":
            proofs[key] = recheck.kind
    return proofs


def standing(record: Record, proofs: Proofs) -> Literal["current"] | RecheckKind | None:
    """Why a record stands: the present sources made it, or a proof of some kind; None where nothing shows it."""
    current = current_fingerprint(record.config.get("architecture"))
    if current is None:
        return None
    return "current" if record.sources.fingerprint == current else proofs.get((record.run_id, current))


def current_fingerprint(architecture: object) -> str | None:
    """The present sources' fingerprint; None for an architecture whose sources are not here."""
    if not isinstance(architecture, str) or not architecture.isidentifier():
        return None
    try:
        return sources.fingerprint(architecture)
    except OSError:
        return None
