"""Published figures and claims, read from `results/published.toml`; they are shown next to ours, in no mean."""

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from bench.errors import UserError, first_problem
from bench.record import Strict
from bench.sources import ROOT

Content = TypeVar("Content", bound=Strict)
PUBLISHED = ROOT / "results" / "published.toml"


class PublishedError(UserError):
    """The file of published figures is missing or invalid."""


class PublishedRun(Strict):
    """One of the runs behind a published mean."""

    seed: int
    nats_per_token: float
    step: int | None = None
    perplexity: float | None = None


class Figure(Strict):
    """One published perplexity. What the source does not state is None."""

    system: str
    source: str  # DOI, or repository and commit
    protocol: Literal["sweep", "sampled"]
    selection: Literal["best", "final"]
    perplexity: float
    perplexity_sd: float | None = None
    perplexity_up_to: float | None = None  # upper end, if a range is printed
    nats_per_token: float | None = None
    parameters_printed: str | None = None
    n_params: int | None = None
    context: int | None = None  # tokens of a window of the evaluation
    counts_positions: bool | None = None  # whether n_params includes the position table
    n_runs: int | None = None
    n_distinct_seeds: int | None = None
    arms: list[str]  # labels of our arms to compare it with
    remark: str | None = None
    runs: tuple[PublishedRun, ...] = ()

    @property
    def n_text(self) -> str:
        """`n = 5`, or `7 runs of 5 seeds` if a seed was used twice."""
        if self.n_runs is None:
            return "n not stated"
        if self.n_runs == self.n_distinct_seeds:
            return f"n = {self.n_runs}"
        return f"{self.n_runs} runs of {self.n_distinct_seeds} seeds"


class Claim(Strict):
    """A claim of the preprint, with the name and thresholds of the rule in `claims.rules` that judges it."""

    id: str
    statement: str
    short: str  # the statement in 31 letters
    source: str
    experiments: list[str]  # the experiments that it is judged on
    rule: str
    thresholds: dict[str, float]


class Published(Strict):
    """All figures and claims, and our one experiment and corpus that figures may be compared with."""

    experiment: str
    corpus: str
    figure: list[Figure]
    claim: tuple[Claim, ...] = ()

    def beside(self, experiment: str, corpus: str, label: str) -> list[Figure]:
        """The figures to show next to our arm; empty except in the experiment with the published recipes."""
        if (experiment, corpus) != (self.experiment, self.corpus):
            return []
        return [figure for figure in self.figure if label in figure.arms]


def load_published(path: Path = PUBLISHED) -> Published:
    """The published figures in the file at `path`. PublishedError names the file and the reason."""
    return read_toml(path, Published, PublishedError)


def read_toml(path: Path, content: type[Content], refusal: type[UserError]) -> Content:
    """The TOML file at `path` as a `content`. Raises `refusal` with the file and the reason."""
    try:
        return content.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise refusal(f"{path}: cannot be read: {error.strerror}; restore it from the repository") from error
    except ValidationError as error:
        raise refusal(f"{path}: {': '.join(first_problem(error))}") from error
    except ValueError as error:  # neither TOML nor UTF-8
        raise refusal(f"{path}: {error}; restore it from the repository") from error
