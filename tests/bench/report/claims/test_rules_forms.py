"""C6 reaches every outcome from measurements of the published forms and runs of `backends` that are made for it."""

import pytest

from bench.record import Record
from bench.report.claims.verdicts import NOT_MEASURED
from tests.judging import SEEDS, Made
from tests.measurements import in_turn, session, write
from tests.records import make_record

FAST, SLOW = {"seconds": [1.0, 1.1, 0.9]}, {"seconds": [2.0, 2.3, 1.7]}
SMALL, LARGE = {"mebibytes": 300}, {"mebibytes": 900}


def form(backend: str, context: int, *, speed: float = 2.0, mebibytes: int = 300, loss: float = 4.2, n: int = 3):
    """The runs of one cell of `backends`."""
    label = f"{backend}-T{context}"
    base = make_record(label).cost.model_dump()
    return [
        make_record(
            label,
            seed,
            4.5,
            config={**make_record().config, "context": context, "model": {"backend": backend}},
            diagnostics={"first_train_nats": [loss] * 20, "by_step": {}},
            cost={**base, "tokens_per_second": speed, "peak_bytes": mebibytes * 2**20},
        )
        for seed in SEEDS[:n]
    ]


def with_runs(made: Made, **of_last_mask) -> Made:
    """Every planned run of `backends`; `of_last_mask` changes those of mask at the longest context."""
    cells = [(backend, context) for backend in ("mask", "block") for context in (64, 128, 256, 512)]
    changes = {("mask", 512): of_last_mask}
    arms: list[list[Record]] = [form(*cell, **changes.get(cell, {})) for cell in cells]
    return made.add("backends", *arms)


def measured(made: Made, *benchmarks: dict, slug: str = "here", device: str = "cpu") -> None:
    on_device = [{**one, "extra_info": {**one["extra_info"], "device": device}} for one in benchmarks]
    write(made.store.root, session(*on_device, device=device, device_name=slug), slug)


@pytest.mark.parametrize(
    ("mask", "block", "outcome"),
    [
        (FAST | LARGE, SLOW | SMALL, "reproduced"),
        (SLOW | SMALL, FAST | LARGE, "reproduced"),  # a trade all the same
        (FAST | SMALL, SLOW | LARGE, "not reproduced"),  # mask wins both
        (SLOW | LARGE, FAST | SMALL, "not reproduced"),
        (FAST | {"mebibytes": 309}, SLOW | SMALL, "inconclusive"),  # as large within 5 %
        (FAST | {"mebibytes": 316}, SLOW | SMALL, "reproduced"),
        (FAST | LARGE, {"seconds": [1.04, 1.14, 0.93]} | SMALL, "inconclusive"),  # as fast within 5 %
        (FAST | LARGE, {"seconds": [2.0, 2.3, 0.93]} | SMALL, "inconclusive"),  # a round says otherwise
        (FAST | SMALL, {"seconds": [2.0, 2.3, 0.93]} | LARGE, "inconclusive"),
        (FAST | LARGE | {"losses": [4.2, 4.1002]}, SLOW | SMALL, "not reproduced"),  # they train differently
    ],
)
def test_each_outcome_from_what_was_measured(made, mask, block, outcome):
    measured(with_runs(made), *in_turn(mask, block))
    assert made.verdict("C6").outcome == outcome


def test_the_numbers_are_as_worked_by_hand(made):
    without = in_turn(FAST | SMALL, SLOW | LARGE, "forward")
    measured(with_runs(made), *in_turn(FAST | LARGE | {"losses": [4.2, 4.10003]}, SLOW | SMALL), *without)
    first, second, third, _, last = made.verdict("C6").numbers
    # rounds: 2.0 / 1.0, 2.3 / 1.1, 1.7 / 0.9
    ratios = "mask over block: speed 2.00 (1.89 to 2.09, n = 3), peak memory"
    assert first == f"here, float32: {ratios} 3.00, losses at most 3.0e-05 nats apart"
    assert second.startswith("here, bfloat16: mask over block")
    assert third.startswith(f"without gradients, on here, float32: {ratios} 0.33")
    assert third.endswith("decides nothing)")
    assert last == "training losses of backends at most 0.0e+00 nats apart"


def one_precision(dtype: str, mask: dict, block: dict) -> list[dict]:
    return [one for one in in_turn(mask, block) if one["extra_info"]["dtype"] == dtype]


@pytest.mark.parametrize(
    ("mask", "block", "outcome"),
    [
        (FAST | SMALL, SLOW | LARGE, "not reproduced"),
        (FAST | {"mebibytes": 300}, SLOW | SMALL, "inconclusive"),
        (FAST | LARGE | {"losses": [4.2, 4.11]}, SLOW | SMALL, "reproduced"),  # bf16 rounds
    ],
)
def test_bfloat16_must_show_the_trade_too_while_its_losses_decide_nothing(made, mask, block, outcome):
    trade = one_precision("float32", FAST | LARGE, SLOW | SMALL)
    measured(with_runs(made), *trade, *one_precision("bfloat16", mask, block))
    assert made.verdict("C6").outcome == outcome


def test_a_gpu_decides_where_there_is_one_and_several_must_agree(made):
    with_runs(made)
    measured(made, *in_turn(FAST | SMALL, SLOW | LARGE), slug="processor")
    assert made.verdict("C6").outcome == "not reproduced"
    trade = in_turn(FAST | LARGE, SLOW | SMALL)
    measured(made, *one_precision("float32", FAST | LARGE, SLOW | SMALL), slug="gpu", device="cuda")
    assert made.verdict("C6").outcome == "not reproduced"  # that GPU lacks bfloat16
    measured(made, *trade, slug="gpu", device="cuda")
    assert made.verdict("C6").outcome == "reproduced"
    assert "processor" not in "".join(made.verdict("C6").numbers)
    measured(made, *in_turn(FAST | {"mebibytes": 300}, SLOW | SMALL), slug="second", device="cuda")
    assert made.verdict("C6").outcome == "inconclusive"


def without(key: str, found: list[dict]) -> list[dict]:
    """The first form without a fact, or with its last round left out."""
    first = found[0]
    if key == "data":
        first["stats"]["data"] = first["stats"]["data"][1:]
    else:
        first["extra_info"] = {**first["extra_info"], key: {"losses": [], "peak_bytes": None, "batch_size": 8}[key]}
    return found


@pytest.mark.parametrize("key", ["data", "losses", "peak_bytes", "batch_size"])
def test_forms_that_were_not_measured_alike_are_not_compared(made, key):
    measured(with_runs(made), *without(key, in_turn(FAST | LARGE, SLOW | SMALL)))
    verdict = made.verdict("C6")
    assert (verdict.outcome, verdict.numbers[0]) == ("pending", NOT_MEASURED)


def test_it_waits_for_the_measurement_and_for_the_runs(made):
    assert made.verdict("C6").outcome == "not started"
    measured(made, *in_turn(FAST | LARGE, SLOW | SMALL))
    verdict = made.verdict("C6")
    assert verdict.outcome == "pending"
    assert verdict.numbers[0].startswith("mask-T64 0 of 3 seeds, ")
    assert verdict.numbers[1].startswith("so far reproduced: here, float32: mask over block")
    with_runs(made)
    assert made.verdict("C6").outcome == "reproduced"


@pytest.mark.parametrize(
    ("changes", "outcome", "registered"),
    [
        ({"speed": 2.04, "mebibytes": 303}, "reproduced", "reproduced"),
        ({"speed": 2.04, "mebibytes": 297}, "reproduced", "not reproduced"),
        ({"speed": 1.96, "mebibytes": 297}, "reproduced", "reproduced"),
        ({"speed": 2.04, "mebibytes": 303, "loss": 4.2002}, "not reproduced", "not reproduced"),
    ],
)
def test_runs_of_backends_decide_whether_they_train_alike_and_the_rule_registered_first(
    made, changes, outcome, registered
):
    measured(with_runs(made, **changes), *in_turn(FAST | LARGE, SLOW | SMALL))
    verdict = made.verdict("C6")
    assert (verdict.outcome, verdict.registered) == (outcome, registered)


def test_a_planned_run_that_is_missing_leaves_it_pending(made):
    measured(with_runs(made, n=2), *in_turn(FAST | LARGE, SLOW | SMALL))
    assert made.verdict("C6").numbers[0] == "mask-T512 2 of 3 seeds"
