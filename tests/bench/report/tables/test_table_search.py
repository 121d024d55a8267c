"""What a search chose, what that cost, and how far it hangs on the trials that were drawn."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.record import Manifest, ManifestCell, Record, Status
from bench.report.runs import CellResults
from bench.report.searches import find
from bench.report.table import NOTHING
from tests.records import make_manifest, make_record
from tests.stores import kinds_of, make_store, table_of

SEEDS = (1000, 1001, 1002)
INF = math.inf
TWO_STAGES = [(1.5, 1.5, 1.5), (1.4, 1.7, 1.7), (1.6, 1.0, 1.6), (1.7,), (INF,)]
CASES = [
    ([(1.6,), (1.5,), (1.8,), (INF,)], 1),
    ([(1.5,), (1.5,), (1.8,)], 0),
    (TWO_STAGES, 2),  # three seeds turn it round
    ([(1.5, 1.5, 1.5), (1.5, 1.25, 1.75), (1.6, 1.6, 1.6), (1.9,)], 0),  # a tie of means
    ([(INF, INF, INF), (1.5, 1.5, 1.5), (1.4, INF, 1.4), (INF,)], 1),
]


def trial(number: int, losses: Sequence[float], arm: str = "a") -> list[Record]:
    """The runs of a trial with these losses; infinite: diverged."""
    records = []
    for seed, nats in zip(SEEDS, losses, strict=False):
        status: Status = "diverged" if nats == INF else "done"
        record = make_record(f"{arm}-t{number:02}", seed, 2.0 if nats == INF else math.exp(nats), status=status)
        config = {**record.config, "training": {"n_steps": 500, "learning_rate": 0.001 * (number + 1)}}
        records.append(record.model_copy(update={"config": config}))
    return records


def cells_of(trials: Sequence[Sequence[float]]) -> list[CellResults]:
    return [
        CellResults(
            label=f"a-t{i:02}",
            expected=tuple(map(str, SEEDS[: max(len(losses), 1)])),
            records=tuple(trial(i, losses)),
            missing=(),
            group="a",
        )
        for i, losses in enumerate(trials)
    ]


def chosen(trials: Sequence[Sequence[float]], drawn: Sequence[int]) -> int:
    """The trial that wins if only these are there, by the words of the rule."""
    first = sorted(set(drawn), key=lambda i: (trials[i][0], i))
    two_stages = any(len(losses) > 1 for losses in trials)
    return min(sorted(first[: 3 if two_stages else 1]), key=lambda i: np.mean(trials[i]))


@pytest.mark.parametrize(("trials", "winner"), CASES)
def test_the_winner_is_the_best_mean_of_the_best_three(trials, winner):
    assert chosen(trials, range(len(trials))) == winner
    found = find(cells_of(trials)).winner
    assert found is not None
    assert found.cell.label == f"a-t{winner:02}"


@pytest.mark.parametrize(("trials", "winner"), CASES)
def test_resampling_draws_trials_and_chooses_as_before(trials, winner):
    """Against all draws, each equally likely."""
    n = len(trials)
    every = [chosen(trials, drawn) for drawn in itertools.product(range(n), repeat=n)]
    losses = [float(np.mean(trials[i])) for i in every]
    found = find(cells_of(trials)).resampled(40_000)
    assert found.same == pytest.approx(every.count(winner) / len(every), abs=0.01)
    if INF in losses:
        assert found.sd is None
    else:
        assert found.sd == pytest.approx(np.std(losses), rel=0.1)  # in one case a loss of one draw in 256 decides it
    low, high = (np.quantile(losses, share, method="inverted_cdf") for share in (0.025, 0.975))
    assert found.interval == pytest.approx((low, high))
    assert find(cells_of(trials)).resampled(40_000) == found  # a fixed seed


@pytest.mark.parametrize("trials", [[(1.5, 1.5), (1.4, 1.4, 1.4), (1.6, 1.6, 1.6), (1.7,)], [(1.5,), (), (1.6,)]])
def test_an_incomplete_search_has_no_winner(trials):
    assert find(cells_of(trials)).winner is None


def manifests(records: Sequence[Record], **matched: Any) -> list[Manifest]:
    """Those of the search, and of an experiment whose cells it chose."""
    labels = dict.fromkeys(record.label for record in records)
    ids = {label: {str(one.seed): one.run_id for one in records if one.label == label} for label in labels}
    cells = [ManifestCell(label=label, run_ids=found, group=label[0]) for label, found in ids.items()]
    return [
        make_manifest({}, "tuning").model_copy(update={"cells": cells}),
        make_manifest({"a": {"42": "0" * 12}}, "matched", **matched),
    ]


def test_the_table_stands_beside_what_the_search_chose(tmp_path):
    records = [one for i, losses in enumerate(TWO_STAGES) for one in trial(i, losses)]
    records += trial(0, (1.5,), "b")
    chosen_by = {"a": [one.run_id for one in records if one.label.startswith("a")]}
    store = make_store(tmp_path, records, *manifests(records, chosen_by=chosen_by))
    row = table_of(store, "search", "tuning").rows[0]
    assert row[:6] == ("a", "5", "11", "1", "a-t02", "1.4000")
    assert table_of(store, "search", "matched").rows == table_of(store, "search", "tuning").rows
    assert "The search is experiment tuning." in table_of(store, "search", "matched").notes


def test_the_search_of_other_runs_is_not_shown(tmp_path):
    records = [one for i, losses in enumerate(TWO_STAGES) for one in trial(i, losses)]
    store = make_store(tmp_path, records, *manifests(records, chosen_by={"a": ["f" * 12]}))
    assert "search" not in kinds_of(store, "matched")
    assert "search" in kinds_of(store, "tuning")


def test_trials_show_both_stages(tmp_path):
    records = [
        one for i, losses in enumerate([*TWO_STAGES[:2], (1.6, INF, 1.6), *TWO_STAGES[3:]]) for one in trial(i, losses)
    ]
    store = make_store(tmp_path, records, *manifests(records))
    table = table_of(store, "tuning", "tuning")
    assert [row[table.columns.index("stage 2, mean loss")] for row in table.rows] == [
        "1.5000, wins",
        "1.6000",
        "diverged",
        NOTHING,
        NOTHING,
    ]
    assert [row[-1] for row in table.rows] == ["3 done", "3 done", "2 done, 1 diverged", "done", "diverged at step 120"]
    assert [row[2] for row in table.rows][1] == "4.055"  # the perplexity on the seed of stage 1
