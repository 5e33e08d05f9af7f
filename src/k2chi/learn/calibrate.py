"""How far a network's stated spread can be believed: measured on held-back data, as the method will run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import pstdev

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.invert.learned import refined
from k2chi.learn.anatomy import demeaned
from k2chi.learn.batch import Batch, Draw
from k2chi.learn.recipes import Recipe
from k2chi.learn.show import HELD_BACK, answer_of
from k2chi.nets import Answer
from k2chi.nets.weights import Card
from k2chi.ops.fourier import SPACE

CALIBRATE = HELD_BACK + 1000
"""Number of the first batch that calibrates; another range tests it."""
Z90 = 1.6448536
"""Half-width of the middle 90 % of a normal distribution, in standard deviations."""
BELIEVED = 0.2
"""Voxels of less weight do not count where the gain of noise is measured."""


@dataclass(frozen=True, eq=False)
class Held:
    """A held-back batch and what a network, refined as `Learned` does by default, says of it."""

    answer: Answer
    batch: Batch


def said(recipe: Recipe, weights: Mapping[str, Tensor], batch: Batch) -> Answer:
    """The refined answer of a network of these weights."""
    answer = answer_of(recipe, weights, batch)
    steps = recipe.network.refine
    with torch.inference_mode():
        return replace(answer, chi=refined(answer, batch.given(), steps))


def held(
    recipe: Recipe, weights: Mapping[str, Tensor], numbers: Iterable[int], device: str = "cpu"
) -> list[Held]:
    """Answers to the batches of these numbers."""
    batches = (recipe.data(n, device) for n in numbers)
    return [Held(said(recipe, weights, b), b) for b in batches]


def noise_gain(recipe: Recipe, weights: Mapping[str, Tensor], known: Sequence[Held]) -> float:
    """Median over cubes: change of χ by one more draw of the field's noise, over that noise, both rms."""
    shares = []
    for i, h in enumerate(known):
        b = h.batch
        if b.noise_ppm is None:
            return 0.0
        more = Draw(i, b.chi.device).normal(*b.chi.shape) * b.noise_ppm
        change = demeaned(
            said(recipe, weights, replace(b, field=b.field + more)).chi - h.answer.chi, b.support
        )
        here = b.weight > BELIEVED
        shares.append(
            (change * here).square().sum(SPACE) / (more * here).square().sum(SPACE).clamp_min(1e-20)
        )
    return float(torch.cat(shares).median().sqrt())


def calibrated(card: Card, known: Sequence[Held]) -> Card:
    """The card with the factor on spreads that lets ±1.645 standard deviations hold 90 % of the errors.

    |e| ≤ z √(a² s² + g² n²) if and only if a ≥ √(e²/z² − g² n²) / s, so a is a quantile of the right side.
    """
    needed = []
    for h in known:
        error, spread, noise = _voxels(h)
        left = (error / Z90).square() - (card.noise_gain * noise).square()
        needed.append(left.clamp_min(0).sqrt() / spread)
    return replace(card, spread_scale=max(_quantile(torch.cat(needed), 0.9), 1e-3))


def coverage(card: Card, known: Sequence[Held]) -> float:
    """Share of errors within ±1.645 standard deviations."""
    hits = []
    for h in known:
        error, spread, noise = _voxels(h)
        hits.append(error <= Z90 * torch.hypot(card.spread_scale * spread, card.noise_gain * noise))
    return float(torch.cat(hits).double().mean())


def steadier(cards: Sequence[Card], known: Sequence[Held]) -> Card:
    """The card whose coverage differs least from batch to batch.

    A spread that was taught on noisy cubes may know the noise already, and then none is to be added.
    """
    return min(cards, key=lambda card: pstdev(coverage(card, [h]) for h in known))


def _voxels(h: Held) -> tuple[Float[Tensor, " v"], Float[Tensor, " v"], Float[Tensor, " v"]]:
    """|error|, stated spread and noise in the supports."""
    b, spread = h.batch, h.answer.spread
    assert spread is not None
    error = demeaned(h.answer.chi - b.chi, b.support).abs()
    noise = torch.zeros_like(spread) if b.noise_ppm is None else b.noise_ppm
    s = b.support
    return error[s], spread.clamp_min(1e-12)[s], noise[s]


def _quantile(x: Float[Tensor, " v"], q: float) -> float:
    return float(x.kthvalue(max(round(q * len(x)), 1)).values)
