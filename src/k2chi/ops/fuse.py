"""Stencils as fused kernels on a GPU: one pass over memory where tensor operations would make many."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Step = TypeVar("Step", bound=Callable[..., Any])


def fused(step: Step, like: Tensor) -> Step:
    """`step` as it is on the CPU; compiled by torch into fused kernels where `like` lies on a GPU.

    Compiled once for each size, at the first call (some seconds). `step` must be a function of its arguments
    alone, written in tensor operations, without branches on values.
    """
    return _compiled(step) if like.device.type == "cuda" else step


@lru_cache(maxsize=64)
def _compiled(step: Step) -> Step:
    return cast(Step, torch.compile(step, fullgraph=True, dynamic=False))
