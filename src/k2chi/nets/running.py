"""How layers are run: at once, in slabs that save memory, or by OpenVINO."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A module and its two inputs to its output. The last three axes of the first input are space."""


class Layers(Protocol):
    """A module that can be run in slabs."""

    factor: int
    """Slabs begin at multiples of this."""
    reach: int
    """How many voxels away an input still matters, a multiple of `factor`."""


def at_once(module: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """The whole volume through all layers."""
    out: Tensor = module(x, other)
    return out


class InSlabs:
    """Overlapping slabs along the third axis from the end, for volumes of more than `most` voxels.

    The same numbers as at once where the module's `reach` is its true one.
    """

    def __init__(self, most: int, run: Run = at_once) -> None:
        self.most, self.run = most, run

    def __call__(self, module: nn.Module, x: Tensor, other: Tensor) -> Tensor:
        size, plane = x.shape[-3], x.shape[-2] * x.shape[-1]
        if x.shape[0] * size * plane <= self.most:
            return self.run(module, x, other)
        factor, reach = int(getattr(module, "factor", 1)), int(getattr(module, "reach", size))
        core = max((self.most // (x.shape[0] * plane) - 2 * reach) // factor, 1) * factor
        made = []
        for start in range(0, size, core):
            low, high = max(start - reach, 0), min(start + core + reach, size)
            beside = other[..., low:high, :, :] if other.ndim == x.ndim else other
            out = self.run(module, x[..., low:high, :, :], beside)
            made.append(out[..., start - low : min(start + core, size) - low, :, :])
        return torch.cat(made, -3)


class ByOpenVINO:
    """Layers by OpenVINO in single precision; on its own it would take half on some processors, unasked."""

    def __init__(self) -> None:
        try:
            self.library: Any = importlib.import_module("openvino")
        except ImportError as error:
            raise ValueError(
                "OpenVINO is not installed: pip install 'k2chi[cpu]', or openvino = false"
            ) from error
        self.made: dict[tuple[int, tuple[int, ...]], Any] = {}

    def __call__(self, module: nn.Module, x: Tensor, other: Tensor) -> Tensor:
        if x.device.type != "cpu":
            raise ValueError("OpenVINO runs on the CPU: take openvino = false for other devices")
        key = (id(module), tuple(x.shape))
        if key not in self.made:
            with warnings.catch_warnings():  # torch.jit, by which it reads the layers, is deprecated
                warnings.simplefilter("ignore")
                model = self.library.convert_model(module, example_input=(x, other))
            hints = {"EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_PRECISION_HINT": "f32"}
            self.made[key] = self.library.Core().compile_model(model, "CPU", hints)
        out = self.made[key]([x.contiguous().numpy(), other.contiguous().numpy()])
        return torch.from_numpy(out[0]).clone()
