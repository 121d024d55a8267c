"""Stores for tests of the rules of claims: arms with a given mean loss, and experiments of them."""

import math
from pathlib import Path

from bench.record import ManifestCell, Record
from bench.report.claims.registered import rules_sha256
from bench.report.claims.verdicts import judge
from bench.report.mixing import seed_text
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import read_results
from bench.store import Store
from tests.records import make_manifest, make_record

SEEDS = (42, 69, 420, 666, 2137)
TEN = (*SEEDS, 1, 2, 3, 4, 5)
SPREAD = (-0.004, 0.003, 0.0, -0.002, 0.003) * 2  # nats around an arm's mean; the sum is 0, also of the first five
THEIRS = (1.4841667 + 1.5046 + 1.4878 + 1.4980 + 1.4733) / 5  # the published distinct seeds, the three 42s averaged


def runs(label: str, nats: float, *, seeds=SEEDS, spread=SPREAD, **changes) -> list[Record]:
    """An arm with a mean loss, one run per seed."""
    pairs = zip(seeds, spread, strict=False)
    return [make_record(label, seed, math.exp(nats + offset), **changes) for seed, offset in pairs]


def diverged(records: list[Record], n: int = 1) -> list[Record]:
    """The same records with the last `n` (n >= 1) diverged."""
    return records[:-n] + [make_record(one.label, one.seed, status="diverged") for one in records[-n:]]


class Made:
    """A store to which experiments are added."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def add(self, name: str, *arms: list[Record], missing: dict[str, tuple[int, ...]] | None = None, **changes):
        """An experiment of these arms; `missing`: seeds of a label that have no record yet."""
        groups, cells = changes.pop("groups", {}), []
        for records in arms:
            ids = {seed_text(one): one.run_id for one in records}
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
        """The verdict on a claim."""
        return {one.claim.id: one for one in judge(read_results(self.store), load_published(PUBLISHED))}[claim]
