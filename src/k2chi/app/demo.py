"""The whole chain on a simulated head, with its errors against the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from k2chi.app import figures, report
from k2chi.app.run import Order, Result, run
from k2chi.app.simulate import Wish, write_bids
from k2chi.data import Maps
from k2chi.io import bids
from k2chi.io.derivatives import Layout, describe_derivatives
from k2chi.measure.quality import quality
from k2chi.measure.roi import regions
from k2chi.phantom.scanner import Truth

SHOWN = {
    "nrmse": ("error of χ, demeaned", "%"),
    "nrmse_detrend": ("the same after correcting its slope", "%"),
    "nrmse_dgm": ("in deep grey matter, detrended", "%"),
    "nrmse_blood": ("in veins, detrended", "%"),
    "xsim": ("structural similarity XSIM, 1 is perfect", ""),
    "correlation": ("correlation", ""),
    "dgm_slope": ("slope of the deep nuclei, 1 is perfect", ""),
    "coverage": ("share of the true brain that has a value", ""),
}
NUCLEI = ("caudate", "putamen", "pallidum", "red nucleus", "nigra", "subthalamic", "dentate", "thalamus")


@dataclass(frozen=True)
class Against:
    """The truth, as tables and a picture for the report."""

    truth: Truth

    def errors(self, maps: Maps) -> dict[str, float]:
        """Quality of χ over the whole true brain."""
        assert maps.chi is not None
        t = self.truth
        return quality(maps.chi.ppm, t.chi_ppm, t.brain, t.group, t.grid.voxel_mm)

    def nuclei(self, maps: Maps) -> list[tuple[str, float, float, int]]:
        """Name, mean χ found and true [ppm] of each deep nucleus, both relative to the brain's mean."""
        assert maps.chi is not None
        chi, t = maps.chi, self.truth
        names = {n: name for n, name in t.names.items() if name.startswith(NUCLEI)}
        found = {r.label: r for r in regions(chi, t.labels, names)}
        base = float(t.chi_ppm[t.brain].mean())
        shift = float(chi.ppm[t.brain].mean())
        rows = []
        for n, name in names.items():
            where = (t.labels == n) & t.brain
            if found[n].voxels and where.any():
                true = float(t.chi_ppm[where].mean()) - base
                rows.append((name, found[n].mean_ppm - shift, true, found[n].voxels))
        return rows

    def __call__(self, maps: Maps) -> tuple[Sequence[report.Table], Sequence[report.Picture]]:
        errors = self.errors(maps)
        numbers = [(SHOWN[k][0], f"{errors[k]:.3g} {SHOWN[k][1]}".strip()) for k in SHOWN if k in errors]
        note = "Over the whole true brain; voxels that the mask left out count as zero."
        nuclei = [(n, f"{a:+.3f}", f"{b:+.3f}", f"{a - b:+.3f}", str(v)) for n, a, b, v in self.nuclei(maps)]
        tables = (
            report.Table("Errors against the truth", ("measure", "value"), numbers, note),
            report.Table(
                "Deep nuclei: mean χ [ppm], relative to the brain's mean",
                ("region", "found", "true", "difference", "voxels"),
                nuclei,
            ),
        )
        return tables, (self.picture(maps),)

    def picture(self, maps: Maps) -> report.Picture:
        """χ, truth and difference at the same window."""
        assert maps.chi is not None
        t, view = self.truth, figures.View(maps.grid)
        low, high = figures.CHI_WINDOW
        base = t.chi_ppm[t.brain].mean()
        true = torch.where(t.brain, t.chi_ppm - base, torch.nan)
        found = torch.where(maps.chi.mask, maps.chi.ppm, torch.nan)
        rest = torch.where(
            t.brain, torch.where(maps.chi.mask, maps.chi.ppm, 0.0) - (t.chi_ppm - base), torch.nan
        )
        rows = [
            figures.Row("χ found", view(found), low, high),
            figures.Row("χ true", view(true), low, high),
            figures.Row("found\nminus true\n±0.1 ppm", view(rest), -0.1, 0.1, colours="RdBu_r"),
        ]
        figure = figures.montage(rows, np.asarray(view(t.brain)), view.voxel_mm)
        words = "Window −0.1…0.2 ppm for both maps; red in the difference: too high."
        return report.Picture("Found and true", figures.png(figure), words)


def demo(out: Path, order: Order, wish: Wish, seed: int) -> tuple[Result, dict[str, float], Against]:
    """Simulate a head as a BIDS data set, compute χ from its files, and compare with the truth."""
    raw, derived = out / "raw", out / "k2chi"
    truth = write_bids(raw, wish, seed, 1)[0].truth
    series = bids.find(raw)[0]
    against = Against(truth)
    layout = Layout(derived, series.name, series.folder)
    describe_derivatives(derived, raw)
    result = run(partial(bids.load, series), layout, order, series.root, against)
    return result, against.errors(result.maps), against
