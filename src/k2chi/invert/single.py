"""Every inversion that works in one pass. To add a method: one file, one name in the union below."""

from k2chi.invert.bayes import BayesL1
from k2chi.invert.fansi import FANSI
from k2chi.invert.hd import HDQSM
from k2chi.invert.ilsqr import ILSQR
from k2chi.invert.iswim import ISWIM
from k2chi.invert.l1 import L1QSM
from k2chi.invert.l2 import ClosedFormL2
from k2chi.invert.learned import Learned
from k2chi.invert.medi import MEDI
from k2chi.invert.ndi import NDI
from k2chi.invert.rts import RTS
from k2chi.invert.star import STAR
from k2chi.invert.subvoxel import SubvoxelTV
from k2chi.invert.tikhonov import Tikhonov
from k2chi.invert.tkd import TKD
from k2chi.invert.tsvd import TSVD
from k2chi.invert.wh import WHQSM

SinglePass = (
    TKD
    | TSVD
    | Tikhonov
    | ClosedFormL2
    | ISWIM
    | ILSQR
    | RTS
    | NDI
    | FANSI
    | L1QSM
    | HDQSM
    | WHQSM
    | BayesL1
    | STAR
    | MEDI
    | SubvoxelTV
    | Learned
)
"""Methods that invert once."""
