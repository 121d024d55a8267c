"""Stores made for the rules of claims: arms around a mean loss, and experiments of them."""

import math
from pathlib import Path

from bench.record import ManifestCell, Record
from bench.report.claims.registered import rules_sha256
from bench.report.claims.verdicts import judge
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import read_results
from bench.store import Store
from tests.records import make_manifest, make_record

SEEDS = (42, 69, 420, 666, 2137)
SPREAD = (-0.004, 0.003, 0.0, -0.002, 0.003)  # nats around an arm's mean; it adds up to 0
THEIRS = (1.4841667 + 1.5046 + 1.4878 + 1.4980 + 1.4733) / 5  # the published distinct seeds, the three 42s averaged


def runs(label: str, nats: float, *, seeds=SEEDS, spread=SPREAD, **changes) -> list[Record]:
    """An arm around a mean loss, one run per seed."""
    return [
        make_record(label, seed, math.exp(nats + offset), **changes)
        for seed, offset in zip(seeds, spread, strict=False)
    ]


def diverged(records: list[Record], n: int = 1) -> list[Record]:
    """The same with the last runs diverged."""
    lost = [make_record(one.label, one.seed, status="diverged") for one in records[len(records) - n :]]
    return [*records[: len(records) - n], *lost]


class Made:
    """A store in the making."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def add(self, name: str, *arms: list[Record], missing: dict[str, tuple[int, ...]] | None = None, **changes):
        """An experiment of these arms; `missing`: seeds of a label that have no record yet."""
        groups, cells = changes.pop("groups", {}), []
        for records in arms:
            ids = {str(one.seed): one.run_id for one in records}
            label = records[0].label
            ids |= {str(seed): f"{seed:012x}" for seed in (missing or {}).get(label, ())}
            cells.append(ManifestCell(label=label, run_ids=ids, group=groups.get(label)))
            for record in records:
                if record.run_id not in {one.run_id for one in self.store.records()[0]}:
                    self.store.write_record(record)
        manifest = make_manifest({}, name, claim_rules_sha256=rules_sha256(), **changes)
        self.store.write_manifest(manifest.model_copy(update={"cells": cells}))
        return self

    def verdict(self, claim: str):
        """What the ledger says of a claim."""
        return {one.claim.id: one for one in judge(read_results(self.store), load_published(PUBLISHED))}[claim]
