"""Networks: each a module of torch with its configuration. To add one: one file, and one name here."""

from k2chi.nets.adaptivetv import AdaptiveTV, AdaptiveTVConfig
from k2chi.nets.given import Answer, Given, Network
from k2chi.nets.siqsm import SIQSM, SIQSMConfig
from k2chi.nets.unet import DEEPQSM, QSMNET, UNet, UNetConfig
from k2chi.nets.unrolled import Unrolled, UnrolledConfig

NetworkConfig = AdaptiveTVConfig | SIQSMConfig | UNetConfig | UnrolledConfig

__all__ = [
    "DEEPQSM",
    "QSMNET",
    "SIQSM",
    "AdaptiveTV",
    "AdaptiveTVConfig",
    "Answer",
    "Given",
    "Network",
    "NetworkConfig",
    "SIQSMConfig",
    "UNet",
    "UNetConfig",
    "Unrolled",
    "UnrolledConfig",
]
