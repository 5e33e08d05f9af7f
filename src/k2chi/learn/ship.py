"""From a training run to weights that methods can use: calibrate the spread, write card and file."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from k2chi.learn.calibrate import CALIBRATE, Held, calibrated, coverage, held, noise_gain, said, steadier
from k2chi.learn.checkpoint import Checkpoint
from k2chi.learn.recipes import Recipe
from k2chi.learn.show import error_percent
from k2chi.learn.simulate import Anything
from k2chi.nets.weights import Card, Storage, rounded, write

ROUNDING_PPM = 2e-4
"""Storage may change χ by this much, root mean square; coarser storage is not used."""


def ship(
    state: Checkpoint, name: str, path: Path, storage: Storage = "float32", limits: str = "",
    errors: str = "", batches: int = 16, device: str = "cpu",
) -> Card:  # fmt: skip
    """Write the running mean of the weights with a card; errors on held-back cubes are measured here."""
    recipe = state.recipe
    card = Card(
        name, recipe.network, "total" if _total(recipe) else "local", *_range(recipe),
        str(recipe.data), state.step, state.seconds / 3600, state.device, "",
        limits or "Research only; compare with a classical method.",
    )  # fmt: skip
    known = held(recipe, state.average, range(CALIBRATE, CALIBRATE + batches), device)
    storage, change = _stored(state, storage, known)
    card = measured(card, state, known, device)
    words = f"stored as {storage}" + (f", which changes χ by {1e3 * change:.2g} ppb" if change else "")
    card = replace(card, errors=f"{card.errors}; {words}. {errors}".strip())
    write(card, state.average, path, storage)
    return card


def measured(card: Card, state: Checkpoint, known: list[Held], device: str = "cpu") -> Card:
    """The card with calibrated spread, and errors and coverage on further cubes, as `Learned` would run."""
    first = CALIBRATE + len(known)
    other = held(state.recipe, state.average, range(first, first + len(known)), device)
    size = sum(error_percent(h.answer, h.batch) for h in other) / len(other)
    words = f"NRMSE {size:.1f} % on {len(other)} batches of held-back cubes, after refinement"
    if known[0].answer.spread is not None:
        gains = (0.0, noise_gain(state.recipe, state.average, known))
        card = steadier([calibrated(replace(card, noise_gain=gain), known) for gain in gains], known)
        words += f"; the stated 90 % interval held {100 * coverage(card, other):.0f} % of errors there"
    return replace(card, errors=words)


def _stored(state: Checkpoint, asked: Storage, known: list[Held]) -> tuple[Storage, float]:
    """The coarsest storage, from the asked one on, that changes χ little; and the change [ppm]."""
    kinds: tuple[Storage, ...] = get_args(Storage)
    for storage in reversed(kinds[1 : kinds.index(asked) + 1]):
        weights = rounded(state.average, storage)
        changes = [(said(state.recipe, weights, h.batch).chi - h.answer.chi)[h.batch.support] for h in known]
        change = max(float(c.square().mean().sqrt()) for c in changes)
        if change < ROUNDING_PPM:
            return storage, change
    return "float32", 0.0


def _total(recipe: Recipe) -> bool:
    return isinstance(recipe.data, Anything) and recipe.data.total


def _range(recipe: Recipe) -> tuple[tuple[float, float], float]:
    if isinstance(recipe.data, Anything):
        return recipe.data.voxel_mm, recipe.data.anisotropy
    return (1.0, 1.0), 1.0
