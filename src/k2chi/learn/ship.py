"""From a training run to weights that methods can use: calibrate the spread, write card and file."""

from collections.abc import Sequence
from pathlib import Path

import torch

from k2chi.learn.anatomy import demeaned
from k2chi.learn.batch import Batch
from k2chi.learn.checkpoint import Checkpoint
from k2chi.learn.recipes import Recipe
from k2chi.learn.show import HELD_BACK, answer_of, error_percent
from k2chi.learn.simulate import Anything
from k2chi.nets import Answer
from k2chi.nets.weights import Card, Storage, write

CALIBRATE = HELD_BACK + 1000
"""Number of the first batch that calibrates; another range tests it."""
Z90 = 1.6448536
"""Half-width of the middle 90 % of a normal distribution, in standard deviations."""


def ratios(answer: Answer, batch: Batch) -> torch.Tensor:
    """|error| over the stated spread at every voxel of the supports."""
    assert answer.spread is not None
    error = demeaned(answer.chi - batch.chi, batch.support).abs()
    return (error / answer.spread.clamp_min(1e-12))[batch.support]


def calibrated(pairs: Sequence[tuple[Answer, Batch]]) -> float:
    """The factor that makes ±1.645 spreads hold 90 % of the errors."""
    found = torch.cat([ratios(a, b) for a, b in pairs])
    return float(torch.quantile(found[:: max(len(found) // 1_000_000, 1)], 0.9)) / Z90


def coverage(pairs: Sequence[tuple[Answer, Batch]], scale: float) -> float:
    """Share of errors within ±1.645 calibrated spreads."""
    return float((torch.cat([ratios(a, b) for a, b in pairs]) <= Z90 * scale).double().mean())


def pairs(state: Checkpoint, first: int, count: int, device: str) -> list[tuple[Answer, Batch]]:
    """Answers to held-back batches."""
    batches = [state.recipe.data(first + i, device) for i in range(count)]
    return [(answer_of(state.recipe, state.average, b), b) for b in batches]


def ship(
    state: Checkpoint, name: str, path: Path, storage: Storage = "float32", limits: str = "",
    errors: str = "", batches: int = 8, device: str = "cpu",
) -> Card:  # fmt: skip
    """Write the running mean of the weights with a card; errors on held-back cubes are measured here."""
    recipe = state.recipe
    known = pairs(state, CALIBRATE, batches, device)
    other = pairs(state, CALIBRATE + batches, batches, device)
    size = sum(error_percent(a, b) for a, b in other) / len(other)
    said = f"NRMSE {size:.1f} % on {batches} batches of held-back cubes"
    scale = 1.0
    if known[0][0].spread is not None:
        scale = calibrated(known)
        said += f"; the stated 90 % interval held {100 * coverage(other, scale):.0f} % of errors there"
    card = Card(
        name, recipe.network, "total" if _total(recipe) else "local", *_range(recipe),
        str(recipe.data), state.step, state.seconds / 3600, state.device,
        f"{said}. {errors}".strip(), limits or "Research only; compare with a classical method.", scale,
    )  # fmt: skip
    write(card, state.average, path, storage)
    return card


def _total(recipe: Recipe) -> bool:
    return isinstance(recipe.data, Anything) and recipe.data.total


def _range(recipe: Recipe) -> tuple[tuple[float, float], float]:
    if isinstance(recipe.data, Anything):
        return recipe.data.voxel_mm, recipe.data.anisotropy
    return (1.0, 1.0), 1.0
