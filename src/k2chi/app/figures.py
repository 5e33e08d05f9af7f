"""Pictures of a scan's maps, at fixed windows, upright and with left and right marked."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from k2chi.choose import Choice
from k2chi.data import Chi, Grid, Maps

CHI_WINDOW = (-0.1, 0.2)
"""Window of χ in every picture [ppm]."""
LOCAL_WINDOW = (-0.05, 0.05)
"""Window of the local field [ppm]."""
INK, PAPER, ACCENT = "#e8e8e8", "#101214", "#f2b134"


@dataclass(frozen=True)
class Row:
    """One line of a montage."""

    label: str
    volume: np.ndarray
    low: float
    high: float
    outline: bool = False
    colours: str = "gray"


@dataclass(frozen=True)
class View:
    """Turns volumes of one grid upright: axes to right, anterior, superior."""

    grid: Grid

    def __call__(self, volume: Tensor | np.ndarray) -> np.ndarray:
        array = volume.detach().cpu().numpy() if isinstance(volume, Tensor) else volume
        turn: Any = nib.orientations.apply_orientation
        upright: np.ndarray = turn(array, self._orientation)
        return upright

    @property
    def _orientation(self) -> np.ndarray:
        find: Any = nib.orientations.io_orientation
        found: np.ndarray = find(np.asarray(self.grid.affine))
        return found

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        order = np.argsort(self._orientation[:, 0])
        x, y, z = (self.grid.voxel_mm[i] for i in order)
        return x, y, z


def box(mask: np.ndarray, margin: int = 3) -> tuple[slice, slice, slice]:
    """The box around a mask, with a margin."""
    where = np.argwhere(mask) if mask.any() else np.argwhere(np.ones_like(mask))
    low, high = where.min(0), where.max(0) + 1
    a, b, c = (
        slice(max(int(i) - margin, 0), min(int(j) + margin, n))
        for i, j, n in zip(low, high, mask.shape, strict=True)
    )
    return a, b, c


def png(figure: Figure, dpi: int = 100) -> str:
    """A figure as a data address for HTML."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """A figure as a file, whole or not at all; PNG, PDF or SVG by its name."""
    kind = path.suffix.lower()
    if kind not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{path}: a figure is written as .png, .pdf or .svg; choose one of these endings")
    FigureCanvasAgg(figure)
    part = path.with_name(f".{path.stem}.part{kind}")
    try:
        figure.savefig(part, dpi=dpi, facecolor=figure.get_facecolor())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def difference(chi: Chi, truth: Chi) -> Figure:
    """A map, the truth and their difference, all relative to their means."""
    view, mask = View(chi.grid), chi.mask
    a, t = (torch.where(mask, m.ppm - m.ppm[mask].mean(), torch.nan) for m in (chi, truth))
    low, high = CHI_WINDOW
    window = f"{low}…{high} ppm".replace("-", "−")
    rows = [
        Row(f"map\n{window}", view(a), low, high),
        Row(f"truth\n{window}", view(t), low, high),
        Row("difference\n±0.05 ppm", view(a - t), *LOCAL_WINDOW, colours="RdBu_r"),
    ]
    return montage(rows, view(mask), view.voxel_mm)


def montage(
    rows: Sequence[Row], mask: np.ndarray, voxel_mm: tuple[float, float, float], columns: int = 7
) -> Figure:
    """Axial slices from bottom to top, one row a map, cut to the head."""
    near = box(mask)
    cut = mask[near]
    levels = np.linspace(0.12, 0.92, columns) * (cut.shape[2] - 1)
    high = cut.shape[1] * voxel_mm[1] / (cut.shape[0] * voxel_mm[0])
    width, label = 1.55, 1.15
    figure = Figure(figsize=(label + columns * width + 0.35, len(rows) * width * high), facecolor=PAPER)
    total_w, total_h = figure.get_size_inches()
    aspect = voxel_mm[1] / voxel_mm[0]
    for r, row in enumerate(rows):
        volume = row.volume[near]
        for c, level in enumerate(levels):
            place = [
                (label + c * width) / total_w,
                1 - (r + 1) * width * high / total_h,
                width / total_w * 0.985,
                width * high / total_h * 0.985,
            ]
            axes = figure.add_axes((place[0], place[1], place[2], place[3]))
            k = round(float(level))
            axes.imshow(
                volume[:, :, k].T,
                origin="lower",
                cmap=row.colours,
                vmin=row.low,
                vmax=row.high,
                aspect=aspect,
                interpolation="nearest",
            )
            if row.outline and cut[:, :, k].any() and not cut[:, :, k].all():
                axes.contour(cut[:, :, k].T, [0.5], colors=ACCENT, linewidths=0.8)
            axes.set_axis_off()
            if r == 0 and c == 0:
                axes.text(0.02, 0.5, "L", color=INK, transform=axes.transAxes, fontsize=8, va="center")
                axes.text(
                    0.98, 0.5, "R", color=INK, transform=axes.transAxes, fontsize=8, va="center", ha="right"
                )
        middle = 1 - (r + 0.5) * width * high / total_h
        figure.text(
            0.012, middle, row.label, color=INK, fontsize=8.5, va="center", ha="left", linespacing=1.4
        )
    return figure


def planes(row: Row, mask: np.ndarray, voxel_mm: tuple[float, float, float], unit: str = "ppm") -> Figure:
    """Sagittal, coronal and axial cut through the middle of the mask, with the colour bar."""
    near = box(mask)
    volume, cut = row.volume[near], mask[near]
    at = [round(float(m)) for m in np.argwhere(cut).mean(0)] if cut.any() else [n // 2 for n in cut.shape]
    sizes = [n * v for n, v in zip(volume.shape, voxel_mm, strict=True)]
    wide = [sizes[1], sizes[0], sizes[0]]
    tall = [sizes[2], sizes[2], sizes[1]]
    figure = Figure(figsize=(11.2, 11.2 * max(tall) / (sum(wide) * 1.09)), facecolor=PAPER)
    axes = figure.subplots(
        1, 3, width_ratios=wide, gridspec_kw={"wspace": 0.02, "left": 0, "right": 0.93, "top": 1, "bottom": 0}
    )
    views = [
        (volume[at[0]], voxel_mm[2] / voxel_mm[1], "P", "A"),
        (volume[:, at[1]], voxel_mm[2] / voxel_mm[0], "L", "R"),
        (volume[:, :, at[2]], voxel_mm[1] / voxel_mm[0], "L", "R"),
    ]
    for ax, (image, aspect, left, right) in zip(axes, views, strict=True):
        shown = ax.imshow(
            image.T, origin="lower", cmap=row.colours, vmin=row.low, vmax=row.high, aspect=aspect
        )
        ax.set_axis_off()
        ax.text(0.02, 0.5, left, color=INK, transform=ax.transAxes, fontsize=9)
        ax.text(0.98, 0.5, right, color=INK, transform=ax.transAxes, fontsize=9, ha="right")
    bar = figure.colorbar(shown, cax=figure.add_axes((0.945, 0.15, 0.012, 0.7)))
    bar.set_label(unit, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def rows_of(maps: Maps, phase: Tensor | None, phase_label: str) -> list[Row]:
    """What there is to show of a scan, in the order of the chain."""
    view = View(maps.grid)
    mask = view(maps.mask)
    rows: list[Row] = []

    def inside(volume: Tensor, where: Tensor) -> np.ndarray:
        """Upright, and left blank outside the mask."""
        return view(torch.where(where, volume, torch.nan))

    if maps.magnitude is not None:
        magnitude = view(maps.magnitude)
        top = float(np.percentile(magnitude[mask], 99)) if mask.any() else float(magnitude.max())
        rows.append(Row("magnitude\n(mask: yellow)", magnitude, 0, top or 1, outline=True))
    if phase is not None:
        rows.append(Row(phase_label, view(phase), -np.pi, np.pi))
    if maps.r2star_per_s is not None:
        rows.append(Row("R2*\n0…60 /s", inside(maps.r2star_per_s, maps.mask), 0, 60))
    if maps.total is not None:
        total = inside(maps.total.ppm, maps.total.mask)
        total = total - np.nanmedian(total)
        reach = max(0.1, float(np.ceil(10 * np.nanpercentile(np.abs(total), 97)) / 10))
        rows.append(Row(f"total field\n±{reach:.1f} ppm\nabout its\nmedian", total, -reach, reach))
    if maps.local is not None:
        low, high = LOCAL_WINDOW
        rows.append(Row(f"local field\n±{high} ppm", inside(maps.local.ppm, maps.local.mask), low, high))
    if maps.chi is not None:
        low, high = CHI_WINDOW
        label = f"χ\n{low}…{high}\nppm".replace("-", "−")
        rows.append(Row(label, inside(maps.chi.ppm, maps.chi.mask), low, high))
        if maps.chi.sd_ppm is not None:
            rows.append(
                Row("χ may be off\n(1 sd)\n0…0.05 ppm", inside(maps.chi.sd_ppm, maps.chi.mask), 0, 0.05)
            )
    if maps.sources is not None:
        found, high = maps.sources, CHI_WINDOW[1]
        rows.append(Row(f"χ para\n0…{high} ppm", inside(found.para_ppm, found.mask), 0, high))
        rows.append(Row(f"|χ dia|\n0…{high / 2} ppm", inside(-found.dia_ppm, found.mask), 0, high / 2))
    return rows


def _plain(figure: Figure, x: str, y: str) -> Any:
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def histogram(chi: np.ndarray) -> Figure:
    """How often each χ occurs inside the mask."""
    figure = Figure(figsize=(5.4, 3), layout="constrained")
    axes = _plain(figure, "χ [ppm]", "share of voxels")
    edges = np.linspace(-0.3, 0.4, 141)
    axes.hist(
        np.clip(chi, -0.3, 0.4), edges, weights=np.full(chi.size, 1 / max(chi.size, 1)), color="#3b6fa0"
    )
    axes.axvspan(*CHI_WINDOW, color=ACCENT, alpha=0.15, lw=0, label="window of the pictures")
    axes.legend(frameon=False, fontsize=8)
    return figure


def stage_times(seconds: dict[str, float]) -> Figure:
    """Wall time of each stage."""
    figure = Figure(figsize=(5.4, 3), layout="constrained")
    axes = _plain(figure, "time [s]", "")
    names = list(seconds)[::-1]
    bars = axes.barh(names, [seconds[n] for n in names], color="#3b6fa0")
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.margins(x=0.12)
    return figure


def convergence(updates: Sequence[float], misfits: Sequence[float] = ()) -> Figure:
    """Relative change of the map, and the share of the field it leaves unexplained, in each iteration."""
    figure = Figure(figsize=(5.4, 3), layout="constrained")
    axes = _plain(figure, "iteration", "share")
    for values, colour, label in ((updates, "#3b6fa0", "update"), (misfits, "#b0632f", "misfit")):
        if values:
            axes.semilogy(
                range(1, len(values) + 1), np.maximum(values, 1e-12), color=colour, label=f"relative {label}"
            )
    axes.legend(frameon=False, fontsize=8)
    return figure


def choice_plot(choice: Choice) -> Figure:
    """Roughness over misfit, and the score over the values tried, with the chosen one marked."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    blue, mark, at = "#3b6fa0", "#b0632f", choice.best
    left.loglog(choice.misfit, choice.roughness, "o-", color=blue, ms=4)
    left.loglog(choice.misfit[at], choice.roughness[at], "o", color=mark, ms=9)
    for value, x, y in zip(choice.values, choice.misfit, choice.roughness, strict=True):
        left.annotate(f"{value:.3g}", (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
    left.set(xlabel="misfit [share of the field]", ylabel="mean gradient of χ [ppm/mm]")
    right.semilogx(choice.values, choice.score, "o-", color=blue, ms=4)
    right.semilogx(choice.chosen, choice.score[at], "o", color=mark, ms=9)
    right.axhline(0, color="#999999", lw=0.6)
    right.set(xlabel=choice.setting, ylabel="score")
    figure.suptitle(f"{choice.rule}: {choice.setting} = {choice.chosen:.3g}\n{choice.score_says}", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
