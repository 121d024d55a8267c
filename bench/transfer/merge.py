"""Records of another machine merged into a store: checked, copied byte for byte, nothing overwritten.

First every source is read and every file of it checked; then valid files are written. The folder is the origin:
`runs/` is ours, `contributed/` what others made, `replications/` a second record of a run that is there already.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.config import PROTOCOL_VERSION, Run, read_config, to_json
from bench.corpora import CORPORA
from bench.dotted import dotted
from bench.errors import AlreadyDone, ConfigError, RecordError, UserError, clean, count
from bench.files import write_once
from bench.record import FINAL_STATUSES, Manifest, Recheck, Record, parse, seal_of
from bench.store import ORIGINS, THROUGHPUT, Store, ThroughputError, parse_throughput
from bench.transfer.archive import ArchiveError, Member, check_sources, read_source

OURS, CONTRIBUTED, REPLICATIONS = ORIGINS
RECHECK_NAME = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}(-[a-z]+)?\.json")
MAX_LINES = 100  # of refusals that are printed


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checked record: the facts that determine its place in a store, and its bytes."""

    where: str  # for messages
    folder: str  # of its source
    content: bytes
    run: Run
    run_id: str
    seal: str  # sha256, equal for equal bytes
    status: str
    started_at: str  # of its first attempt; empty where none is known
    file_name: str
    commit: str | None
    dirty: bool | None
    first_train_nats: tuple[float, ...]
    first_portable_train_nats: tuple[float, ...]

    @property
    def is_result(self) -> bool:
        """Whether it is final: done or diverged."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A record that the store has."""

    origin: str  # one of ORIGINS
    path: Path
    seal: str
    status: str


@dataclass(frozen=True, kw_only=True)
class New:
    """A file that goes into the store."""

    folder: str
    name: str
    content: bytes
    record: Candidate | None = None  # None: a recheck, or measurements of throughput
    repeats: str | None = None  # of a replication: the record that is there already


@dataclass(kw_only=True)
class Merged:
    """The result of a merge: the files taken, those already there, and those not taken with the reason."""

    new: list[New] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    records: list[Candidate] = field(default_factory=list)  # all that the store has now, whether new or not
    manifests: list[Manifest] = field(default_factory=list)  # of the sources; none is copied

    def count_in(self, folder: str) -> int:
        """The number of new files in a folder of the store."""
        return sum(one.folder == folder for one in self.new)


def merge(sources: Sequence[Path], store: Store, *, contributed: bool = False) -> Merged:
    """Copy the valid files of `sources` into `store`. Nothing is written before all sources were read and checked."""
    check_sources(list(sources))
    merged = Merged()
    candidates: list[Candidate] = []
    others: list[Member] = []
    for source in sources:
        try:
            _read(source, candidates, others, merged)
        except ArchiveError as error:
            merged.refused.append(str(error))
    standing = _standing(store, merged)
    _place_records(candidates, standing, merged, contributed=contributed)
    ours = _seals_of_ours(standing, merged.new)
    for member in others:
        _place_other(member, candidates, ours, store, merged, contributed=contributed)
    _write(store, merged)
    return merged


# --- reading and checking ---


def _read(source: Path, candidates: list[Candidate], others: list[Member], merged: Merged) -> None:
    """Check every file of a source. ArchiveError where none of them may be taken; then none is."""
    found: list[Candidate] = []
    beside: list[Member] = []
    left = Merged()
    for one in read_source(source):
        if not isinstance(one, Member):
            (left.refused if one.refused else left.skipped).append(f"{one.where}: {one.why}")
        elif one.folder in ORIGINS:
            try:
                found.append(check_record(one))
            except UserError as error:
                left.refused.append(str(error))
        else:
            beside.append(one)
    if not found and not beside and not left.refused:
        left.refused.append(f"{source}: holds no record; name a store, or the folder that the records lie in")
    candidates += found
    others += beside
    merged.refused += left.refused
    merged.skipped += left.skipped


def check_record(member: Member) -> Candidate:
    """The record in a file. RecordError with the reason where this suite would not have written it."""
    record = parse(member.content, member.where, Record)
    try:
        run = Run(
            label=record.label,
            config=read_config(record.config),
            seed=record.seed,
            mode=record.mode,
            replicate=record.replicate,
        )
        run_id = run.run_id
    except (ConfigError, ValueError, TypeError, ArithmeticError) as error:  # what a config raises that makes no sense
        raise RecordError(f"{member.where}: its config is not one of this suite's: {error}") from error
    facts = CORPORA[run.config.corpus]
    ours, theirs = dotted(to_json(run.config)), dotted(record.config)
    for right, what in (
        (record.protocol_version == PROTOCOL_VERSION, f"protocol {record.protocol_version}, not {PROTOCOL_VERSION}"),
        (record.corpus.name == run.config.corpus, f"corpus {record.corpus.name[:40]!r}, but its config names another"),
        (record.corpus.sha256 == facts.sha256, f"a {run.config.corpus} whose sha256 is not the pinned one"),
        (record.corpus.vocab_size == facts.vocab_size, f"{record.corpus.vocab_size} characters, not the corpus's"),
        (record.run_id == run_id, f"run id {record.run_id[:40]!r}, but its config and seed give {run_id}"),
        (all(ours.get(key) == value for key, value in theirs.items()), "a config with values of other types"),
        ((record.status == "done") == (record.result is not None), f"status {record.status} against its result"),
    ):
        if not right:
            raise RecordError(f"{member.where}: holds {what}; merge records as they were written")
    return Candidate(
        where=member.where,
        folder=member.folder,
        content=member.content,
        run=run,
        run_id=run_id,
        seal=seal_of(member.content),
        status=record.status,
        started_at=record.attempts[0].started_at if record.attempts else "",
        file_name=record.file_name,
        commit=record.sources.commit,
        dirty=record.sources.dirty,
        first_train_nats=tuple(record.diagnostics.first_train_nats),
        first_portable_train_nats=tuple(record.diagnostics.first_portable_train_nats),
    )


def _standing(store: Store, merged: Merged) -> dict[str, list[Standing]]:
    """The records that the store has, by run id, ours first. One that cannot be read counts as refused."""
    found: dict[str, list[Standing]] = defaultdict(list)
    for origin in ORIGINS:
        for path in sorted((store.root / origin).glob("*.json")):
            try:
                content = path.read_bytes()
                record = parse(content, path, Record)
            except RecordError as error:
                merged.refused.append(str(error))
                continue
            seal = seal_of(content)
            found[record.run_id].append(Standing(origin=origin, path=path, seal=seal, status=record.status))
    return found


# --- where each goes ---


def _place_records(
    candidates: Iterable[Candidate], standing: dict[str, list[Standing]], merged: Merged, *, contributed: bool
) -> None:
    """Assign each record its folder: that of its origin, or replications/ where its run is there already."""
    placed = {run_id: list(there) for run_id, there in standing.items()}
    for one in sorted(candidates, key=_precedence):
        there = placed.setdefault(one.run_id, [])
        origin = CONTRIBUTED if contributed or one.folder == CONTRIBUTED else OURS
        # a record of ours does not repeat one that others made: it is the run's first here
        first = next((has for has in there if has.origin in (OURS, origin)), None)
        if any(has.seal == one.seal for has in there):
            merged.already.append(one.where)
            merged.records.append(one)
            continue
        if first is not None and not one.is_result:
            merged.refused.append(f"{one.where}: ended as {one.status}, and {_told(first)} is there already")
            continue
        if first is not None and first.status not in FINAL_STATUSES:
            aside = "move that file out of the store, and merge again"
            merged.refused.append(f"{one.where}: {_told(first)} is there, which ended as {first.status}; {aside}")
            continue
        folder, name, repeats = origin, one.file_name, None
        if first is not None:
            folder, repeats = REPLICATIONS, _told(first)
            name = f"{one.file_name.removesuffix('.json')}-{one.seal[:8]}.json"
        there.append(Standing(origin=folder, path=Path(folder) / name, seal=one.seal, status=one.status))
        merged.new.append(New(folder=folder, name=name, content=one.content, record=one, repeats=repeats))
        merged.records.append(one)


def _precedence(one: Candidate) -> tuple[int, bool, bool, str, str, str]:
    """Choose one of several records of a run: the one that was started first, if it has a result.

    So the order in which sources are named does not matter. A record of `paper` was made before the replicate of
    `noise` that has its id. The seal decides between two without a start time.
    """
    return ORIGINS.index(one.folder), not one.is_result, not one.started_at, one.started_at, one.file_name, one.seal


def _told(one: Standing) -> str:
    return f"{one.path.parent.name}/{one.path.name}"


def _seals_of_ours(standing: dict[str, list[Standing]], new: Iterable[New]) -> dict[str, str]:
    """The seal of each run's record in runs/, as it will be, by run id."""
    there = {run_id: one.seal for run_id, has in standing.items() for one in has if one.origin == OURS}
    return there | {one.record.run_id: one.record.seal for one in new if one.record and one.folder == OURS}


def _place_other(
    member: Member,
    candidates: Iterable[Candidate],
    ours: dict[str, str],
    store: Store,
    merged: Merged,
    *,
    contributed: bool,
) -> None:
    """A recheck, measurements of throughput or a manifest."""
    if contributed:
        merged.skipped.append(f"{member.where}: of contributed files, only records are taken")
        return
    try:
        if member.folder == "experiments":
            merged.manifests.append(parse(member.content, member.where, Manifest))
            return
        if member.folder == THROUGHPUT:
            parse_throughput(member.content, Path(member.where))
        else:
            recheck = parse(member.content, member.where, Recheck)
            _check_recheck_name(recheck, member)
            # a proof is of one record, not of another record of the same run
            proved = [one for one in candidates if one.run_id == recheck.run_id and one.seal == ours.get(one.run_id)]
            if not proved:
                merged.skipped.append(f"{member.where}: the record that it proves is not the one in runs/")
                return
            _check_recheck(recheck, proved[0], member)
    except (RecordError, ThroughputError) as error:
        merged.refused.append(str(error))
        return
    name = member.name
    there = store.root / member.folder / name
    same_place = (one.content for one in merged.new if (one.folder, one.name) == (member.folder, name))
    content = there.read_bytes() if there.exists() else next(same_place, None)
    if content is None:
        merged.new.append(New(folder=member.folder, name=name, content=member.content))
    elif content == member.content:
        merged.already.append(member.where)
    elif member.folder == THROUGHPUT:
        merged.refused.append(f"{member.where}: {there} is there, of other measurements; rename the new file")
    else:
        merged.skipped.append(f"{member.where}: a proof under the same sources is there already")


def _check_recheck_name(recheck: Recheck, member: Member) -> None:
    """RecordError where the name of its file is not of its run and its sources, or leads elsewhere."""
    right = f"{recheck.run_id}-{recheck.fingerprint[:12]}"
    if not RECHECK_NAME.fullmatch(member.name) or not member.name.startswith(right):
        raise RecordError(
            f"{member.where}: is not called after its run and its sources; merge files as they were written"
        )


def _check_recheck(recheck: Recheck, record: Candidate, member: Member) -> None:
    """RecordError where the values of a recheck do not prove the record."""
    proves = {
        "repeated": tuple(recheck.first_train_nats) == record.first_train_nats,
        "portable": tuple(recheck.first_train_nats) == record.first_portable_train_nats != (),
        "sources compared": (recheck.commit or "").startswith(record.commit or "no commit"),
    }
    if not recheck.equal or not proves[recheck.kind]:
        raise RecordError(f"{member.where}: does not prove the record of its run; recheck that here")


def _write(store: Store, merged: Merged) -> None:
    """Write the new files to the store. Existing files, also unreadable ones, are not replaced."""
    if merged.new:
        store.check_writable()
    for one in list(merged.new):
        try:
            write_once(store.root / one.folder / one.name, one.content)
        except AlreadyDone:
            merged.new.remove(one)
            where = one.record.where if one.record else one.name
            taken = store.root / one.folder / one.name
            merged.refused.append(f"{where}: {taken} is there, of other content; move it away, and merge again")
            if one.record:
                merged.records.remove(one.record)


# --- messages ---


def summary(merged: Merged, store: Store) -> Iterator[str]:
    """Lines on the records taken by arm, those already there and those skipped."""
    n_records = sum(one.record is not None for one in merged.new)
    if not merged.new:
        there = f": {count(len(merged.already), 'file')} were there already" if merged.already else ""
        yield f"nothing new for {store.root}{there}"
    else:
        there = f"; {count(len(merged.already), 'file')} were there already" if merged.already else ""
        yield f"{count(n_records, 'record')} taken into {store.root}{there}"
    for folder in dict.fromkeys(one.folder for one in merged.new):
        yield f"  {folder}/: {merged.count_in(folder)} new"
        if folder in ORIGINS:
            yield from (f"    {clean(line)}" for line in _arms([one for one in merged.new if one.folder == folder]))
    alike: dict[str, list[str]] = defaultdict(list)
    for line in merged.skipped:
        alike[line.rpartition(": ")[2]].append(line)
    for lines in alike.values():
        yield f"  skipped: {clean(lines[0])}" + (f" (and {len(lines) - 1:,} more files)" if len(lines) > 1 else "")


def refusals(merged: Merged) -> Iterator[str]:
    """Lines on the refused files with the reason, MAX_LINES at most."""
    yield from (f"refused: {clean(line)}" for line in merged.refused[:MAX_LINES])
    if len(merged.refused) > MAX_LINES:
        yield f"refused: {len(merged.refused) - MAX_LINES:,} more files"


def _arms(new: Sequence[New]) -> Iterator[str]:
    """`k_operators, fast: seeds 42, 69`; of a replication also the record that it repeats."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for one in new:
        assert one.record is not None
        run, repeats = one.record.run, f" (repeats {one.repeats})" if one.repeats else ""
        if run.seed is None:
            yield f"{run.label}, counted{repeats}"
        else:
            seeds[f"{run.label}, {run.mode}"].append(f"{run.seed}{repeats}")
    for arm, found in seeds.items():
        yield f"{arm}: seed{'' if len(found) == 1 else 's'} {', '.join(sorted(found, key=_seed_order))}"


def _seed_order(seed: str) -> tuple[int, str]:
    return len(seed.partition(" ")[0]), seed
