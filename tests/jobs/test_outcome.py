"""What `make reproduce` ends with: tables, verdicts, and the path of a report, whichever runs there are."""

from bench.store import Store
from jobs.outcome import show_outcome
from tests.records import make_environment, make_record, manifest_of
from tests.stores import five_seeds, make_store


def test_laptop_runs_are_shown_with_the_committed_verdicts_and_both_reports(tmp_path, capsys):
    records = [*five_seeds(), *five_seeds("transformer")]
    mine = make_store(tmp_path / "mine", records, manifest_of(records, reference="transformer"))
    committed = make_store(tmp_path / "committed", five_seeds(), manifest_of(five_seeds(), "paper"))
    (committed.root / "report.html").write_text("a page", encoding="utf-8")
    assert show_outcome(mine, committed, "laptop") == 0
    printed = capsys.readouterr().out
    assert "laptop: perplexity" in printed
    assert "laptop: differences" in printed
    assert "judged on the committed runs" in printed
    assert "pending" in printed  # the committed runs are the published ones; mine decide nothing
    assert f"Your report: {mine.root / 'report.html'}" in printed
    assert str(committed.root / "report.html") in printed
    assert (mine.root / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_runs_that_decide_a_claim_are_judged_themselves(tmp_path, capsys):
    worse = [make_record(seed=one.seed, perplexity=9.0) for one in five_seeds()]
    mine = make_store(tmp_path / "mine", worse, manifest_of(worse, "paper"))
    committed = make_store(tmp_path / "committed", five_seeds(), manifest_of(five_seeds(), "paper"))
    show_outcome(mine, committed, "paper")
    printed = capsys.readouterr().out
    assert "judged on your runs" in printed
    assert "pending" in printed
    assert "0 of 5 records equal the committed ones" in printed


def test_without_a_committed_store_there_are_verdicts_all_the_same(tmp_path, capsys):
    mine = make_store(tmp_path / "mine", five_seeds())
    assert show_outcome(mine, type(mine)(tmp_path / "none"), "laptop") == 0
    assert "C1   perplexity 4.43                 not started" in capsys.readouterr().out


def at_laptop_size(root, shift: float = 0.0, **changes) -> Store:
    """Three seeds of two arms; `shift` is added to the perplexity of K-Operators' last one."""
    values = [("k_operators", (5.6, 5.62, 5.64 + shift)), ("transformer", (5.4, 5.42, 5.44))]
    records = [
        make_record(label, seed, value, **(changes if value == 5.64 + shift else {}))
        for label, found in values
        for seed, value in enumerate(found)
    ]
    return make_store(root, records, manifest_of(records, reference="transformer"))


def test_the_last_lines_say_whether_the_records_are_the_committed_ones_and_what_came_out(tmp_path, capsys):
    committed = at_laptop_size(tmp_path / "committed")
    assert show_outcome(at_laptop_size(tmp_path / "equal"), committed, "laptop") == 0
    equal, came_out, same = capsys.readouterr().out.splitlines()[-3:]
    assert equal == "6 of 6 records equal the committed ones, bit for bit."
    assert came_out.startswith("What came out: k_operators against transformer: worse by 0.0362 nats per token (95 % ")
    assert same == "The committed difference is +0.0362 nats: the same sign, and within your 95 % interval."


def test_a_committed_record_that_lacks_what_is_measured_now_is_equal_where_both_have_a_number(tmp_path, capsys):
    committed = at_laptop_size(tmp_path / "committed")
    mine, newer = Store(tmp_path / "mine"), {"permuted_rise": [0.5, 0.25]}
    for record in committed.records()[0]:
        assert record.result is not None
        mine.write_record(record.model_copy(update={"result": record.result.model_copy(update=newer)}))
    mine.write_manifest(committed.manifests()[0][0])
    show_outcome(mine, committed, "laptop")
    assert "6 of 6 records equal the committed ones, bit for bit." in capsys.readouterr().out


def test_what_differs_is_named_with_what_differs_between_the_machines(tmp_path, capsys):
    committed = at_laptop_size(tmp_path / "committed")
    environment = make_environment(instructions="AVX2")
    mine = at_laptop_size(tmp_path / "mine", shift=0.1, environment=environment)
    show_outcome(mine, committed, "laptop")
    printed = capsys.readouterr().out
    assert "5 of 6 records equal the committed ones, bit for bit." in printed
    assert "yours minus committed, in nats per token: k_operators-s2 +0.0176." in printed  # ln(5.74 / 5.64)
    assert "What differs between the machines (yours, theirs): instructions AVX2, None." in printed
