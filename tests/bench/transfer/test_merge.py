"""Records that another machine made come home whole, once, under the right origin, or not at all, with the reason."""

import subprocess
from pathlib import Path

import pytest

from bench.app import app
from bench.experiments import noise, paper, smoke
from bench.record import Record, to_bytes
from bench.report.claims.registered import rules_sha256
from bench.report.output import make_tables
from bench.report.table import NOTHING
from bench.store import Store
from bench.transfer import manifests
from bench.transfer.merge import Merged, merge
from jobs.launch import Todo, write_plan
from jobs.speeds import recorded_speeds
from tests.command_line import ROOT, call
from tests.merging import content_of, member, put, record_of, run_of, run_of_paper, tar_of
from tests.records import make_manifest

EARLY, LATE = "2026-11-26T11:23:42+00:00", "2026-11-26T13:24:25+00:00"


def taken(merged: Merged) -> list[str]:
    """The new files of a merge."""
    return sorted(f"{one.folder}/{one.name}" for one in merged.new)


# what is taken --------------------------------------------------------------------------------------------------------


def as_folder(root: Path, records: list[Record]) -> Path:
    return put(root / "some records", *records)


def as_store(root: Path, records: list[Record]) -> Path:
    put(root / "elsewhere" / "runs", *records)
    return root / "elsewhere"


def as_tar(root: Path, records: list[Record]) -> Path:
    return tar_of(root / "a.tar", *[member(f"./x/runs/{one.file_name}", to_bytes(one)) for one in records], mode="w")


def as_tgz(root: Path, records: list[Record]) -> Path:
    return tar_of(root / "a.tgz", *[member(one.file_name, to_bytes(one)) for one in records])


@pytest.mark.parametrize("source", [as_folder, as_store, as_tar, as_tgz])
def test_records_are_copied_byte_for_byte_and_a_second_merge_changes_nothing(source, tmp_path, store, capsys):
    records = [record_of(run_of("k_operators", 42)), record_of(run_of("unigram", None))]
    given = source(tmp_path, records)
    assert call(app, "merge", given, "--into", store.root) == 0
    assert content_of(store.root) == {f"runs/{one.file_name}": to_bytes(one) for one in records}
    before = {path: path.stat().st_mtime_ns for path in store.record_paths()}
    assert "2 records taken" in capsys.readouterr().out
    assert call(app, "merge", given, "--into", store.root) == 0
    assert "nothing new" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in store.record_paths()} == before


def test_a_single_record_file_is_a_source(tmp_path, store):
    record = record_of(run_of())
    folder = put(tmp_path / "some", record, record_of(run_of(seed=69)))
    assert taken(merge([folder / record.file_name], store)) == [f"runs/{record.file_name}"]


def test_the_label_of_a_record_may_be_any_since_it_moves_no_number(tmp_path, store):
    given = put(tmp_path / "some", record_of(run_of(), label="another-name"))
    assert taken(merge([given], store)) == [f"runs/another-name-s42-{run_of().run_id}.json"]


def test_every_committed_record_passes_the_checks(store):
    merged = merge([ROOT / "results"], store)
    assert not merged.refused
    assert merged.count_in("runs") == len(Store(ROOT / "results").record_paths()) > 100
    assert merged.count_in("rechecks") == len(list((ROOT / "results" / "rechecks").glob("*.json")))
    assert merged.count_in("throughput") == len(list((ROOT / "results" / "throughput").glob("*.json")))


# where it goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_records_of_one_run_the_one_started_first_is_the_runs_whatever_the_order(turned, tmp_path, store):
    run = run_of_paper()
    first = put(tmp_path / "paper", record_of(run, 4.44, started_at=EARLY))
    label = "k_operators-replicate-0"
    again = put(tmp_path / "noise", record_of(run, 4.41, started_at=LATE, label=label))
    sources = [again, first] if turned else [first, again]
    merged = merge(sources, store)
    seal = to_bytes(record_of(run, 4.41, started_at=LATE, label=label))[-67:-59].decode()
    assert taken(merged) == [
        f"replications/{label}-s42-{run.run_id}-{seal}.json",
        f"runs/k_operators-s42-{run.run_id}.json",
    ]
    assert not merge(sources[::-1], store).new


def test_a_record_of_a_run_that_is_there_is_a_replication_and_the_first_stays(tmp_path, store):
    first, second, third = (record_of(run_of(), value) for value in (4.4, 4.5, 4.6))
    put(store.root / "runs", first)
    merge([put(tmp_path / "b", second), put(tmp_path / "c", third)], store)
    assert [one.result for one in store.records()[0]] == [first.result]
    found, errors = store.records_in("replications")
    assert not errors
    assert sorted(one.result.sweep.best.nats_per_token for one in found if one.result) == sorted(
        one.result.sweep.best.nats_per_token for one in (second, third) if one.result
    )


def test_a_run_that_failed_takes_no_place_of_one_that_came_to_a_result(tmp_path, store):
    run = run_of()
    failed = record_of(run, status="failed", result=None, error="x", started_at=EARLY)
    done = record_of(run, started_at=LATE)
    merged = merge([put(tmp_path / "a", failed), put(tmp_path / "b", done)], store)
    assert [one.status for one in store.records()[0]] == ["done"]
    assert "ended as failed" in merged.refused[0]
    assert not store.records_in("replications")[0]


def test_a_result_does_not_replace_a_failed_run_and_the_refusal_says_what_to_do(tmp_path, store):
    run = run_of()
    put(store.root / "runs", record_of(run, status="failed", result=None, error="x"))
    [refusal] = merge([put(tmp_path / "b", record_of(run))], store).refused
    assert "ended as failed; move that file out of the store, and merge again" in refusal
    assert [one.status for one in store.records()[0]] == ["failed"]


def test_what_others_made_lies_apart_and_never_takes_the_place_of_ours(tmp_path, store):
    ours, theirs, new = record_of(run_of(), 4.4), record_of(run_of(), 4.5), record_of(run_of(seed=69))
    put(store.root / "runs", ours)
    merged = merge([put(tmp_path / "theirs", theirs, new)], store, contributed=True)
    assert sorted(one.folder for one in merged.new) == ["contributed", "replications"]
    assert len(store.record_paths()) == 1
    merged = merge([put(tmp_path / "ours", record_of(run_of(seed=69), 4.6))], store)
    assert [one.folder for one in merged.new] == ["runs"]  # theirs is no first record of ours


def test_a_record_that_lies_in_any_folder_is_there_already(tmp_path, store):
    given = put(tmp_path / "theirs", record_of(run_of()))
    merge([given], store, contributed=True)
    assert not merge([given], store).new
    assert not merge([given], store, contributed=True).new


def test_a_whole_store_keeps_its_origins(tmp_path, store):
    put(tmp_path / "from" / "runs", record_of(run_of(), 4.4))
    put(tmp_path / "from" / "contributed", record_of(run_of(seed=69), 4.5))
    put(tmp_path / "from" / "replications", record_of(run_of(), 4.6, started_at=EARLY))
    assert [one.folder for one in merge([tmp_path / "from"], store).new] == ["runs", "contributed", "replications"]


def test_measurements_of_throughput_are_copied_and_others_of_their_name_stay(tmp_path, store):
    name = "amd-epyc-2-cores.json"
    measured = (ROOT / "results" / "throughput" / name).read_bytes()
    given = as_store(tmp_path, [record_of(run_of())])
    (given / "throughput").mkdir()
    (given / "throughput" / name).write_bytes(measured)
    assert merge([given, given], store).count_in("throughput") == 1
    assert not merge([given], store).refused
    (given / "throughput" / name).write_bytes(measured + b"\n")
    assert "other measurements" in merge([given], store).refused[0]
    assert (store.root / "throughput" / name).read_bytes() == measured


# a missing manifest ---------------------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A repository whose commits have rules of their own, in place of this one: commit by name."""
    root = tmp_path / "history"
    earlier, now = root / "bench" / "claims.py", root / "bench" / "report" / "claims" / "registered.py"
    now.parent.mkdir(parents=True)

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(rules: str, file: Path = now) -> str:
        earlier.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def rules_sha256():\n    return {rules}\n")
        (root / "bench" / "__init__.py").touch()
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "x")
        return git("rev-parse", "HEAD")

    git("init", "-q")
    commits = {"first": commit("'a' * 64", earlier), "same": commit("'aa' * 32"), "other": commit("'b' * 64")}
    commits["silent"] = commit("'none'")
    git("checkout", "-q", "-b", "aside", commits["first"])
    commits["aside"] = commit("open('ran', 'w')")
    git("checkout", "-q", "-")
    monkeypatch.setattr(manifests, "ROOT", root)
    manifests._ask.cache_clear()
    return commits


def merged_with_commits(tmp_path: Path, store: Store, *sources: tuple[str | None, bool | None]) -> list[str]:
    """Merge one record of `paper` for each commit and state of the tree; what is said of the manifest."""
    records = [
        record_of(run_of_paper(seed), sources={"commit": commit, "dirty": dirty, "fingerprint": "f" * 64})
        for seed, (commit, dirty) in zip((42, 69, 420), sources, strict=False)
    ]
    merged = merge([put(tmp_path / "some", *records)], store)
    return manifests.write_missing(paper(), merged, store, judged=True)


def test_a_missing_manifest_is_that_of_the_code_with_the_rules_of_the_records_commit(tmp_path, store, history):
    merged_with_commits(tmp_path, store, (history["first"], False), (history["first"][:7], None))
    [manifest] = store.manifests()[0]
    asked = paper().on(corpus=None, mode="fast", seeds=None).manifest()
    assert manifest == asked.model_copy(update={"claim_rules_sha256": "a" * 64})
    assert manifest.claim_rules_sha256 != rules_sha256()


def test_commits_with_equal_rules_are_one_case(tmp_path, store, history):
    merged_with_commits(tmp_path, store, (history["first"], False), (history["same"], False))
    assert store.manifests()[0][0].claim_rules_sha256 == "a" * 64


UNKNOWN: dict[str, tuple[tuple[str | None, bool | None], str]] = {
    "edited": (("first", True), "edited sources"),
    "two rules": (("other", False), "whose rules differ"),
    "no commit": ((None, None), "names no commit"),
    "not a commit": (("--upload-pack=x", False), "'--upload-pack=x' is not a commit"),
    "no such commit": (("0123456", False), "not in the history"),
    "a commit that we have not built on": (("aside", False), "not in the history"),
    "a commit that has no rules": (("silent", False), "does not tell"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_rules_that_are_not_known_are_none_with_the_reason(what, tmp_path, store, history):
    (commit, dirty), reason = UNKNOWN[what]
    shown = merged_with_commits(tmp_path, store, (history["first"], False), (history.get(commit or "", commit), dirty))
    assert reason in "\n".join(shown)
    assert store.manifests()[0][0].claim_rules_sha256 is None


def test_a_manifest_that_came_along_tells_the_rules_where_no_commit_does(tmp_path, store, history):
    given = tmp_path / "from"
    put(given / "runs", record_of(run_of_paper(), sources={"commit": None, "dirty": None, "fingerprint": "f" * 64}))
    Store(given).write_manifest(make_manifest({}, "paper", mode="fast", claim_rules_sha256="c" * 64))
    shown = manifests.write_missing(paper(), merge([given], store), store, judged=True)
    assert "taken from the manifest" in shown[-1]
    assert store.manifests()[0][0].claim_rules_sha256 == "c" * 64


def test_a_seed_beyond_those_of_the_code_is_listed_and_others_runs_are_not(tmp_path, store):
    records = [record_of(run_of_paper(seed)) for seed in (42, 7)]
    merged = merge([put(tmp_path / "some", *records)], store)
    manifests.write_missing(noise(), merged, store, judged=False)
    [manifest] = store.manifests()[0]
    assert list(manifest.cells[0].run_ids) == ["42"]  # seed 7 is of no cell of `noise`, whose config it shares
    (store.root / "experiments").rename(tmp_path / "aside")
    manifests.write_missing(paper(), merged, store, judged=True)
    [manifest] = store.manifests()[0]
    assert list(manifest.cells[0].run_ids) == [*map(str, paper().cells[0].seeds), "7"]


def test_a_manifest_that_is_there_stays_as_it_is(tmp_path, store, capsys):
    store.write_manifest(make_manifest({"k_operators": {"42": run_of().run_id}}, "smoke"))
    before = content_of(store.root)
    given = put(tmp_path / "some", record_of(run_of()), record_of(run_of(seed=69)))
    assert call(app, "merge", given, "--into", store.root, "--experiment", "smoke") == 0
    assert "does not list 1 run" in capsys.readouterr().out
    assert {path: content_of(store.root)[path] for path in before} == before


def test_an_experiment_that_no_record_is_of_gets_no_manifest(tmp_path, store, capsys):
    given = put(tmp_path / "some", record_of(run_of()))
    assert call(app, "merge", given, "--into", store.root, "--experiment", "laptop") == 1
    assert "none of the merged records is of it" in capsys.readouterr().err
    assert not store.manifests()[0]


def test_a_store_without_the_manifest_of_a_source_is_told_how_to_get_it(tmp_path, store, capsys):
    given = as_store(tmp_path, [record_of(run_of())])
    Store(given).write_manifest(make_manifest({}, "smoke"))
    assert call(app, "merge", given, "--into", store.root) == 0
    assert "no manifest here of experiment smoke" in capsys.readouterr().out
    assert call(app, "merge", given, "--into", store.root, "--experiment", "smoke") == 0
    assert "no manifest here" not in capsys.readouterr().out


def test_what_others_made_gets_no_manifest_of_ours(tmp_path, store, capsys):
    given = put(tmp_path / "some", record_of(run_of()))
    assert call(app, "merge", given, "--into", store.root, "--contributed", "--experiment", "smoke") == 2
    assert "belongs to no launch of ours" in capsys.readouterr().err
    assert not store.record_paths()


def test_runs_that_are_known_to_have_shared_a_gpu_tell_no_time_though_their_records_say_that_they_were_alone(
    tmp_path, store
):
    given = put(tmp_path / "some", *(record_of(run_of(seed=seed), started_at=EARLY) for seed in (42, 69)))
    assert call(app, "merge", given, "--into", store.root, "--experiment", "smoke") == 0
    alone = cells_of(store, "cost", "k_operators")
    (store.root / "experiments" / "smoke.json").unlink()
    assert call(app, "merge", given, "--into", store.root, "--experiment", "smoke", "--shared-gpu") == 0
    shared = cells_of(store, "cost", "k_operators")
    assert (alone["train seconds"] != NOTHING, shared["train seconds"], shared["tokens/s"]) == (True, NOTHING, NOTHING)
    assert [speed.runs_per_gpu for speed in recorded_speeds([store], "cpu", ["exact"])] == [2, 2]


def cells_of(store: Store, kind: str, arm: str) -> dict[str, str]:
    table = next(one for one in make_tables(store).tables if one.kind == kind)
    return next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == arm)


def test_a_remark_on_how_runs_were_made_stands_below_their_tables_and_outlives_a_relaunch(tmp_path, store):
    given = put(tmp_path / "some", record_of(run_of()))
    remark = "several launches shared the machine"
    assert call(app, "merge", given, "--into", store.root, "--remark", remark) == 2  # there is no manifest to hold it
    assert call(app, "merge", given, "--into", store.root, "--experiment", "smoke", "--remark", remark) == 0
    write_plan(smoke(), store, Todo(selected=[], runs=[], statuses={}), any_sources=False)
    assert store.manifests()[0][0].remark == remark
    cost = next(one for one in make_tables(store).tables if one.kind == "cost")
    assert f"Remark: {remark}" in cost.notes
