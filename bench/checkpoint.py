"""Checkpoints: everything a run needs to continue, written atomically, and verified by sha256 before use."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from bench.dotted import config_differences
from bench.errors import CheckpointError, CorruptCheckpoint
from bench.files import write_atomically

FORMAT = 1  # raised when what Trainer.state or History holds changes
N_KEPT = 2
PARTS = ("identity", "trainer", "history")  # the groups of every checkpoint


def save(folder: Path, content: dict[str, Any]) -> Path:
    """Write the checkpoint of `content["trainer"]["step"]` into `folder` and drop all but the last two."""
    path = folder / f"checkpoint-{content['trainer']['step']:08d}.pt"
    buffer = io.BytesIO()  # serialised to memory first: a full disk then fails in one place
    torch.save({"format": FORMAT, **content}, buffer)
    payload = buffer.getvalue()
    write_atomically(path, payload)
    write_atomically(_sidecar(path), hashlib.sha256(payload).hexdigest().encode())  # last: it marks completeness
    present = paths(folder)  # one of a later step was corrupt, or the run would have resumed from it
    kept = [one for one in present if one <= path][-N_KEPT:]
    for other in set(present).difference(kept):
        _sidecar(other).unlink(missing_ok=True)
        other.unlink(missing_ok=True)
    return path


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files of killed writers; only for the process that holds the folder's lock."""
    for path in folder.glob(".checkpoint-*.tmp"):
        path.unlink(missing_ok=True)


def paths(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


def step_of(path: Path) -> int:
    """The step at which a checkpoint was saved."""
    return int(path.stem.removeprefix("checkpoint-"))


def load(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint. CorruptCheckpoint unless its bytes are those that were written."""
    try:
        payload = path.read_bytes()
        expected = _sidecar(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptCheckpoint(f"{path}: it or its .sha256 cannot be read: {error}") from error
    if hashlib.sha256(payload).hexdigest() != expected:
        raise CorruptCheckpoint(f"{path}: its bytes are not those that were written (sha256 differs)")
    try:
        content = torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch raises several types for what it refuses to unpickle
        raise CheckpointError(f"{path}: not a checkpoint of this suite ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}")
    return content


def load_newest(folder: Path, map_location: torch.device | str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """The newest valid checkpoint of a run folder (None: there is none), and why newer ones were skipped."""
    skipped: list[str] = []
    for path in reversed(paths(folder)):
        try:
            return load(path, map_location), skipped
        except CorruptCheckpoint as error:
            skipped.append(str(error))
    return None, skipped


def check_same(content: dict[str, Any], expected: dict[str, str], folder: Path) -> None:
    """CheckpointError unless the checkpoint is whole and has each identity in `expected` (name -> JSON text)."""
    if lacking := [name for name in PARTS if not isinstance(content.get(name), dict)]:
        raise CheckpointError(f"the checkpoint in {folder} is not one of this suite: it lacks {', '.join(lacking)}")
    for name, text in expected.items():
        found = content["identity"].get(name)
        if found != text:
            raise CheckpointError(
                f"the checkpoint in {folder} was made with different {name}: {_difference(name, found, text)}; "
                f"remove that folder to start this run from step 0"
            )


def _difference(name: str, found: str | None, expected: str) -> str:
    """The differences of two JSON texts, key by key where both are objects."""
    try:
        ours, theirs = ({name: json.loads(text or "null")} for text in (expected, found))
    except ValueError:
        return f"{found}, not {expected}"
    differences = config_differences(ours, theirs)
    return ", ".join(f"{key.removeprefix(f'{name}.')}={there} there, {here} here" for key, here, there in differences)


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".pt.sha256")
