"""What K-Operators' step size and paths do is shown by arm, worked out by hand from readings at three evaluations."""

from bench.record import Record
from bench.report.table import NOTHING
from tests.records import make_record, manifest_of
from tests.stores import cells, grouped, kinds_of, make_store, table_of


def reading(eta: float | None, share: list[float], **others) -> dict:
    return {"recurrent_share": share, **({} if eta is None else {"eta": eta}), **others}


def run(seed: int, *readings: dict, label: str = "k_operators", **changes) -> Record:
    by_step = {step * 250: one for step, one in enumerate(readings)}
    return make_record(label, seed, diagnostics={"first_train_nats": [4.2] * 20, "by_step": by_step}, **changes)


def two_seeds() -> list[Record]:
    last = {"gate": [0.2, 0.4], "alpha": [0.1, 0.3], "refinement_step_ratio": [2.0, 4.0]}
    return [
        run(42, reading(0.3, [0.8, 1.0]), reading(0.1, [0.1, 0.3]), reading(0.2, [0.5, 0.7], **last)),
        run(69, reading(0.3, [0.7, 0.9]), reading(0.2, [0.3, 0.3]), reading(0.4, [0.2, 0.2], **last)),
    ]


def test_each_reading_is_a_mean_over_layers_and_then_over_seeds(tmp_path):
    made = two_seeds()
    # share, by seed and step: 0.9, 0.2, 0.6 and 0.8, 0.3, 0.2. First 0.85 ± 0.071, least 0.2 ± 0, last 0.4 ± 0.283;
    # eta at the end 0.2 and 0.4: 0.3 ± 0.141
    assert cells(table_of(make_store(tmp_path, made), "dynamics")) == {
        "arm": "k_operators",
        "n": "2",
        "eta, first": "0.300 ± 0.000",
        "eta, last": "0.300 ± 0.141",
        "refinement step, last": "3.000 ± 0.000",
        "recurrent share, first": "0.850 ± 0.071",
        "recurrent share, minimum": "0.200 ± 0.000",
        "recurrent share, last": "0.400 ± 0.283",
        "gate, last": "0.300 ± 0.000",
        "alpha, last": "0.200 ± 0.000",
    }


def test_an_arm_without_refinement_has_no_eta_and_a_missing_seed_marks_every_number(tmp_path):
    made = [run(seed, *(reading(None, [0.5]) for _ in range(3)), label="plain") for seed in (42, 69, 420)]
    row = cells(table_of(make_store(tmp_path, made[:2], manifest_of(made)), "dynamics"))
    assert (row["eta, last"], row["gate, last"]) == (NOTHING, NOTHING)
    assert (row["n"], row["recurrent share, last"]) == ("2 of 3", "0.500 ± 0.000 (2 of 3)")


def test_readings_that_a_model_did_not_take_are_left_out(tmp_path):
    odd = {"eta": None, "gate": [0.5], "alpha": []}
    row = cells(table_of(make_store(tmp_path, [run(42, odd, odd, odd)]), "dynamics"))
    assert (row["eta, last"], row["gate, last"], row["alpha, last"]) == (NOTHING, "0.500", NOTHING)


def test_there_is_no_table_without_a_course_without_k_operators_or_of_a_search(tmp_path):
    brief = [run(42, reading(0.3, [0.5]), reading(0.2, [0.4]))]
    assert "dynamics" not in kinds_of(make_store(tmp_path / "brief", brief))
    others = [one.model_copy(update={"config": {**one.config, "architecture": "lstm"}}) for one in two_seeds()]
    assert "dynamics" not in kinds_of(make_store(tmp_path / "others", others))
    trials = [
        run(1000, *(reading(0.3, [0.5]) for _ in range(3)), label=f"t{i}", context=context)
        for i, context in enumerate((128, 256))
    ]
    search = grouped(trials, lambda _: "k_operators")
    assert "dynamics" not in kinds_of(make_store(tmp_path / "search", trials, search))
