"""Where our protocol is not the published one, read from `results/deviations.toml`: each with its reason."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from bench.errors import UserError, first_problem
from bench.record import Strict
from bench.sources import ROOT

DEVIATIONS = ROOT / "results" / "deviations.toml"


class DeviationsError(UserError):
    """The file of deviations is missing or does not make sense."""


class Deviation(Strict):
    """One thing that we do in another way than a published system."""

    system: str  # whose way it is that we leave
    published: str  # what they do
    ours: str
    why: str
    effect: str | None = None  # on a number, where it is known


class _File(Strict):
    deviation: tuple[Deviation, ...]


def load_deviations(path: Path = DEVIATIONS) -> tuple[Deviation, ...]:
    """The deviations in the file at `path`. DeviationsError names the file and the reason."""
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).deviation
    except OSError as error:
        raise DeviationsError(f"{path}: cannot be read: {error.strerror}; restore it from the repository") from error
    except ValidationError as error:
        where, reason = first_problem(error)
        raise DeviationsError(f"{path}: {where}: {reason}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise DeviationsError(f"{path}: {error}; restore it from the repository") from error
