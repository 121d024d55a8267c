"""Dropout that draws from a generator of the trainer, so that a resumed run draws the same numbers.

The rate is rounded to 1/65536: each entry compares one 16-bit random word with a threshold, four words per 64-bit draw.
"""

import torch
from torch import Tensor, nn

_WORDS = 1 << 16  # values of one 16-bit word


class Dropout(nn.Module):
    """Zero each entry with probability `rate` and scale the rest to keep the expectation.

    Training draws from `generator`; without one (see `share_generator`), each call seeds a new one from torch's default
    generator, so `torch.manual_seed` makes it repeatable. In evaluation it is the identity.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None
        self.torch_stream = False  # True: torch's own dropout and random stream, which torch.compile can trace

    @property
    def active(self) -> bool:
        """Whether a call would change its input."""
        return self.training and self.rate > 0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.active:
            return x
        if self.torch_stream:
            return nn.functional.dropout(x, self.rate)
        threshold = round(self.rate * _WORDS)
        words = random_words(x.shape, x.device, self.generator)
        mask = torch.ge(words, threshold - _WORDS // 2, out=torch.empty(x.shape, dtype=x.dtype, device=x.device))
        return x * mask.mul_(_WORDS / (_WORDS - threshold))  # on a CPU a product is many times faster than `where`


def random_words(shape: torch.Size, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """int16 words (`shape`), uniform over all 65,536 values."""
    if generator is None:
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))
    draws = torch.empty(-(-shape.numel() // 4), dtype=torch.int64, device=device)
    draws.random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[: shape.numel()].view(shape)


def share_generator(model: nn.Module, device: torch.device) -> torch.Generator:
    """Make every dropout of `model` draw from one new generator, and return it."""
    generator = torch.Generator(device)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator
    return generator


def use_torch_stream(model: nn.Module) -> None:
    """Make every dropout of `model` use torch's own dropout and default generator."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.torch_stream = True
