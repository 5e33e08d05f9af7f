"""One page a scan: what went in, what came out, and what to look at. Self-contained HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jinja2
import numpy as np
from torch import Tensor

from k2chi.app import figures
from k2chi.data import Chi, Maps


@dataclass(frozen=True)
class Picture:
    """An image with its words."""

    title: str
    data: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under a headline."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a report says in words; the pictures are made from the maps."""

    title: str
    subtitle: str
    sign: str
    says: Sequence[str]
    warnings: Sequence[str]
    methods: str
    sources: Sequence[str]
    recipe: str
    inputs: dict[str, str]
    versions: dict[str, str]
    tables: Sequence[Table] = field(default_factory=tuple)
    pictures: Sequence[Picture] = field(default_factory=tuple)
    """Further pictures, shown first."""


def facts(maps: Maps) -> list[tuple[str, str]]:
    """The numbers a reader looks for first."""
    scan, grid = maps.scan, maps.grid
    rows = [
        ("field strength", f"{scan.b0_tesla:g} T"),
        ("echo times", ", ".join(f"{1e3 * t:.4g}" for t in scan.te_s) + " ms"),
        ("matrix", " × ".join(map(str, grid.shape))),
        ("voxel", " × ".join(f"{v:.3g}" for v in grid.voxel_mm) + " mm"),
        ("B0 in voxel axes", ", ".join(f"{b:.3f}" for b in grid.b0_dir)),
        ("mask", f"{float(maps.mask.sum()) * grid.voxel_volume_mm3 / 1e3:.0f} ml"),
    ]
    if maps.chi is not None:
        inside = maps.chi.ppm[maps.chi.mask].cpu().numpy()
        low, middle, high = np.percentile(inside, [1, 50, 99])
        rows += [
            ("χ at 1 / 50 / 99 %", f"{low:.3f} / {middle:.3f} / {high:.3f} ppm".replace("-", "−")),
            (
                "zero of χ",
                f"{maps.chi.reference}, subtracted {maps.chi.reference_ppm:+.4f} ppm".replace("-", "−"),
            ),
        ]
        if maps.chi.updates:
            rows.append(("inversion", ended(maps.chi)))
    rows.append(("computing time", f"{sum(maps.seconds.values()):.0f} s"))
    return rows


def ended(chi: Chi) -> str:
    """How the iterations of an inversion came to their end, in words."""
    words = {True: "converged", False: "stopped at the limit, not converged", None: "as many as asked"}
    last = f"last update {chi.updates[-1]:.2g} of the map"
    return f"{len(chi.updates)} iterations, {words[chi.converged]}; {last}"


def pictures(maps: Maps, phase: Tensor | None, phase_label: str) -> list[Picture]:
    """The montage of the whole chain and χ in three planes."""
    rows = figures.rows_of(maps, phase, phase_label)
    view = figures.View(maps.grid)
    mask = view(maps.mask)
    shown = []
    if maps.chi is not None:
        low, high = figures.CHI_WINDOW
        caption = f"Window {low}…{high} ppm, the same in every report; bright is paramagnetic.".replace(
            "-", "−"
        )
        chi_row = next(r for r in rows if r.label.startswith("χ\n"))
        figure = figures.planes(chi_row, mask, view.voxel_mm)
        shown.append(Picture("Susceptibility in three planes", figures.png(figure), caption))
    if rows:
        words = "Axial slices from bottom to top; left of the patient is left. Windows stand beside each row."
        shown.append(
            Picture("From magnitude to χ", figures.png(figures.montage(rows, mask, view.voxel_mm)), words)
        )
    return shown


def plots(maps: Maps) -> list[Picture]:
    """Histogram, times and convergence."""
    made = []
    if maps.chi is not None:
        inside = maps.chi.ppm[maps.chi.mask].cpu().numpy()
        outside = float(np.mean((inside < -0.3) | (inside > 0.4)))
        caption = f"{inside.size} voxels; {outside:.2%} lie beyond the axis and are counted at its ends."
        made.append(Picture("Histogram of χ", figures.png(figures.histogram(inside)), caption))
    if maps.seconds:
        made.append(Picture("Time of each stage", figures.png(figures.stage_times(maps.seconds))))
    if maps.chi is not None and len(maps.chi.updates) > 1:
        figure = figures.convergence(maps.chi.updates, maps.chi.misfits)
        caption = ended(maps.chi) + "; misfit is the share of the weighted field that is not explained."
        made.append(Picture("Convergence", figures.png(figure), caption))
    return made


def html(page: Page, maps: Maps, phase: Tensor | None = None, phase_label: str = "phase") -> str:
    """The whole page as text."""
    shown = [*page.pictures, *pictures(maps, phase, phase_label)]
    return rendered(replace(page, pictures=shown), facts(maps), plots(maps))


def rendered(page: Page, facts: Sequence[tuple[str, str]], plots: Sequence[Picture]) -> str:
    """A page as text, with the numbers at its top and the pictures at its end."""
    loader = jinja2.PackageLoader("k2chi.app", package_path="")
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html.j2")
    return template.render(facts=facts, plots=plots, **vars(page))
