"""Records with the run id of their config, and archives of all kinds, for tests of pack and merge."""

import io
import tarfile
from pathlib import Path
from typing import Any

from bench.config import PROTOCOL_VERSION, Run, to_json
from bench.corpora import CORPORA
from bench.experiments import paper, smoke
from bench.record import CorpusFacts, Record, to_bytes
from tests.records import make_record


def run_of(label: str = "k_operators", seed: int | None = 42, **changes: Any) -> Run:
    """A run of `smoke`; nothing is trained."""
    cell = next(one for one in smoke().cells if one.label == label)
    return Run(**{"label": label, "config": cell.config, "seed": seed, "mode": "exact", **changes})


def run_of_paper(seed: int = 42, **changes: Any) -> Run:
    """A run of K-Operators of `paper`, mode fast."""
    return Run(**{"label": "k_operators", "config": paper().cells[0].config, "seed": seed, "mode": "fast", **changes})


def record_of(run: Run, perplexity: float = 4.5, *, started_at: str | None = None, **changes: Any) -> Record:
    """A record of a run, as the suite could have written it."""
    facts = CORPORA[run.config.corpus]
    record = make_record(
        run.label,
        run.seed,
        perplexity,
        run_id=run.run_id,
        replicate=run.replicate,
        mode=run.mode,
        config=to_json(run.config),
        protocol_version=PROTOCOL_VERSION,
    )
    corpus = record.corpus.model_dump() | {"name": run.config.corpus, "sha256": facts.sha256}
    fields: dict[str, Any] = {"corpus": CorpusFacts(**corpus | {"vocab_size": facts.vocab_size}), **changes}
    if started_at is not None:
        attempt = {"started_at": started_at, "first_step": 0, "last_step": 12, "train_seconds": 1.0}
        fields["attempts"] = [attempt | {"environment": record.environment.model_dump()}]
    return Record.model_validate(record.model_dump() | fields)


def put(folder: Path, *records: Record) -> Path:
    """A folder with the files of these records."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / record.file_name).write_bytes(to_bytes(record))
    return folder


def member(name: str, content: bytes = b"", **header: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    return info, content


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    """An archive of these members, also invalid ones."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def siblings(n: int = 2) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Valid records, as members."""
    records = [record_of(run_of(seed=seed)) for seed in (42, 69, 420)[:n]]
    return [member(f"runs/{one.file_name}", to_bytes(one)) for one in records]


def content_of(store: Path) -> dict[str, bytes]:
    """Every file of a store, by its path in it."""
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}
