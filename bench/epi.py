"""How much phase error each fault of EPI makes, and how much its correction leaves.

    python bench/epi.py            # a simulated 3 mm head, 8 coils, trains of five readouts; two minutes

The truth is the same scan without the fault, coil by coil, so neither coil maps nor masks come in; where
the field drifts, without the drift about its mean, which corrections leave in.
"""

import argparse
from dataclasses import replace
from time import perf_counter

import torch

from k2chi.ops.fourier import ifft, keep_memory
from k2chi.phantom.coilarray import CoilArray
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.protocols import PROTOCOLS
from k2chi.phantom.rawscan import RawScan
from k2chi.recon.assemble import Assemble
from k2chi.recon.averages import AlignedAverages
from k2chi.recon.ghost import Navigated, Refined
from k2chi.recon.shots import NavigatedShots, SteadyDrift

NONE = Assemble(ghost=None, shots=None, averages=None)
GHOST = replace(NONE, ghost=Navigated())
EPI = PROTOCOLS["quick-epi"]
TWICE = replace(EPI, averages=2)

ROWS = {
    "nothing wrong": (EPI, {}, {"none": NONE, "all corrections": Assemble()}),
    "ghost 0.3 rad, slope 1.5 rad over the readout": (
        EPI,
        {"ghost_rad": 0.3, "ghost_slope_rad": 1.5},
        {
            "none": NONE,
            "Navigated": GHOST,
            'Navigated("scan")': replace(NONE, ghost=Navigated("scan")),
            "Refined": replace(NONE, ghost=Refined()),
            "Refined(None)": replace(NONE, ghost=Refined(None)),
        },
    ),
    "ghost offset 0.3 rad alone": (
        EPI,
        {"ghost_rad": 0.3},
        {"none": NONE, "Navigated": GHOST, "Refined(None)": replace(NONE, ghost=Refined(None))},
    ),
    "breathing 2 Hz, drift 1 Hz/min": (
        EPI,
        {"breathing_hz": 2.0, "drift_hz_per_min": 1.0},
        {
            "none": NONE,
            'NavigatedShots("constant")': replace(NONE, shots=NavigatedShots("constant")),
            "NavigatedShots": replace(NONE, shots=NavigatedShots()),
        },
    ),
    "drift 5 Hz/min": (
        EPI,
        {"drift_hz_per_min": 5.0},
        {
            "none": NONE,
            "NavigatedShots": replace(NONE, shots=NavigatedShots()),
            "SteadyDrift": replace(NONE, shots=SteadyDrift()),
        },
    ),
    "two averages, drift 5 Hz/min": (
        TWICE,
        {"drift_hz_per_min": 5.0},
        {
            "none": NONE,
            "AlignedAverages": replace(NONE, averages=AlignedAverages()),
            "AlignedAverages(steady=False)": replace(NONE, averages=AlignedAverages(steady=False)),
        },
    ),
    "two averages of opposite polarity, ghost 0.3 rad": (
        replace(TWICE, alternate=True),
        {"ghost_rad": 0.3},
        {"none": NONE, "Navigated": GHOST},
    ),
}


def scan(protocol, snr, **faults):
    """Readouts of a head with these faults and no other."""
    calm = {"ghost_rad": 0.0, "ghost_slope_rad": 0.0, **faults}
    return RawScan(protocol, CoilArray(8), snr, fine_mm=3.0, **calm)(DigitalHead(1)).raw


def off(raw, hz_per_min):
    """The readouts, the field off by the mean of a drift."""
    tr = raw.facts["RepetitionTime"]
    pulses = max(float(block.time_s.max()) for block in raw.lines(0)) // tr

    def lines(echo):
        for b in raw.lines(echo):
            since = b.time_s.double() % tr
            turn = torch.exp(2j * torch.pi * hz_per_min / 60 * pulses * tr / 2 * since)
            yield replace(b, data=b.data * turn[:, None, None].to(b.data))

    return replace(raw, lines=lines)


def images(raw, how):
    start = perf_counter()
    k = how(raw, 0)
    return ifft(k.data[0]), perf_counter() - start


def errors(seen, truth):
    """Phase error [rad] weighted by the signal, and error of the complex images [%], up to one phase."""
    both = (seen * truth.conj()).sum(0)
    turn = torch.angle(both.sum())
    weight = truth.abs().square().sum(0)
    phase = torch.angle(both * torch.exp(-1j * turn))
    rms = float(((phase.square() * weight).sum() / weight.sum()).sqrt())
    return rms, 100 * float((seen * torch.exp(-1j * turn) - truth).norm() / truth.norm())


def main(snr, only):
    keep_memory()
    print(f"{'fault':48} {'correction':32} {'phase [rad]':>12} {'error [%]':>10} {'time [s]':>9}")
    truths = {}
    for fault, (protocol, faults, ways) in ROWS.items():
        if only not in fault:
            continue
        drift = faults.get("drift_hz_per_min", 0.0)
        if (protocol, drift) not in truths:
            truths[protocol, drift] = images(off(scan(protocol, 0.0), drift), NONE)[0]
        raw = scan(protocol, snr, **faults)
        for name, how in ways.items():
            seen, seconds = images(raw, how)
            phase, error = errors(seen, truths[protocol, drift])
            print(f"{fault:48} {name:32} {phase:12.5f} {error:10.3f} {seconds:9.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, default=0.0, help="of the brain, coils combined; 0: no noise")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    main(**vars(parser.parse_args()))
