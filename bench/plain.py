"""The parts of a record that are plain JSON, and the types of what is read of them without the models' code."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import first_problem


class Open(BaseModel):
    """The types of what is read without the models' code; other keys may hold any JSON value."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Training(Open):
    n_steps: Annotated[int, Field(gt=0)]
    learning_rate: float | None = None


class _Config(Open):
    architecture: str
    model: dict[str, Any]
    context: Annotated[int, Field(gt=0)]
    training: _Training | None


_PerLayer = list[float] | None
_PerChannel = list[Annotated[list[float], Field(min_length=1)]] | None


class _Readings(Open):
    eta: float | None = None
    gate: _PerLayer = None
    alpha: _PerLayer = None
    base_norm: _PerLayer = None
    recurrent_norm: _PerLayer = None
    recurrent_share: _PerLayer = None
    refinement_step_ratio: _PerLayer = None
    gamma_quantiles: _PerChannel = None
    gamma_min_median_max: _PerChannel = None
    kernel_by_distance: _PerChannel = None
    knockout_nats: dict[str, float | None] | None = None


def of_types(kind: type[Open]) -> AfterValidator:
    """A check that leaves a dict as it is. ValueError unless what reports read of it has the types of `kind`."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        try:
            kind.model_validate(value)
        except ValidationError as error:
            raise ValueError(": ".join(first_problem(error))) from error
        return value

    return AfterValidator(check)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


Plain = Annotated[dict[str, Any], AfterValidator(_finite)]
PlainConfig = Annotated[Plain, of_types(_Config)]
PlainReadings = Annotated[Plain, of_types(_Readings)]
