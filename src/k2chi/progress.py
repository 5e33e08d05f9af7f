"""How long work tells of itself, without knowing who listens.

A method wraps its loop in `track`; the command line listens and draws a bar. In a script nobody
listens, and nothing is printed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener(what, done, of)` on each step of tracked loops inside the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(count: int, what: str) -> Iterator[int]:
    """Yield 0 … count-1, telling the listener of each step and of an early end."""
    tell = _listener.get() or (lambda what, done, of: None)
    try:
        for i in range(count):
            tell(what, i, count)
            yield i
    finally:
        tell(what, count, count)
