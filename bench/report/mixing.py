"""Refuses means over runs that must not be mixed: of one seed twice, of two modes, corpora, protocols or configs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from bench.dotted import differing
from bench.errors import UserError
from bench.record import Manifest, Record

FITTED = "fitted"  # instead of a seed, for models that are counted and not trained


class MixedRunsError(UserError):
    """Records that must not be in one mean; the message names them and what to do."""


def refuse_mixed_runs(where: str, records: Sequence[Record]) -> None:
    """MixedRunsError if the records of a cell differ in more than their seed, or two have the same seed."""
    _refuse_duplicate_seeds(where, records)
    _refuse_mixed(where, records, "modes", lambda record: record.mode)
    _refuse_mixed(where, records, "corpora", lambda record: f"{record.corpus.name} ({record.corpus.sha256[:12]})")
    _refuse_mixed(where, [r for r in records if r.result is not None], "protocols", _protocol_text)
    _refuse_mixed_configs(where, records)


def _refuse_duplicate_seeds(where: str, records: Sequence[Record]) -> None:
    for record in records:
        same = [other for other in records if other.seed == record.seed]
        if len(same) > 1:
            raise MixedRunsError(
                f"{where}: {len(same)} records of seed {seed_text(record)} would count as {len(same)} seeds "
                f"({_names(same)}); launch the experiment again with distinct seeds"
            )


def _refuse_mixed(where: str, records: Sequence[Record], what: str, kind: Callable[[Record], str]) -> None:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[kind(record)].append(record)
    if len(groups) > 1:
        text = "; ".join(f"{key}: {_names(group)}" for key, group in sorted(groups.items()))
        raise MixedRunsError(f"{where}: one mean cannot mix {what} ({text}); launch the experiment again with one")


def _refuse_mixed_configs(where: str, records: Sequence[Record]) -> None:
    """Runs of a cell differ only in seed. A field missing in an older record is no difference: it had its default."""
    for record in records[1:]:
        key = next(iter(differing(records[0].config, record.config)), None)
        if key is not None:
            raise MixedRunsError(
                f"{where}: one mean cannot mix configs: {_names([records[0], record])} differ in {key}; "
                "launch the experiment again to renew its manifest"
            )


def refuse_ambiguous_names(manifests: Sequence[Manifest]) -> None:
    """MixedRunsError if a name cannot be a file name, or two manifests have the same name and mode."""
    for manifest in manifests:
        if not manifest.name.replace("-", "").replace("_", "").isalnum():
            raise MixedRunsError(f"experiment {manifest.name!r}: a name is letters, digits, '-' and '_'; rename it")
    counts = Counter((manifest.name, manifest.mode) for manifest in manifests)
    twice = [f"are named {name} and of mode {mode}" for (name, mode), count in counts.items() if count > 1]
    if twice:
        raise MixedRunsError(f"two manifests in experiments/ {twice[0]}; keep one of them")


def protocol_of(record: Record) -> tuple[int, int, int, int, int]:
    """How a done record was measured: protocol version, context, predictions by the three protocols."""
    assert record.result is not None
    results = (record.result.sweep, record.result.sampled, record.result.strided)
    sweep, sampled, strided = (result.best.n_tokens for result in results)
    return record.protocol_version, int(record.config.get("context", 0)), sweep, sampled, strided


def measured_alike(one: Record, other: Record) -> bool:
    """Whether two done records were measured on the same text by the same protocols."""
    texts = [(record.corpus.name, record.corpus.sha256) for record in (one, other)]  # folds share a sha256
    return texts[0] == texts[1] and protocol_of(one) == protocol_of(other)


def _protocol_text(record: Record) -> str:
    _, context, sweep, sampled, strided = protocol_of(record)
    return f"context {context} with {sweep} sweep, {sampled} sampled and {strided} strided predictions"


def seed_text(record: Record) -> str:
    """The seed of a record as text; `fitted` if it has none."""
    return FITTED if record.seed is None else str(record.seed)


def _names(records: Sequence[Record]) -> str:
    return ", ".join(sorted(record.file_name for record in records))
