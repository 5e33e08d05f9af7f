"""Truth: closed-form bodies, and a digital head in a simulated scanner.

from k2chi.phantom import DigitalHead, quick

scan = quick(DigitalHead(seed=1, ms_lesions=5))
scan.echoes, scan.truth.chi_ppm, scan.truth.labels
"""

from k2chi.phantom.head import DigitalHead, Head
from k2chi.phantom.lesions import Lesion
from k2chi.phantom.scanner import GRE, Simulation, Truth, box, challenge, clinical, epi, quick
from k2chi.phantom.shapes import Cylinder, Sphere
from k2chi.phantom.tissue import CHALLENGE_GROUP, LABELS

__all__ = [
    "CHALLENGE_GROUP",
    "GRE",
    "LABELS",
    "Cylinder",
    "DigitalHead",
    "Head",
    "Lesion",
    "Simulation",
    "Sphere",
    "Truth",
    "box",
    "challenge",
    "clinical",
    "epi",
    "quick",
]
