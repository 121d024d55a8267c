"""Whether a model can fit on this machine, counted before anything is allocated."""

from dataclasses import asdict

import torch

from bench.config import RunConfig
from bench.errors import ConfigError, first_line
from bench.limits import host_bytes
from models import build

BYTES_PER_PARAMETER = 4 * 4  # float32: the parameter, its gradient and AdamW's two moments
SURELY_FITS = 2**28  # parameters


def check_memory(config: RunConfig, device: torch.device) -> None:
    """ConfigError where the parameters of a model, with gradients and optimizer state, exceed the device's memory."""
    sizes = sorted(value for value in asdict(config.model).values() if isinstance(value, int))
    if config.training is None or sizes[-1] ** 2 * sizes[-2] < SURELY_FITS:
        return  # the meta device takes a second to load
    has = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else host_bytes()
    try:
        with torch.device("meta"):
            n_params = sum(parameter.numel() for parameter in build(config.model).parameters())
    except RuntimeError as error:  # a count beyond 64 bits
        raise ConfigError(f"a model of these sizes cannot exist: {first_line(error)}") from error
    if n_params * BYTES_PER_PARAMETER > has:
        raise ConfigError(
            f"{n_params:,} parameters take {n_params * BYTES_PER_PARAMETER:,} bytes with their gradients and optimizer "
            f"state, and this {'GPU' if device.type == 'cuda' else 'machine'} has {has:,}: lower the sizes of the model"
        )
