"""Pictures of lesions: each cut out in three planes, with its outline."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from k2chi.app.figures import ACCENT, INK, PAPER, View
from k2chi.data import Chi
from k2chi.measure.lesions.parts import Labels
from k2chi.measure.lesions.study import Lesion

A_PAGE = 12
"""Lesions on one page with χ alone, two in a row."""
WITH_OTHERS = 6
"""Lesions on one page with other images, one in a row."""
PANELS = 4
"""Three planes and the profile across the edge."""
OTHER = "#5aa9e6"
WINDOW_PPM = (-0.1, 0.15)
"""The same for every lesion, so that sheets can be compared."""
PROFILE_PPB = (-130, 160)
Shown = tuple[str, np.ndarray, tuple[float, float]]
"""Name, values and grey-scale window of an image."""


def pages(
    lesions: Sequence[Lesion],
    labels: Labels,
    chi: Chi,
    window_mm: float = 24.0,
    beside: Mapping[str, Float[Tensor, "x y z"]] | None = None,
) -> list[tuple[tuple[int, int], Figure]]:
    """Sheets of the lesions that are on χ's grid, with the first and last number on each.

    Each image of `beside` adds three planes, from 0 to what 99.5 % of the voxels in χ's mask have at most.
    """
    view = View(chi.grid)
    number, inside = view(labels.int()), view(chi.mask)
    shown = [("χ", view(chi.ppm), WINDOW_PPM)]
    for name, image in (beside or {}).items():
        values = view(image)
        shown.append((name, values, (0.0, float(np.quantile(values[inside], 0.995)))))
    there = [x for x in lesions if (number == x.shape.label).any()]
    out, many = [], WITH_OTHERS if beside else A_PAGE
    for first in range(0, len(there), many):
        some = there[first : first + many]
        span = (some[0].shape.label, some[-1].shape.label)
        out.append((span, _sheet(some, number, shown, view.voxel_mm, window_mm)))
    return out


def _sheet(
    some: Sequence[Lesion],
    number: np.ndarray,
    shown: Sequence[Shown],
    voxel_mm: tuple[float, float, float],
    window_mm: float,
) -> Figure:
    across = 2 if len(shown) == 1 else 1
    panels = PANELS + 3 * (len(shown) - 1)
    down = -(-len(some) // across)
    high = 0.45 + 1.85 * down
    figure = Figure(figsize=(panels * across * 1.5, high), facecolor=PAPER)
    low, top = WINDOW_PPM
    words = (
        f"χ {low:g} to {top:g} ppm; axial (left is the patient's left), coronal, sagittal (front is right); "
        f"{window_mm:g} mm wide, wider where a lesion needs it; χ [ppb] by distance to the edge [mm], "
        "inside on the left"
    ).replace("-0", "−0")
    figure.text(0.5, 1 - 0.2 / high, words, color=INK, fontsize=8, ha="center", va="center")
    grid = figure.add_gridspec(
        down, panels * across, left=0.01, right=0.985, bottom=0.25 / high, top=1 - 0.6 / high,
        wspace=0.06, hspace=0.35,
    )  # fmt: skip
    for n, lesion in enumerate(some):
        label = lesion.shape.label
        at = np.argwhere(number == label).mean(0).round().astype(int)
        wide = max(window_mm, max(lesion.shape.extent_mm) + 6)
        half = np.ceil(wide / 2 / np.asarray(voxel_mm)).astype(int)
        box = tuple(slice(c - h, c + h + 1) for c, h in zip(at, half, strict=True))
        row, column = n // across, panels * (n % across)
        body = _cut(number, box)
        for k, (name, values, window) in enumerate(shown):
            start = column + (PANELS + 3 * (k - 1) if k else 0)
            places = [figure.add_subplot(grid[row, start + plane]) for plane in range(3)]
            _planes(places, _cut(values, box), body, label, window, voxel_mm)
            places[0].set_title(name if k else _title(lesion), color=INK, fontsize=6.5, loc="left", pad=2)
        _profile(figure.add_subplot(grid[row, column + 3]), lesion)
    return figure


def _planes(
    places: Sequence[Axes],
    near: np.ndarray,
    number: np.ndarray,
    label: int,
    window: tuple[float, float],
    voxel_mm: tuple[float, float, float],
) -> None:
    """The middle of a box in three planes, with the lesion's outline and those of its neighbours."""
    for axes, axis in zip(places, (2, 1, 0), strict=True):
        one, two = (i for i in range(3) if i != axis)
        flat, body = (v.take(v.shape[axis] // 2, axis=axis).T for v in (near, number))
        axes.imshow(
            flat, cmap="gray", vmin=window[0], vmax=window[1], origin="lower",
            aspect=voxel_mm[two] / voxel_mm[one], interpolation="nearest",
        )  # fmt: skip
        for drawn, colour in ((body == label, ACCENT), ((body > 0) & (body != label), OTHER)):
            axes.add_collection(LineCollection(outline(drawn), colors=colour, linewidths=0.8))
        axes.set_axis_off()


def outline(shown: np.ndarray) -> list[list[tuple[float, float]]]:
    """The edges of pixels between inside and outside, as lines from corner to corner."""
    padded = np.pad(shown, 1)
    across, along = np.diff(padded.astype(np.int8), axis=1), np.diff(padded.astype(np.int8), axis=0)
    lines = [[(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(across)]
    lines += [[(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(along)]
    return [[(float(a), float(b)) for a, b in line] for line in lines]


def _profile(axes: Axes, lesion: Lesion) -> None:
    """χ by distance to the edge, with the spread in each bin."""
    axes.set_facecolor(PAPER)
    axes.axvline(0, color=ACCENT, lw=0.8)
    axes.axhline(0, color=INK, lw=0.3, alpha=0.5)
    if lesion.profile:
        x = np.array([b.distance_mm for b in lesion.profile])
        y, sd = (1e3 * np.array([getattr(b, f) for b in lesion.profile]) for f in ("mean", "sd"))
        spread = np.nan_to_num(sd)
        axes.fill_between(x, y - spread, y + spread, color=INK, alpha=0.2, lw=0)
        axes.plot(x, y, color=INK, lw=1, marker="o", ms=2)
    axes.set_ylim(*PROFILE_PPB)
    axes.set_yticks([-100, 0, 100], ["−100", "0", "100"])
    axes.tick_params(colors=INK, labelsize=5, length=2, pad=1, direction="in")
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.tick_params(axis="y", pad=-4)
    for side in axes.spines.values():
        side.set(color=INK, linewidth=0.4)


def _cut(volume: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """A box that may reach over the border, where it is zero."""
    out = np.zeros([s.stop - s.start for s in box], dtype=volume.dtype)
    inner = tuple(slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(box, volume.shape, strict=True))
    place = tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inner, box, strict=True))
    out[place] = volume[inner]
    return out


def _title(lesion: Lesion) -> str:
    """Number, size and the numbers to look at, in two lines."""
    size = "×".join(f"{e:.3g}" for e in lesion.shape.extent_mm)
    first = f"{lesion.shape.label}   {size} mm   {lesion.chi.inside_mean * 1000:+.0f} ppb inside, "
    first += f"{lesion.chi.difference * 1000:+.0f} to its surroundings"
    second = f"rim {lesion.rim.score:.2f}   central vein {lesion.vein.score:.2f} ({lesion.vein_on})"
    if lesion.excluded:
        second += "   left out: " + ", ".join(dict.fromkeys(w.split(":")[0] for w in lesion.excluded))
    return (first + "\n" + second).replace("+nan", "n/a").replace("nan", "n/a").replace("-", "−")
