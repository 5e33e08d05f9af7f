"""Pictures of registrations and regions: edges and outlines on the subject, values as violins."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage

from k2chi.app.figures import ACCENT, CHI_WINDOW, INK, PAPER, View, box
from k2chi.data import Chi, Grid
from k2chi.measure.alignment import Alignment
from k2chi.measure.roi import Region

SHOWN = 5
COLOURS = ("#f2b134", "#5aa9e6", "#e4572e", "#76b041", "#c77dff", "#ff8fa3", "#2ec4b6", "#ffd6a5")


def edges(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The strongest tenth of the edges of an image inside a mask."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 0.7)
    slope = np.sqrt(sum(g**2 for g in np.gradient(smooth)))
    limit = np.quantile(slope[inside], 0.9) if inside.any() else np.inf
    found: np.ndarray = (slope > limit) & inside
    return found


def registration(
    fixed: torch.Tensor,
    moved: torch.Tensor,
    inside: torch.Tensor,
    grid: Grid,
    title: str,
    quality: Alignment,
) -> Figure:
    """Edges of the registered image on the fixed one, in three planes; the worst eighth is named."""
    if quality.told:
        worst = quality.told[-1]
        title += f" · apart by {quality.residual_mm:.1f} mm, {worst.where} by {worst.apart_mm:.1f} mm"
    view = View(grid)
    image, other, mask = view(fixed), view(moved), view(inside)
    return _planes(image, edges(other, mask)[None], mask, view.voxel_mm, title, (ACCENT,), None)


def labelled(
    image: torch.Tensor,
    labels: torch.Tensor,
    numbers: Sequence[int],
    grid: Grid,
    title: str,
    window: tuple[float, float] | None = CHI_WINDOW,
) -> Figure:
    """Outlines of the labels on a map, in slices through them."""
    view = View(grid)
    number = view(labels)
    bodies = np.stack([number == n for n in numbers])
    colours = tuple(COLOURS[k % len(COLOURS)] for k in range(len(numbers)))
    near: np.ndarray = np.logical_or.reduce(bodies)
    return _planes(view(image), bodies, near, view.voxel_mm, title, colours, window)


def _planes(
    image: np.ndarray,
    bodies: np.ndarray,
    near: np.ndarray,
    voxel_mm: tuple[float, float, float],
    title: str,
    colours: tuple[str, ...],
    window: tuple[float, float] | None,
) -> Figure:
    """Three planes, five slices each; one body as dots, several as outlines."""
    around = box(near, 12)
    cut, marks, inside = image[around], bodies[(slice(None), *around)], near[around]
    low, high = window or (0.0, float(np.quantile(cut[inside], 0.99)) if inside.any() else 1.0)
    figure = Figure(figsize=(2.1 * SHOWN, 7.2), facecolor=PAPER)
    figure.text(0.5, 0.985, title, color=INK, fontsize=9, ha="center", va="top")
    grid = figure.add_gridspec(
        3, SHOWN, left=0.01, right=0.99, bottom=0.01, top=0.94, wspace=0.03, hspace=0.03
    )
    for row, axis in enumerate((2, 1, 0)):
        one, two = (i for i in range(3) if i != axis)
        there = np.flatnonzero(inside.any((one, two)))
        levels = np.quantile(there, np.linspace(0.12, 0.88, SHOWN)) if len(there) else np.zeros(SHOWN)
        for k, level in enumerate(levels.round().astype(int)):
            axes = figure.add_subplot(grid[row, k])
            flat = cut.take(level, axis=axis).T
            axes.imshow(
                flat, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=voxel_mm[two] / voxel_mm[one],
                interpolation="nearest",
            )  # fmt: skip
            for body, colour in zip(marks, colours, strict=True):
                drawn = body.take(level, axis=axis).T
                if not drawn.any():
                    continue
                if len(marks) == 1:
                    y, x = np.nonzero(drawn)
                    axes.plot(x, y, ".", ms=1.0, color=colour, rasterized=True)
                elif not drawn.all():
                    axes.contour(drawn, [0.5], colors=colour, linewidths=0.8)
            if k == 0 and axis != 0:
                axes.text(0.02, 0.5, "L", color=INK, fontsize=8, transform=axes.transAxes, va="center")
            axes.set_axis_off()
    return figure


def violins(chi: Chi, labels: torch.Tensor, found: Sequence[Region], unit: str = "χ [ppm]") -> Figure:
    """The values of each region as a violin, with median, quartiles and the interval of the mean."""
    shown = [r for r in found if r.voxels > 1]
    figure = Figure(figsize=(max(4.0, 0.42 * len(shown) + 1.5), 3.8), layout="constrained")
    axes = figure.add_subplot()
    draw = np.random.default_rng(0)
    number, values = labels[chi.mask].numpy(), chi.ppm[chi.mask].numpy()
    clouds = []
    for region in shown:
        v = values[number == region.label]
        clouds.append(v if len(v) <= 4000 else draw.choice(v, 4000, replace=False))
    places = np.arange(len(shown))
    wide = [k for k, v in enumerate(clouds) if np.ptp(v) > 0]
    if wide:
        parts = axes.violinplot(
            [clouds[k] for k in wide], positions=places[wide], widths=0.85, showextrema=False
        )
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor="#1f5fa8", alpha=0.35, linewidth=0)
    for k, r in enumerate(shown):
        axes.plot([k, k], [r.p25_ppm, r.p75_ppm], color="#1f5fa8", lw=3, solid_capstyle="butt")
        axes.plot(k, r.median_ppm, "o", color="white", mec="#1f5fa8", ms=4)
        if r.ci_low_ppm == r.ci_low_ppm:
            axes.errorbar(k + 0.3, r.mean_ppm, [[r.mean_ppm - r.ci_low_ppm], [r.ci_high_ppm - r.mean_ppm]],
                          fmt="_", color="#b3312c", lw=1.2)  # fmt: skip
    axes.axhline(0, color="#7a7a7a", lw=0.6)
    axes.set_xticks(places, [r.name for r in shown], rotation=60, ha="right", fontsize=8)
    axes.set(ylabel=unit, title="median, quartiles (blue); mean with its 95 % interval (red)")
    axes.title.set_fontsize(8)
    return figure
