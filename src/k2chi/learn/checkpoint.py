"""A training run as one file: weights, running mean, optimiser and recipe. No pickle."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from k2chi.learn.recipes import CLASSES, Recipe
from k2chi.nets.record import from_record, to_record

NAME = "checkpoint.safetensors"
PARTS = ("weights", "average", "optimiser")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands; all tensors on the CPU."""

    recipe: Recipe
    step: int
    seconds: float
    """Time learned so far [s]."""
    device: str
    """What it learned on last."""
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    """Running mean of the weights."""
    optimiser: Mapping[str, Tensor]
    """Adam's means and counts, by parameter: `name/exp_avg` and so on."""

    @staticmethod
    def of(
        recipe: Recipe, step: int, seconds: float, network: nn.Module, average: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer, device: str,
    ) -> "Checkpoint":  # fmt: skip
        """A copy of a run's present state."""
        named = {id(p): name for name, p in network.named_parameters()}
        memory = {
            f"{named[id(p)]}/{key}": torch.as_tensor(value)
            for p, kept in optimiser.state.items()
            for key, value in kept.items()
        }
        return Checkpoint(
            recipe, step, seconds, device, _copies(network.state_dict()), _copies(average), _copies(memory)
        )

    def into(self, optimiser: torch.optim.Optimizer, network: nn.Module) -> None:
        """Give the optimiser its memory back, on the device of the parameters."""
        for name, p in network.named_parameters():
            kept = {
                key.removeprefix(f"{name}/"): v
                for key, v in self.optimiser.items()
                if key.startswith(f"{name}/")
            }
            if kept:
                optimiser.state[p] = {
                    k: v.clone() if k == "step" else v.clone().to(p.device) for k, v in kept.items()
                }


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}


def newest(folder: Path) -> Path | None:
    """The folder's checkpoint, if there is one."""
    path = folder / NAME
    return path if path.is_file() else None


def save(state: Checkpoint, folder: Path) -> Path:
    """Write beside the old one, then take its place: a stop in between loses nothing."""
    tensors = {f"{part}:{k}": v for part in PARTS for k, v in getattr(state, part).items()}
    told = {
        "recipe": json.dumps(to_record(state.recipe)),
        "step": str(state.step),
        "seconds": repr(state.seconds),
        "device": state.device,
    }
    path, fresh = folder / NAME, folder / f".{NAME}.new"
    save_file(tensors, fresh, metadata=told)
    os.replace(fresh, path)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. ValueError if the file is none or does not fit this version."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint ({error})") from error
    if "recipe" not in told:
        raise ValueError(f"{path} is no checkpoint of a training run: it tells no recipe")
    recipe = from_record(json.loads(told["recipe"]), CLASSES)
    parts = {
        part: {k.removeprefix(f"{part}:"): v for k, v in tensors.items() if k.startswith(f"{part}:")}
        for part in PARTS
    }
    return Checkpoint(recipe, int(told["step"]), float(told["seconds"]), told["device"], **parts)
