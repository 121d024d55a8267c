"""The table of replications: second records of runs, from another time or machine, next to the first ones."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.record import NO_SEED, Record
from bench.report.notes import number
from bench.report.outside import Replication
from bench.report.statistics import perplexity, summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import signed

NOTES = (
    "A replication is a second record of a run: the same config, mode and seed, trained again. It is in no mean of "
    "other tables. Perplexities as in the table of perplexities; the difference is the replication minus the first.",
    "differs in: device, vector instructions, threads, torch and sources of the replication that differ from those of "
    "the first record.",
    "bits: equal: all evaluations and the final parameters are equal; first steps: only the losses of the first 20 "
    "steps are equal, which are computed in mode exact; differ: otherwise.",
)


def replications_table(experiment: str, found: Sequence[Replication]) -> Table | None:
    """One row per replication of an experiment, by arm, mode and seed; None if there are none."""
    here = sorted((one for one in found if one.experiment == experiment), key=_order)
    intro = "How much does a run differ from its first record when it is trained again?"
    return Table.of(experiment, "replications", intro, [_row(one) for one in here], [*NOTES, *_scatter(here)])


def _scatter(found: Sequence[Replication]) -> Iterator[str]:
    """A note per arm that was repeated on other vector instructions: the scatter beside that of its seeds."""
    arms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in found:
        ours, theirs = one.record.nats(), one.repeated.nats()
        instructions = one.record.environment.instructions, one.repeated.environment.instructions
        if ours is not None and theirs is not None and None not in instructions and len(set(instructions)) > 1:
            arms[one.label].append((ours, theirs))
    for label, pairs in arms.items():
        again = summarise([ours - theirs for ours, theirs in pairs])
        seeds = summarise([theirs for _, theirs in pairs])
        if again.sd is not None and seeds.sd is not None:
            yield (
                f"{label}, on other vector instructions: {signed(again.mean)} ± {again.sd:.4f} nats per token "
                f"(n = {again.n}); its seeds have a standard deviation of {seeds.sd:.4f}."
            )


def _order(one: Replication) -> tuple[str, str, int, str]:
    return one.label, one.record.mode, one.record.seed or 0, one.record.environment.device_name


def _row(one: Replication) -> dict[str, str]:
    new, first = one.record, one.repeated
    ours, theirs = new.nats(), first.nats()
    return {
        "arm": one.label,
        "mode": new.mode if new.seed is not None else NOTHING,
        "seed": NO_SEED if new.seed is None else str(new.seed),
        "differs in": _differs(new, first),
        "bits": _bits(new, first),
        "sweep, best, first record": _perplexity(first),
        "sweep, best, replication": _perplexity(new),
        "difference, nats per token": NOTHING if ours is None or theirs is None else signed(ours - theirs),
    }


def _perplexity(record: Record) -> str:
    """The best sweep perplexity, or the status of the run."""
    nats = record.nats()
    return record.status if nats is None else number(perplexity(nats))


def _bits(new: Record, first: Record) -> str:
    """Which part of two records is equal, bit for bit."""
    here, there = new.result, first.result
    if here and there and new.curve == first.curve and here.parameters_sha256 == there.parameters_sha256:
        return "equal"
    steps = new.diagnostics.first_train_nats
    return "first steps" if steps and steps == first.diagnostics.first_train_nats else "differ"


def _differs(new: Record, first: Record) -> str:
    """What of machine and sources differs from the first record; unknown values are left out."""
    ours, theirs = _circumstances(new), _circumstances(first)
    both = ((name, ours[name], theirs[name]) for name in ours)
    texts = (name.format(here) for name, here, there in both if None not in (here, there) and here != there)
    return "; ".join(texts) or "nothing"


def _circumstances(record: Record) -> dict[str, str | int | None]:
    """What may change the bits of a run, by how it is written in the table."""
    environment = record.environment
    return {
        "{}": environment.device_name,
        "{} instructions": environment.instructions,
        "{} threads": environment.n_threads,
        "torch {}": environment.packages.get("torch"),
        "sources {:.8}": record.sources.fingerprint,
    }
