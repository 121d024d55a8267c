"""A training step recorded as a CUDA graph: what takes hundreds of launches is then one."""

from collections.abc import Callable

import torch
from torch import Tensor

N_REHEARSALS = 3  # compiling, autotuning, cuBLAS handles, the optimizer's state: all must be over before a recording


class StepGraph:
    """A recorded step. It reads and writes the memory that it was recorded over, so those tensors must stay there.

    source of the order below: torch's notes on CUDA semantics, "whole-network capture"
    """

    def __init__(self, step: Callable[[], tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> None:
        stream = torch.cuda.Stream()  # for both, since a recording fails where autograd waits for a stream outside it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(N_REHEARSALS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad(set_to_none=True)  # the graph then allocates gradients, and writes where it would add
        for group in optimizer.param_groups:
            group["capturable"] = True  # only now: torch warns of it at a step outside a graph
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._measured = torch.stack(step())

    def replay(self) -> tuple[Tensor, Tensor]:
        """Do the step; its two scalars, in memory of their own, since the next replay writes over the graph's."""
        self._graph.replay()
        nats, norm = self._measured.clone().unbind()
        return nats, norm
