"""Generic iterations on plain callables: they know nothing of MRI."""

from k2chi.solve.admm import admm
from k2chi.solve.cg import cg
from k2chi.solve.descent import descent
from k2chi.solve.primal_dual import primal_dual

__all__ = ["admm", "cg", "descent", "primal_dual"]
