"""CUDA graphs, which time what a GPU does and not what starts it."""

from collections.abc import Callable

import torch


def capture(call: Callable) -> Callable:
    """Capture a call in a CUDA graph at its first use.

    Args:
        call (Callable): A function without arguments, of tensors on a GPU.

    Returns:
        Callable: Replays it, on the same memory.
    """
    graph = torch.cuda.CUDAGraph()
    captured = False

    def replay() -> None:
        nonlocal captured
        if not captured:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                call()
            captured = True
        graph.replay()

    return replay
