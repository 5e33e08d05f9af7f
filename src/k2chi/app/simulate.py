"""Data with known truth: a digital head, scanned and written to disk."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from k2chi.data import Vector
from k2chi.io.derivatives import describe_derivatives, dumps, staged
from k2chi.io.ismrmrd import write as write_ismrmrd
from k2chi.io.nifti import write_text
from k2chi.io.raw import describe_raw, write_flat, write_label_names, write_raw, write_truth
from k2chi.phantom.coilarray import CoilArray
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.protocols import PROTOCOLS, Protocol, clock
from k2chi.phantom.rawscan import RawScan, RawSimulation
from k2chi.phantom.scanner import GRE, Simulation, Truth, box


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


def person(seed: int, tilt_deg: Vector, lesions: int) -> DigitalHead:
    """One person; age and shape follow from the seed."""
    age = 25.0 + (37 * seed) % 51
    return DigitalHead(seed=seed, age_years=age, angles_deg=tilt_deg, ms_lesions=lesions)


def simulate(wish: Wish, seed: int) -> tuple[DigitalHead, Simulation]:
    """One person and the scan of them."""
    who = person(seed, wish.tilt_deg, wish.lesions)
    fine = min(wish.fine_mm, *wish.voxel_mm)
    gre = GRE(wish.te_s, wish.b0_tesla, snr=wish.snr, fine_mm=fine, seed=seed)
    return who, gre(who, box(wish.voxel_mm))


def truth_maps(t: Truth) -> dict[str, torch.Tensor]:
    """What is written beside the data, by BIDS suffix.

    The mask is not named as a brain mask: the chain must not find it.
    """
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
        write_truth(truth_maps(made.truth), made.truth.grid, made.truth.scan, stage / "truth", "")
        write_label_names(stage / "truth", made.truth.names, "dseg")
    return made


def raw_scan(
    name: str, coils: int = 32, averages: int | None = None, snr: float | None = None, seed: int = 0
) -> RawScan:
    """A scan by the name of its protocol, with an array of `coils`."""
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    if averages is not None and averages < 1:
        raise ValueError(f"{averages} averages: give 1 or more")
    chosen = PROTOCOLS[name]
    chosen = chosen if averages is None else dataclasses.replace(chosen, averages=averages)
    fine = max(RawScan.fine_mm, min(chosen.voxel_mm) / 2)
    scan = RawScan(chosen, CoilArray(coils, chosen.b0_tesla), fine_mm=fine, seed=seed)
    return scan if snr is None else dataclasses.replace(scan, snr=snr)


def about(name: str, chosen: Protocol) -> dict[str, Any]:
    """A protocol and how long it takes, beside the time that its study reports."""
    return {
        "protocol": name,
        "title": chosen.title,
        "voxel_mm": chosen.voxel_mm,
        "matrix": chosen.matrix,
        "te_s": chosen.te_s,
        "tr_s": chosen.tr_s,
        "scan_time_s": round(chosen.scan_time_s(), 2),
        "published_s": chosen.published_s or None,
        "assumed": chosen.assumed,
    }


def words(name: str, chosen: Protocol) -> str:
    """The same in a line or two."""
    size = "×".join(f"{v:g}" for v in chosen.voxel_mm)
    points = "×".join(map(str, chosen.matrix))
    reported = f", published {clock(chosen.published_s)}" if chosen.published_s else ""
    line = f"{name:10s} {clock(chosen.scan_time_s())}{reported}: {chosen.title}; {size} mm, {points} points"
    return line + (f"\n{'':10s} assumed: {chosen.assumed}" if chosen.assumed else "")


def listing(as_json: bool) -> str:
    """All protocols, as text or JSON."""
    if as_json:
        return json.dumps([about(n, p) for n, p in PROTOCOLS.items()], ensure_ascii=False)
    return "\n".join(words(n, p) for n, p in PROTOCOLS.items())


def write_kspace(out: Path, scan: RawScan, who: DigitalHead) -> RawSimulation:
    """The readouts of one scan as raw.h5 (ISMRMRD), its settings as protocol.json, its truth in truth/."""
    with staged(out) as stage:
        made = scan(who)
        write_ismrmrd(made.raw, stage / "raw.h5")
        write_truth(truth_maps(made.truth), made.truth.grid, made.truth.scan, stage / "truth", "")
        write_label_names(stage / "truth", made.truth.names, "dseg")
        told = {
            "Manufacturer": "simulated",
            "ScanTime": scan.protocol.scan_time_s(),
            "Simulation": dataclasses.asdict(scan),
            "Person": dataclasses.asdict(who),
        }
        write_text(stage / "protocol.json", dumps(told))
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
            write_truth(truth_maps(one.truth), one.truth.grid, one.truth.scan, folder, name)
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
