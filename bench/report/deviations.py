"""The deviations of our protocol from the published one, read from `results/deviations.toml`, with reasons."""

from pathlib import Path

from bench.errors import UserError
from bench.record import Strict
from bench.report.published import read_toml
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
    return read_toml(path, _File, DeviationsError).deviation
