"""An old record is proved by equal bits, on a machine that can tell; else its sources are; else it is left."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import sources
from bench.__main__ import app
from bench.config import to_json
from bench.corpus import load_corpus
from bench.errors import ConfigError
from bench.recheck import check as recheck
from bench.recheck import workers
from bench.recheck.check import Machine, Outcome, prove, stale, summary, this_machine
from bench.recheck.workers import NoAnswer, in_parallel
from bench.record import SCHEMA_VERSION, Environment, Recheck, Record, read
from bench.report.explain import explain
from bench.report.runs import read_results
from bench.sources import fingerprint, proofs_of, standing
from bench.train import first_losses
from tests.command_line import call, git
from tests.records import FINGERPRINT, make_environment, make_record
from tests.stores import cells, make_store, table_of

OLD, COMMIT = "e" * 64, "a1b2c3d" + "0" * 33
LOSSES = [4.2] * 20
H200 = {"device": "cuda", "device_name": "NVIDIA H200", "n_threads": 16, "instructions": "AVX512", "cuda": "13.0"}


@pytest.fixture(autouse=True)
def _present_sources(monkeypatch):
    monkeypatch.setattr("bench.standing.current_fingerprint", lambda _: FINGERPRINT)
    monkeypatch.setattr("bench.recheck.check.current_fingerprint", lambda _: FINGERPRINT)


class Sources:
    """Stands in for processes that take first steps: what the present sources and those of the commit answer."""

    def __init__(self):
        self.asked = []
        self.present = {"fingerprint": FINGERPRINT, "first_train_nats": LOSSES}
        self.committed = {"fingerprint": OLD, "first_train_nats": LOSSES}

    def ask(self, folder, question):
        present = folder == recheck.ROOT
        self.asked.append(("present" if present else "committed", question))
        answer = self.present if present else self.committed
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    @property
    def who(self):
        return [one for one, _ in self.asked]


@pytest.fixture
def sources_here(monkeypatch, tmp_path):
    """A serial stand-in for the pool, and for the trees of commits."""
    here = Sources()

    def one_by_one(tasks, n_at_once, do, tell):
        for task in tasks:
            tell(do(task, here))

    def commit_of(commit, repository):
        if not COMMIT.startswith(commit):
            raise ConfigError(f"commit {commit} is not in this repository")
        return COMMIT

    monkeypatch.setattr("bench.recheck.check.in_parallel", one_by_one)
    monkeypatch.setattr("bench.recheck.check.full_commit", commit_of)
    monkeypatch.setattr("bench.recheck.check.worktree", lambda *_: contextlib.nullcontext(tmp_path / "tree"))
    monkeypatch.setattr("bench.recheck.check.find_text", lambda *_: None)
    return here


def machine(**changes) -> Machine:
    environment = make_environment(**changes)
    known = {"cpu": make_environment(), environment["device"]: environment}
    return Machine(
        devices={kind: kind for kind in known},
        environments={kind: Environment.model_validate(one) for kind, one in known.items()},
        data_dir=None,
    )


def old_record(seed: int | None = 42, environment: dict | None = None, **changes) -> Record:
    made_on = make_environment(**(environment or {}))
    return make_record(seed=seed, fingerprint=OLD, environment=made_on, **changes)


def proved(records, on: Machine | None = None):
    outcomes: list[Outcome] = []
    prove(records, on or machine(), None, outcomes.append)
    return outcomes


def fitted(**changes) -> Record:
    return old_record(None, architecture="ngram", **changes)


# on the kind of device that made it -----------------------------------------------------------------------------------


def test_equal_losses_on_the_kind_of_machine_that_made_it_prove_a_record(sources_here):
    record = old_record(environment={"n_threads": 3})
    (outcome,) = proved([record])
    assert (outcome.state, sources_here.who) == ("proved", ["present"])
    assert outcome.proof.kind == "repeated"
    assert (outcome.proof.run_id, outcome.proof.fingerprint) == (record.run_id, FINGERPRINT)
    assert outcome.proof.environment.n_threads == 3
    question = sources_here.asked[0][1]
    assert (question["device"], question["n_threads"], question["n_steps"]) == ("cpu", 3, 20)
    assert question["run"]["config"] == record.config


def test_one_bit_there_is_a_record_that_the_sources_do_not_confirm(sources_here):
    sources_here.present["first_train_nats"] = [4.2] * 19 + [4.200000000000001]
    (outcome,) = proved([old_record()])
    assert (outcome.state, outcome.proof) == ("not confirmed", None)
    assert "differ by up to 8.88e-16 nats; these sources do not confirm the record" in outcome.why


def test_a_gpu_repeats_what_a_gpu_of_its_model_made(sources_here):
    (outcome,) = proved([old_record(environment=H200, mode="fast")], machine(**H200))
    assert (outcome.state, outcome.proof.kind) == ("proved", "repeated")
    assert sources_here.asked[0][1]["device"] == "cuda"


@pytest.mark.parametrize("cut", [1, 19])
def test_a_record_that_diverged_early_is_repeated_as_far_as_it_came(sources_here, cut):
    record = old_record(status="diverged", diagnostics={"first_train_nats": LOSSES[:cut], "by_step": {}})
    sources_here.present["first_train_nats"] = LOSSES[:cut]
    (outcome,) = proved([record])
    assert outcome.state == "proved"
    assert sources_here.asked[0][1]["n_steps"] == cut


def attempt(first_step: int, last_step: int, **environment) -> dict:
    return {
        "started_at": "2026-01-01T00:00:00+00:00",
        "first_step": first_step,
        "last_step": last_step,
        "train_seconds": 1.0,
        "environment": make_environment(**environment),
    }


def test_the_first_steps_are_repeated_as_the_first_attempt_took_them(sources_here):
    attempts = [attempt(0, 347, n_threads=1), attempt(347, 500, n_threads=2, device_name="Another CPU")]
    (outcome,) = proved([old_record(environment={"n_threads": 2}, attempts=attempts)])
    assert (outcome.state, sources_here.asked[0][1]["n_threads"]) == ("proved", 1)


def test_first_steps_of_two_environments_cannot_be_repeated(sources_here):
    attempts = [attempt(0, 7, n_threads=1), attempt(7, 500, n_threads=2)]
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = [4.1] * 20
    (outcome,) = proved([old_record(attempts=attempts)])
    assert (outcome.state, outcome.proof.kind) == ("proved", "sources compared")


# on another kind ------------------------------------------------------------------------------------------------------

OTHER_KINDS = [
    {"instructions": "AVX512"},
    {"platform": "Darwin-arm64"},
    {"packages": {"torch": "2.11.0"}},
    {"device_name": "Another CPU"},
    H200,
]


@pytest.mark.parametrize("environment", OTHER_KINDS)
def test_another_kind_of_machine_never_refutes_a_record_but_compares_its_sources(sources_here, environment):
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = [4.1] * 20
    (outcome,) = proved([old_record(environment=environment)])
    assert (outcome.state, outcome.proof.kind) == ("proved", "sources compared")
    assert (outcome.proof.commit, outcome.proof.seed) == (COMMIT, 42)
    assert outcome.proof.first_train_nats == [4.1] * 20
    assert sources_here.who[-2:] == ["committed", "present"]
    assert [question["device"] for _, question in sources_here.asked] == ["cpu"] * len(sources_here.asked)


def test_another_processor_of_the_same_instructions_proves_it_where_the_bits_are_equal(sources_here):
    (outcome,) = proved([old_record(environment={"device_name": "Another CPU"})])
    assert (outcome.proof.kind, sources_here.who) == ("repeated", ["present"])


def test_another_model_of_gpu_compares_the_sources_on_the_cpu(sources_here):
    (outcome,) = proved([old_record(environment=H200)], machine(**(H200 | {"device_name": "NVIDIA H100"})))
    assert outcome.proof.kind == "sources compared"
    assert outcome.proof.environment.device == "cpu"
    assert {(question["device"], question["n_threads"]) for _, question in sources_here.asked} == {("cpu", 1)}


def test_one_seed_of_a_config_serves_all_its_seeds(sources_here):
    records = [old_record(seed, H200) for seed in (42, 69, 420)] + [old_record(42, H200, label="wide", context=512)]
    outcomes = proved(records)
    assert sources_here.who == ["committed", "present"] * 2
    assert {outcome.proof.run_id for outcome in outcomes} == {record.run_id for record in records}
    assert {outcome.proof.seed for outcome in outcomes} == {42}


OTHERS = [{"mode": "fast"}, {"sources": {"commit": "a1b2c3d", "dirty": False, "fingerprint": "9" * 64}}]


@pytest.mark.parametrize("changes", OTHERS)
def test_a_comparison_does_not_serve_another_mode_or_other_sources(sources_here, changes):
    proved([old_record(42, H200), old_record(69, H200, **changes)])
    assert sources_here.who.count("committed") == 2


def test_sources_that_give_other_losses_confirm_no_record(sources_here):
    sources_here.present["first_train_nats"] = [4.2] * 19 + [4.3]
    outcomes = proved([old_record(seed, H200) for seed in (42, 69)])
    assert [outcome.state for outcome in outcomes] == ["not confirmed"] * 2
    assert "the sources of its commit a1b2c3d00000 and the present ones differ" in outcomes[0].why


@pytest.mark.parametrize(
    ("made_by", "why"),
    [
        ({"commit": None, "dirty": None}, "names no commit"),
        ({"commit": "a1b2c3d", "dirty": True}, "made from edited files of commit a1b2c3d"),
        ({"commit": "1234567", "dirty": False}, "commit 1234567 is not in this repository"),
    ],
)
def test_sources_that_cannot_be_had_leave_a_record_and_say_why(sources_here, made_by, why):
    (outcome,) = proved([old_record(42, H200, sources={**made_by, "fingerprint": OLD})])
    assert (outcome.state, sources_here.asked) == ("left", [])
    assert why in outcome.why
    assert "NVIDIA H200" in outcome.why


def test_a_commit_with_other_sources_than_the_record_proves_nothing(sources_here):
    sources_here.committed["fingerprint"] = "d" * 64
    (outcome,) = proved([old_record(42, H200)])
    assert (outcome.state, sources_here.who) == ("left", ["committed"])
    assert "other sources made it than those of its commit" in outcome.why


def test_no_loss_on_either_side_proves_nothing(sources_here):
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = []
    (outcome,) = proved([old_record(42, H200)])
    assert outcome.state == "left"


@pytest.mark.parametrize("environment", [{}, H200])
def test_sources_edited_meanwhile_prove_nothing(sources_here, environment):
    sources_here.present["fingerprint"] = "9" * 64
    (outcome,) = proved([old_record(42, environment)])
    assert (outcome.state, outcome.proof) == ("left", None)
    assert "edited meanwhile" in outcome.why


# a counted model ------------------------------------------------------------------------------------------------------


def result_of(record: Record, **changes):
    assert record.result is not None
    return {"result": {**json.loads(record.result.model_dump_json()), **changes}}


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_counted_model_is_fitted_again_and_compared_whole(sources_here, mode):
    record = fitted(mode=mode)
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record)}
    (outcome,) = proved([record])
    assert (outcome.state, outcome.proof.kind, outcome.proof.first_train_nats) == ("proved", "repeated", [])
    assert sources_here.asked[0][1]["run"]["mode"] == "exact"
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record, parameters_sha256="1" * 64)}
    (outcome,) = proved([record])
    assert outcome.state == "not confirmed"


def test_what_an_older_fit_did_not_measure_is_no_difference(sources_here):
    record = fitted()
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record, permuted={"step": 0}, newer=1)}
    assert proved([record])[0].state == "proved"


def test_a_counted_model_of_another_machine_is_compared_where_its_numbers_differ(sources_here):
    record = fitted(environment={"instructions": "AVX512"})
    there = result_of(record, parameters_sha256="1" * 64)
    sources_here.present, sources_here.committed = {"fingerprint": FINGERPRINT, **there}, {"fingerprint": OLD, **there}
    (outcome,) = proved([record])
    assert (outcome.proof.kind, sources_here.who) == ("sources compared", ["present", "committed", "present"])


# which are stale, and what is shown of it -----------------------------------------------------------------------------


def compared(record: Record, **changes) -> Recheck:
    fields = {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "fingerprint": FINGERPRINT,
        "first_train_nats": LOSSES,
        "equal": True,
        "environment": make_environment(),
        "kind": "sources compared",
        "commit": COMMIT,
        "seed": 42,
    }
    return Recheck.model_validate(fields | changes)


def test_what_was_compared_elsewhere_is_repeated_where_that_is_possible():
    here, elsewhere, fresh = old_record(42), old_record(69, H200), make_record(seed=420)
    proofs = proofs_of([compared(here), compared(elsewhere)])
    assert stale([here, elsewhere, fresh], proofs, machine()) == [here]
    assert stale([here, elsewhere, fresh], {}, machine()) == [here, elsewhere]
    assert stale([elsewhere], proofs, machine(**H200)) == [elsewhere]


@pytest.mark.parametrize("environment", OTHER_KINDS)
@pytest.mark.parametrize("make", [old_record, fitted])
def test_what_only_a_comparison_can_prove_here_is_compared_once(make, environment):
    record = make(environment=environment)
    assert stale([record], proofs_of([compared(record)]), machine()) == []


def test_a_repetition_counts_for_more_than_a_comparison(tmp_path):
    record = old_record()
    both = [compared(record), compared(record, kind="repeated", commit=None, seed=None)]
    for order in (both, both[::-1]):
        assert standing(record, proofs_of(order)) == "repeated"
    store = make_store(tmp_path, [record])
    assert len({store.write_recheck(one) for one in both}) == 2  # neither takes the other's place
    assert read_results(store).experiments[0].compared == frozenset()


def test_a_proof_from_before_comparisons_is_a_repetition():
    proofs = [read(path, Recheck) for path in sorted(Path("results/rechecks").glob("*.json"))]
    assert proofs
    written = Path("results/rechecks").glob("*.json")
    assert all(read(path, Recheck).kind == "repeated" for path in written if b'"kind"' not in path.read_bytes())


def test_tables_mark_a_comparison_with_a_sign_of_its_own_and_no_dagger(tmp_path):
    records = [old_record(42), old_record(69), make_record(label="other", seed=42)]
    store = make_store(tmp_path, records)
    store.write_recheck(compared(records[0]))
    table = table_of(store)
    assert (cells(table)["n"], cells(table, 1)["n"]) == ("2 †‡", "1")
    store.write_recheck(compared(records[1]))
    table = table_of(store)
    assert cells(table)["n"] == "2 ‡"
    (note,) = [note for note in table.notes if note.startswith("‡")]
    assert "sources compared on another machine" in note
    assert "does not prove the compiled step" in note
    assert "compared" in explain(store, "laptop", "k_operators")
    assert not any(note.startswith("†") for note in table.notes)


# the command ----------------------------------------------------------------------------------------------------------


def test_the_bulk_command_proves_what_it_can_and_says_what_is_left(sources_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    edited = {"commit": "a1b2c3d", "dirty": True, "fingerprint": OLD}
    left = old_record(420, H200, sources=edited)
    records = [old_record(42), old_record(69, H200), make_record(seed=2137)]
    store = make_store(tmp_path, [*records, left])
    assert call(app, "recheck", "--stale", "--store", tmp_path) == 3
    output = capsys.readouterr().out
    assert "3 stale: 1 proved by repeating them, 1 by comparing sources, 0 not confirmed, 1 left" in output
    assert f"{left.file_name}: this machine cannot repeat it" in output
    assert output.startswith("to repeat here: 1 of 3; to prove by comparing sources: 2\n1/3 ")
    assert read_results(store).experiments[0].stale == {left.run_id}

    sources_here.asked.clear()
    (tmp_path / "runs" / left.file_name).unlink()
    assert call(app, "recheck", "--stale", "--store", tmp_path) == 0
    assert (capsys.readouterr().out, sources_here.asked) == ("no record is stale\n", [])


@pytest.mark.parametrize("how", ["one", "all"])
def test_a_record_that_is_not_confirmed_ends_with_1_and_no_proof(sources_here, tmp_path, monkeypatch, capsys, how):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    sources_here.present["first_train_nats"] = [4.3] * 20
    record = old_record()
    make_store(tmp_path, [record])
    path = tmp_path / "runs" / record.file_name
    assert call(app, "recheck", *([path] if how == "one" else ["--stale", "--store", tmp_path])) == 1
    assert "these sources do not confirm the record" in capsys.readouterr().out
    assert not (tmp_path / "rechecks").exists()


def test_a_record_of_the_present_sources_that_only_another_machine_can_repeat_needs_no_proof(
    sources_here, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    store = make_store(tmp_path, [make_record(fingerprint=FINGERPRINT, environment=make_environment(**H200))])
    assert call(app, "recheck", store.record_paths()[0]) == 0
    assert "the present sources made it" in capsys.readouterr().out
    assert sources_here.asked == []


@pytest.mark.parametrize("arguments", [[], ["x.json", "--stale"]])
def test_either_one_record_or_all_of_them(arguments, capsys):
    assert call(app, "recheck", *arguments) == 2
    assert "name one RECORD, or give --stale" in capsys.readouterr().err


def test_a_summary_counts_records_and_groups_what_is_left_by_its_reason(sources_here):
    unknown = {"commit": None, "dirty": None, "fingerprint": OLD}
    records = [old_record(seed, H200, sources=unknown) for seed in (1, 2)]
    told = summary(proved([old_record(), *records])).splitlines()
    assert len(told) == 2
    assert all(record.file_name in told[1] for record in records)


# real processes, real sources -----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the code in a repository of its own, which recheck takes for the present sources."""
    folder = tmp_path / "project"
    for room in ("bench", "models"):
        shutil.copytree(sources.ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "made the records")
    monkeypatch.setattr("bench.recheck.check.ROOT", folder)
    monkeypatch.setattr("bench.recheck.check.current_fingerprint", lambda name: fingerprint(name, folder))
    fingerprint.cache_clear()
    return folder


def edit(project: Path, old: str, new: str) -> None:
    path = project / "bench" / "train.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def records(project, tiny_run):
    """One record of this machine, and one that claims to be from another."""
    run, here = tiny_run(), this_machine(torch.device("cpu"), None)
    made_by = git(project, "rev-parse", "HEAD")[:7], fingerprint(run.config.architecture)
    losses = first_losses(run, load_corpus("synthetic", torch.device("cpu")), torch.device("cpu"), n_steps=3)
    made = old_record(
        config=to_json(run.config),
        corpus="synthetic",
        diagnostics={"first_train_nats": losses, "by_step": {}},
        sources={"commit": made_by[0], "dirty": False, "fingerprint": made_by[1]},
    )
    made = made.model_copy(update={"environment": here.environments["cpu"]})
    elsewhere = made.environment.model_copy(update={"instructions": "of another machine"})
    return [made, made.model_copy(update={"environment": elsewhere, "label": "elsewhere"})]


def test_an_edit_that_moves_no_number_is_proved_by_both_means(project, records):
    edit(project, "nats = trainer.advance()", "loss = trainer.advance()")
    edit(project, "math.isfinite(nats)", "math.isfinite(loss)")
    edit(project, "losses.append(nats)", "losses.append(loss)")
    outcomes = proved(records, this_machine(torch.device("cpu"), None))
    assert [outcome.proof and outcome.proof.kind for outcome in outcomes] == ["repeated", "sources compared"]
    assert git(project, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_an_edit_that_moves_a_number_is_found_by_both_means(project, records):
    edit(project, "scaled = rate * group", "scaled = 1.0001 * rate * group")
    outcomes = proved(records, this_machine(torch.device("cpu"), None))
    assert [outcome.state for outcome in outcomes] == ["not confirmed"] * 2


@pytest.mark.parametrize(
    ("death", "how"), [("os._exit(9)", "ended with exit code 9"), ("os.kill(os.getpid(), 9)", "was killed by SIGKILL")]
)
def test_a_process_that_dies_is_an_answer_and_the_next_run_has_a_new_one(death, how, tmp_path):
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "__init__.py").write_text("")
    (bench / "sources.py").write_text(f"import os, sys; print('no memory', file=sys.stderr, flush=True); {death}")
    found = []

    def ask(number, crew):
        try:
            return str(crew.ask(tmp_path, {}))
        except NoAnswer as error:
            return f"{number}: {error}"

    in_parallel([1, 2], 1, ask, found.append)
    assert sorted(found) == [f"{n}: the process that took its first steps {how}: no memory" for n in (1, 2)]


def test_a_folder_without_the_sources_is_not_served_by_others(tmp_path):
    crew = workers.Workers()
    with pytest.raises(NoAnswer, match="instead of those in"):
        crew.ask(tmp_path, {})
    crew.close()


def test_a_worker_ends_with_the_process_that_asks_also_in_the_middle_of_a_run(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    (tmp_path / "bench" / "sources.py").write_text("import time; print('at work', flush=True); time.sleep(1000)")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", workers.SCRIPT.read_text()]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("{}\n")
        process.stdin.flush()
        assert process.stderr.readline() == "at work\n"  # what the sources print is no answer
        process.stdin.close()
        assert process.wait(timeout=60) == 0
