"""A training step recorded as a CUDA graph: one launch instead of hundreds."""

from collections.abc import Callable

import torch
from torch import Tensor

N_REHEARSALS = 3  # compilation, autotuning, cuBLAS handles and the optimizer's state must be done before recording


class StepGraph:
    """A recorded step. It reads and writes the memory that was in use at recording, so those tensors must be kept.

    source of the order of calls: torch's notes on CUDA semantics, "whole-network capture"
    """

    def __init__(self, step: Callable[[], tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> None:
        stream = torch.cuda.Stream()  # for both: recording fails where autograd waits for a stream outside it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(N_REHEARSALS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad(set_to_none=True)  # so that the graph allocates gradients, and writes instead of adding
        for group in optimizer.param_groups:
            group["capturable"] = True  # not earlier: torch warns about it in a step outside a graph
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._measured = torch.stack(step())

    def replay(self) -> tuple[Tensor, Tensor]:
        """Run the step; its two scalars, copied, since the next replay overwrites the graph's memory."""
        self._graph.replay()
        nats, norm = self._measured.clone().unbind()
        return nats, norm
