"""Pictures of lesions: each cut out in three planes, with its outline."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from k2chi.app.figures import ACCENT, CHI_WINDOW, INK, PAPER, View
from k2chi.data import Chi
from k2chi.measure.lesions.parts import Labels
from k2chi.measure.lesions.study import Lesion

A_PAGE = 12
"""Lesions on one page."""
ACROSS = 2
OTHER = "#5aa9e6"


def pages(
    lesions: Sequence[Lesion], labels: Labels, chi: Chi, window_mm: float = 24.0
) -> list[tuple[tuple[int, int], Figure]]:
    """Sheets of the lesions that are on χ's grid, with the first and last number on each."""
    view = View(chi.grid)
    number, values = view(labels.int()), view(chi.ppm)
    there = [x for x in lesions if (number == x.shape.label).any()]
    out = []
    for first in range(0, len(there), A_PAGE):
        some = there[first : first + A_PAGE]
        span = (some[0].shape.label, some[-1].shape.label)
        out.append((span, _sheet(some, number, values, view.voxel_mm, window_mm)))
    return out


def _sheet(
    some: Sequence[Lesion],
    number: np.ndarray,
    values: np.ndarray,
    voxel_mm: tuple[float, float, float],
    window_mm: float,
) -> Figure:
    down = -(-len(some) // ACROSS)
    figure = Figure(figsize=(3 * ACROSS * 1.5, 0.45 + 1.85 * down), facecolor=PAPER)
    low, high = CHI_WINDOW
    figure.text(
        0.5,
        1 - 0.2 / (0.45 + 1.85 * down),
        f"χ {low:g} to {high:g} ppm; axial (left is the patient's left), coronal, sagittal (front is right); "
        f"{window_mm:g} mm wide, wider where a lesion needs it",
        color=INK,
        fontsize=8,
        ha="center",
        va="center",
    )
    grid = figure.add_gridspec(
        down,
        3 * ACROSS,
        left=0.01,
        right=0.99,
        bottom=0.01,
        top=1 - 0.6 / (0.45 + 1.85 * down),
        wspace=0.04,
        hspace=0.3,
    )
    for n, lesion in enumerate(some):
        label = lesion.shape.label
        at = np.argwhere(number == label).mean(0).round().astype(int)
        wide = max(window_mm, max(lesion.shape.extent_mm) + 6)
        half = np.ceil(wide / 2 / np.asarray(voxel_mm)).astype(int)
        box = tuple(slice(c - h, c + h + 1) for c, h in zip(at, half, strict=True))
        near, own = (_cut(v, box) for v in (values, number))
        for plane, axis in enumerate((2, 1, 0)):
            axes = figure.add_subplot(grid[n // ACROSS, 3 * (n % ACROSS) + plane])
            one, two = (i for i in range(3) if i != axis)
            aspect = voxel_mm[two] / voxel_mm[one]
            flat, body = (v.take(half[axis], axis=axis).T for v in (near, own))
            axes.imshow(
                flat, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect, interpolation="nearest"
            )
            for shown, colour in ((body == label, ACCENT), ((body > 0) & (body != label), OTHER)):
                if shown.any():
                    axes.contour(shown, [0.5], colors=colour, linewidths=0.7)
            axes.set_axis_off()
            if plane == 0:
                axes.set_title(_title(lesion), color=INK, fontsize=6.5, loc="left", pad=2)
    return figure


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
    return (first + "\n" + second).replace("nan", "n/a")
