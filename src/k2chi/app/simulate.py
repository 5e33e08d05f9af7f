"""Data with known truth: a digital head, scanned and written to disk."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from k2chi.data import Vector
from k2chi.io.derivatives import describe_derivatives, dumps, staged
from k2chi.io.nifti import write_text
from k2chi.io.raw import describe_raw, write_flat, write_label_names, write_raw, write_truth
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, Simulation, box


@dataclass(frozen=True)
class Wish:
    """What to simulate."""

    b0_tesla: float = 3.0
    te_s: tuple[float, ...] = (0.006, 0.014, 0.022, 0.030)
    voxel_mm: Vector = (1.5, 1.5, 1.5)
    snr: float = 100.0
    tilt_deg: Vector = (0.0, 0.0, 0.0)
    lesions: int = 0
    fine_mm: float = 1.0
    """Voxel of the simulation itself [mm]."""


def simulate(wish: Wish, seed: int) -> tuple[DigitalHead, Simulation]:
    """One person and the scan of them; age and shape follow from the seed."""
    age = 25.0 + (37 * seed) % 51
    who = DigitalHead(seed=seed, age_years=age, angles_deg=wish.tilt_deg, ms_lesions=wish.lesions)
    fine = min(wish.fine_mm, *wish.voxel_mm)
    gre = GRE(wish.te_s, wish.b0_tesla, snr=wish.snr, fine_mm=fine, seed=seed)
    return who, gre(who, box(wish.voxel_mm))


def truth_maps(simulation: Simulation) -> dict[str, torch.Tensor]:
    """What is written beside the data, by BIDS suffix.

    The mask is not named as a brain mask: the chain must not find it.
    """
    t = simulation.truth
    return {
        "Chimap": t.chi_ppm * t.brain,
        "desc-total_fieldmap": t.total_ppm,
        "desc-local_fieldmap": t.local_ppm * t.brain,
        "R2starmap": t.r2star_per_s,
        "desc-truth_mask": t.brain,
        "dseg": t.labels,
        "desc-challenge_dseg": t.group,
    }


def _sidecar(wish: Wish, seed: int) -> dict[str, object]:
    return {"Manufacturer": "simulated", "SimulationSeed": seed, "Simulation": dataclasses.asdict(wish)}


def write_gre(out: Path, wish: Wish, seed: int) -> Simulation:
    """One scan as magnitude.nii.gz and phase.nii.gz, its truth in truth/."""
    with staged(out) as stage:
        _, made = simulate(wish, seed)
        write_flat(made.echoes, stage, _sidecar(wish, seed))
        write_truth(truth_maps(made), made.truth.grid, made.truth.scan, stage / "truth", "")
        write_label_names(stage / "truth", made.truth.names, "dseg")
    return made


def write_bids(
    out: Path, wish: Wish, seed: int, subjects: int, tell: Callable[[str], None] | None = None
) -> list[Simulation]:
    """A raw data set of several people, its truth in derivatives/truth."""
    if subjects < 1:
        raise ValueError(f"{subjects} subjects: give 1 or more")
    rows, made = [], []
    with staged(out) as stage:
        truth = stage / "derivatives" / "truth"
        for n in range(subjects):
            name = f"sub-{n + 1:02d}"
            who, one = simulate(wish, seed + n)
            write_raw(one.echoes, stage, name, _sidecar(wish, seed + n))
            folder = truth / name / "anat"
            write_truth(truth_maps(one), one.truth.grid, one.truth.scan, folder, name)
            rows.append({"participant_id": name, "age": round(who.age_years), "seed": seed + n})
            made.append(one)
            if tell is not None:
                tell(f"simulated {name}")
        describe_raw(stage, "Digital heads with known truth", rows)
        describe_derivatives(truth, out)
        write_label_names(truth, made[0].truth.names, "dseg")
        write_text(truth / "README", "True maps of the simulated scans; χ is relative to water.\n")
        write_text(
            stage / "participants.json", dumps({"seed": {"Description": "Seed of the simulated person"}})
        )
    return made
