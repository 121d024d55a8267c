"""What `make reproduce` ends with: tables, verdicts, and the path of a report, whichever runs there are."""

from jobs.outcome import show_outcome
from tests.records import make_record, manifest_of
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
    assert "so far reproduced" in printed  # the committed runs are the published ones; mine decide nothing
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
    assert "so far not reproduced" in printed


def test_without_a_committed_store_there_are_verdicts_all_the_same(tmp_path, capsys):
    mine = make_store(tmp_path / "mine", five_seeds())
    assert show_outcome(mine, type(mine)(tmp_path / "none"), "laptop") == 0
    assert "C1  not started" in capsys.readouterr().out
