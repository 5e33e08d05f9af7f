"""Gradient descent, with momentum and a projection if wanted."""

from collections.abc import Callable

from torch import Tensor

from k2chi.progress import track

Map = Callable[[Tensor], Tensor]


def descent(
    gradient: Map,
    x: Tensor,
    step: float,
    iterations: int,
    tolerance: float = 0.0,
    project: Map | None = None,
    momentum: bool = False,
    what: str = "descent",
) -> tuple[Tensor, tuple[float, ...]]:
    """Minimise a smooth function from `x`; returns the minimiser and the relative change of each step.

    `momentum` is Nesterov's (FISTA's sequence), some √ of the iterations for convex functions.
    `project` maps each iterate back to the allowed set. Stops at a relative change of `tolerance`.
    """
    y, t, updates = x, 1.0, []
    for _ in track(iterations, what):
        new = y - step * gradient(y)
        if project is not None:
            new = project(new)
        updates.append(float((new - x).norm() / new.norm().clamp_min(1e-30)))
        if momentum:
            t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            y = new + (before - 1) / t * (new - x)
        else:
            y = new
        x = new
        if updates[-1] <= tolerance:
            break
    return x, tuple(updates)
