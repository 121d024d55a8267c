"""Verifying records of older sources under the current sources: `recheck`.

On a machine of the kind that made a record, its first steps are repeated. On any other, those under portable settings,
if the record has such; else the sources are compared: those of its commit and the present ones both take the first
steps of its config, here.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch

from bench.corpora import CORPORA
from bench.environment import describe_machine
from bench.errors import ConfigError
from bench.fetch import find_text
from bench.portable import SETTINGS, is_portable
from bench.process import count_cores
from bench.recheck.workers import NoAnswer, Workers, in_parallel
from bench.record import SCHEMA_VERSION, Environment, Recheck, Record
from bench.sources import ROOT, Proofs, current_fingerprint, standing
from bench.store import Store
from bench.train import N_FIRST
from bench.worktree import full_commit, stop_signals_raise, worktree

Tell = Callable[["Outcome"], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result for one record, with the reason; `proof` where it is proved."""

    record: Record
    state: Literal["proved", "not confirmed", "left", "cannot tell"]  # the last: by repeating it, on this machine
    why: str
    proof: Recheck | None = None


@dataclass(frozen=True, kw_only=True)
class RecheckMachine:
    """The machine of the first steps: its devices and their environments by kind, cpu or cuda, and the corpora."""

    devices: dict[str, str]
    environments: dict[str, Environment]
    data_dir: Path | None


@dataclass(frozen=True, kw_only=True)
class SourceComparison:
    """Records of one config and commit, of which one seed is run by the sources of both; `folder` has the commit's."""

    commit: str  # 40 digits
    folder: Path
    records: tuple[Record, ...]
    n_threads: int


def this_machine(device: torch.device | None, data_dir: Path | None) -> RecheckMachine:
    """This machine: its processor, and the GPU that was named, or any where nothing was named."""
    gpu = device or torch.device("cuda")
    use_gpu = gpu.type == "cuda" and torch.cuda.is_available()
    devices = [torch.device("cpu"), *([gpu] if use_gpu else [])]
    return RecheckMachine(
        devices={each.type: str(each) for each in devices},
        environments={each.type: describe_machine(each) for each in devices},
        data_dir=data_dir.resolve() if data_dir else None,
    )


def stale(records: Sequence[Record], proofs: Proofs, machine: RecheckMachine) -> list[Record]:
    """The records without a proof, and those proved only by comparing sources that this machine can repeat."""
    return [
        record
        for record in records
        if (why := standing(record, proofs)) is None or (why == "sources compared" and like_its_own(record, machine))
    ]


def began_on(record: Record) -> Environment:
    """The environment that took a record's first steps: a run may have continued in another."""
    return record.attempts[0].environment if record.attempts else record.environment


def other_kind(record: Record, machine: RecheckMachine) -> list[str]:
    """Why this machine is not of the kind that made a record, so that equal bits are not guaranteed."""
    then = began_on(record)
    if any(then.changes(one.environment) for one in record.attempts if one.first_step < N_FIRST):
        return ["its first steps were taken in more than one environment"]
    now = machine.environments.get(then.device)
    if now is None:
        return [f"it was made on {then.device} ({then.device_name}), which is not used here"]
    what = ["platform", "instructions", *(["device_name", "cuda"] if then.device == "cuda" else [])]
    before, after = then.model_dump(include=set(what)), now.model_dump(include=set(what))
    before["torch"], after["torch"] = then.packages.get("torch"), now.packages.get("torch")
    before |= {} if then.settings is None else dict.fromkeys(now.settings or {}) | then.settings
    after |= {name: (now.settings or {}).get(name) for name in before if name not in after}
    keys = [key for key in before if not key.endswith("_NUM_THREADS")]  # it is set for each repetition
    return [f"{key}: {before[key]} then, {after[key]} now" for key in keys if before[key] != after[key]]


def like_its_own(record: Record, machine: RecheckMachine) -> bool:
    """Whether this machine is so similar to that of a record that other bits are due to the sources."""
    then = began_on(record)
    now = machine.environments.get(then.device)
    return now is not None and not other_kind(record, machine) and now.device_name == then.device_name


def can_repeat(record: Record, machine: RecheckMachine) -> bool:
    """Whether to try it: a fitted model on any machine, since equal bits are a proof anywhere."""
    if record.seed is None:
        return record.result is not None
    if other_kind(record, machine):
        return bool(record.diagnostics.first_portable_train_nats) and is_portable()
    return bool(record.diagnostics.first_train_nats)


def prove_in(
    store: Store, records: Sequence[Record], machine: RecheckMachine, n_workers: int | None, say: Callable[[str], None]
) -> list[Outcome]:
    """As `prove`; writes each proof to the store at once, and prints a line per record."""
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        where = ""
        if outcome.proof is not None:
            written = store.write_recheck(outcome.proof)
            where = f"; proof in {written.parent.name}/{written.name}"
        say(f"{len(outcomes)}/{len(records)} {outcome.record.file_name}: {outcome.why}{where}")

    if records:
        store.check_writable()
        n_repeatable = sum(can_repeat(record, machine) for record in records)
        n_others = len(records) - n_repeatable
        say(f"to repeat here: {n_repeatable} of {len(records)}; to prove by comparing sources: {n_others}")
    prove(records, machine, n_workers, tell)
    return outcomes


def prove(records: Sequence[Record], machine: RecheckMachine, n_workers: int | None, tell: Tell) -> None:
    """Prove records by the means that this machine has, several at a time, and report each result as it comes.

    `n_workers` None: as many as the cores carry at the records' number of threads. CorpusError where a text is missing.
    """
    for name in sorted({record.corpus.name for record in records}):
        if name in CORPORA and CORPORA[name].path is not None:
            find_text(name, machine.data_dir)  # once, before several processes look for it
    by_machine = defaultdict(list)
    for record in records:
        by_machine[can_repeat(record, machine)].append(record)
    to_compare = by_machine[False]

    def tell_repeated(outcome: Outcome) -> None:
        if outcome.state == "cannot tell":
            to_compare.append(outcome.record)
        else:
            tell(outcome)

    def tell_compared(outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            tell(outcome)

    with stop_signals_raise():
        to_repeat = sorted(by_machine[True], key=lambda record: (began_on(record).n_threads, record.file_name))
        for n_threads, group in groupby(to_repeat, key=lambda record: began_on(record).n_threads):
            n_at_once = n_workers or max(count_cores() // n_threads, 1)
            in_parallel(list(group), n_at_once, partial(repeat, machine=machine), tell_repeated)
        with ExitStack() as folders:
            comparisons = plan(to_compare, machine, folders, tell)
            for n_threads, several in groupby(comparisons, key=lambda one: one.n_threads):
                n_at_once = n_workers or max(count_cores() // n_threads, 1)
                in_parallel(list(several), n_at_once, partial(compare, machine=machine), tell_compared)


def repeat(record: Record, workers: Workers, machine: RecheckMachine) -> Outcome:
    """Repeat a record's first steps with the current sources, or fit its model again, and compare."""
    if record.seed is not None and other_kind(record, machine):
        return repeat_portably(record, workers, machine)
    then = began_on(record)
    device = then.device if then.device in machine.environments else "cpu"
    n_threads = then.n_threads
    n_steps = len(record.diagnostics.first_train_nats)
    try:
        answer = _ask(workers, ROOT, _question(record, device, n_threads, n_steps, machine))
    except NoAnswer as error:
        return Outcome(record=record, state="left", why=str(error))
    recorded = {"first_train_nats": record.diagnostics.first_train_nats}
    if record.seed is None:
        assert record.result is not None
        recorded = {"result": json.loads(record.result.model_dump_json())}
    if _equal(recorded, answer):
        proof = _proof(record, answer, machine.environments[device], n_threads)
        what = f"{n_steps} losses" if record.seed is not None else "every number of a second fit"
        return Outcome(record=record, state="proved", why=f"repeated: {what} equal, bit for bit", proof=proof)
    if not like_its_own(record, machine):
        if record.diagnostics.first_portable_train_nats and is_portable():
            return repeat_portably(record, workers, machine)
        return Outcome(record=record, state="cannot tell", why="another kind of machine made it")
    why = f"not equal: {_gap(recorded, answer)}; these sources do not confirm the record"
    return Outcome(record=record, state="not confirmed", why=why)


def repeat_portably(record: Record, workers: Workers, machine: RecheckMachine) -> Outcome:
    """Repeat a record's first steps under portable settings with the current sources, and compare."""
    recorded = {"first_train_nats": record.diagnostics.first_portable_train_nats}
    n_steps = len(recorded["first_train_nats"])
    try:
        answer = _ask(workers, ROOT, _question(record, "cpu", 1, n_steps, machine), SETTINGS)
    except NoAnswer as error:
        return Outcome(record=record, state="left", why=str(error))
    if not _equal(recorded, answer):
        why = f"not equal under portable settings: {_gap(recorded, answer)}; these sources do not confirm the record"
        return Outcome(record=record, state="not confirmed", why=why)
    why = f"portable: {n_steps} losses under portable settings equal, bit for bit"
    proof = _proof(record, answer, machine.environments["cpu"], 1).model_copy(update={"kind": "portable"})
    return Outcome(record=record, state="proved", why=why, proof=proof)


def plan(records: Sequence[Record], machine: RecheckMachine, folders: ExitStack, tell: Tell) -> list[SourceComparison]:
    """The comparisons that serve these records, with the folders of their commits; reports each record without one."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        try:
            commit = _commit_of(record)
        except ConfigError as error:
            kind = "; ".join(other_kind(record, machine)) or "the processor may differ"
            why = (
                f"this machine cannot repeat it ({kind}), and its sources cannot be compared: {error}; "
                "recheck it on a machine of its kind"
            )
            tell(Outcome(record=record, state="left", why=why))
            continue
        config = json.dumps(record.config, sort_keys=True)
        groups[commit, record.sources.fingerprint, record.mode, config].append(record)
    by_commit: dict[str, Path] = {}
    comparisons = []
    for (commit, *_), group in sorted(groups.items()):
        if commit not in by_commit:
            by_commit[commit] = folders.enter_context(worktree(commit, ROOT))
        comparisons.append(
            SourceComparison(
                commit=commit,
                folder=by_commit[commit],
                records=tuple(sorted(group, key=lambda record: (record.seed or 0, record.file_name))),
                n_threads=min(then.n_threads if then.device == "cpu" else 1 for then in map(began_on, group)),
            )
        )
    return sorted(comparisons, key=lambda one: one.n_threads)  # stable: one commit after another


def compare(comparison: SourceComparison, workers: Workers, machine: RecheckMachine) -> list[Outcome]:
    """Take the first steps of one seed with the commit's and with the current sources: one proof for each record.

    It proves the sources, not the machine that made the records, nor the compiled step of `fast`.
    """
    record, commit = comparison.records[0], comparison.commit[:12]
    asked = _question(record, "cpu", comparison.n_threads, N_FIRST, machine)

    def outcomes(state: Literal["not confirmed", "left"], why: str) -> list[Outcome]:
        return [Outcome(record=one, state=state, why=why) for one in comparison.records]

    try:
        before = workers.ask(comparison.folder, asked)
        if before["fingerprint"] != record.sources.fingerprint:
            return outcomes("left", f"other sources made it than those of its commit {commit}")
        after = _ask(workers, ROOT, asked)
    except NoAnswer as error:
        return outcomes("left", str(error))
    if before.get("first_train_nats") == []:
        return outcomes("left", "its first loss is not finite, so there is nothing to compare")
    if not _equal(before, after):
        why = f"not equal: run here, the sources of its commit {commit} and the present ones differ: "
        return outcomes("not confirmed", why + _gap(before, after))
    what = f"{len(after['first_train_nats'])} losses" if record.seed is not None else "every number of a fit"
    of = "" if record.seed is None else f" of seed {record.seed}"
    why = f"sources compared: {what}{of}, by those of commit {commit} and the present ones, equal, bit for bit"
    by_comparison = {"kind": "sources compared", "commit": comparison.commit, "seed": record.seed}

    def proof(one: Record) -> Recheck:
        return _proof(one, after, machine.environments["cpu"], comparison.n_threads).model_copy(update=by_comparison)

    return [Outcome(record=one, state="proved", why=why, proof=proof(one)) for one in comparison.records]


def summary(outcomes: Sequence[Outcome]) -> str:
    """A summary: the number of stale records proved in each way, and those left, by reason."""
    if not outcomes:
        return "no record is stale"
    kinds = Counter(outcome.proof.kind for outcome in outcomes if outcome.proof is not None)
    n_refuted = sum(outcome.state == "not confirmed" for outcome in outcomes)
    text = (
        f"{len(outcomes)} stale: {kinds['repeated'] + kinds['portable']} proved by repeating them, "
        f"{kinds['sources compared']} by comparing sources, {n_refuted} not confirmed, "
        f"{len(outcomes) - kinds.total() - n_refuted} left"
    )
    by_reason: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.state != "proved":
            by_reason[outcome.why].append(outcome.record.file_name)
    return "\n".join([text, *(f"  {', '.join(sorted(names))}: {why}" for why, names in sorted(by_reason.items()))])


def _proof(record: Record, answer: dict[str, Any], environment: Environment, n_threads: int) -> Recheck:
    """A proof that the current sources gave the same numbers."""
    return Recheck(
        schema_version=SCHEMA_VERSION,
        run_id=record.run_id,
        fingerprint=answer["fingerprint"],
        first_train_nats=answer.get("first_train_nats", []),
        equal=True,
        environment=environment.model_copy(update={"n_threads": n_threads}),
    )


def _commit_of(record: Record) -> str:
    """The commit whose sources made a record. ConfigError where it is unknown, edited or not here."""
    if record.sources.commit is None:
        raise ConfigError("the record names no commit")
    if record.sources.dirty:
        raise ConfigError(f"the record was made from edited files of commit {record.sources.commit[:12]}")
    return full_commit(record.sources.commit, ROOT)


def _question(record: Record, device: str, n_threads: int, n_steps: int, machine: RecheckMachine) -> dict[str, Any]:
    run = {key: getattr(record, key) for key in ("label", "seed", "mode", "replicate", "config")}
    return {
        "run": run if record.seed is not None else {**run, "mode": "exact"},  # a fitted model has none
        "device": machine.devices[device],
        "n_threads": n_threads,
        "n_steps": n_steps,
        "data_dir": str(machine.data_dir) if machine.data_dir else None,
    }


def _ask(
    workers: Workers, folder: Path, question: dict[str, Any], settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer of the current sources; NoAnswer where they have changed since this process started."""
    answer = workers.ask(folder, question, settings)
    if answer["fingerprint"] != current_fingerprint(question["run"]["config"].get("architecture")):
        raise NoAnswer("the sources were edited meanwhile; run the same command again")
    return answer


def _equal(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the numbers have the same bits. Of a fitted model: those that both have."""
    if "result" not in before:
        return bool(before["first_train_nats"] == after["first_train_nats"])
    both = before["result"].keys() & after["result"].keys()
    pairs = [(before["result"][key], after["result"][key]) for key in both]
    return all(one == other for one, other in pairs if one is not None and other is not None)


def _gap(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The difference of the numbers as text."""
    if "result" in before:
        return "a number of the fitted model differs"
    pairs = zip(before["first_train_nats"], after["first_train_nats"], strict=False)
    largest = max((abs(one - other) for one, other in pairs), default=float("nan"))
    return f"the first losses differ by up to {largest:.2e} nats"
