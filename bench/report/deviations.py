"""The deviations of our protocol from the published ones, with reasons, read from `results/deviations.toml`."""

from pathlib import Path

from bench.errors import UserError
from bench.record import Strict
from bench.report.published import read_toml
from bench.sources import ROOT

DEVIATIONS = ROOT / "results" / "deviations.toml"


class DeviationsError(UserError):
    """The file of deviations is missing or invalid."""


class Deviation(Strict):
    """One deviation of our protocol from that of a published system."""

    system: str  # the published system
    published: str  # what it does
    ours: str  # what we do
    why: str
    effect: str | None = None  # on the numbers, if known


class _File(Strict):
    deviation: tuple[Deviation, ...]


def load_deviations(path: Path = DEVIATIONS) -> tuple[Deviation, ...]:
    """The deviations in the file at `path`. DeviationsError names the file and the reason."""
    return read_toml(path, _File, DeviationsError).deviation
