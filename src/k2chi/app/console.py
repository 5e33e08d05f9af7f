"""What the terminal shows: progress with time left, and errors in one sentence."""

import errno
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import typer

from k2chi.progress import listening

P = ParamSpec("P")
R = TypeVar("R")
BAD_INPUT = 2
"""Exit code for input that cannot be used."""


def sentence(error: Exception) -> str:
    """An error as what is wrong, where, and what to do."""
    if isinstance(error, MemoryError):
        return "not enough memory for this volume: close other programs, or resample to larger voxels"
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "the output folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}: no space is left on the disk; make room or choose another output folder"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"{where}: no permission (read-only?); choose another folder or change its permissions"
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            return f"{where}: is a file where a folder is needed; choose another folder"
        return f"{where}: {error.strerror}; check the path"
    return " ".join(str(error).split())


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn bad input into one line on stderr and exit code 2; K2CHI_TRACEBACK=1 shows the traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough: no bad input
            raise
        except (ValueError, OSError, MemoryError) as error:
            if os.environ.get("K2CHI_TRACEBACK"):
                raise
            typer.echo(f"k2chi: {sentence(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from None

    return wrapped


@contextmanager
def bars(show: bool) -> Iterator[None]:
    """Draw a bar for each tracked loop while it runs; nothing without a terminal."""
    if not show or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}
        lock = threading.Lock()

        def listener(what: str, done: int, of: int) -> None:
            with lock:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=of)
                progress.update(tasks[what], completed=done, total=of)
                if done >= of:
                    progress.remove_task(tasks.pop(what))

        with listening(listener):
            yield


def prepare(threads: int | None, device: str) -> str:
    """Set up memory and threads; the device's name comes back, checked."""
    import torch

    from k2chi.ops.fourier import keep_memory

    keep_memory()
    if threads is not None:
        import numba

        if threads < 1:
            raise ValueError(f"--threads {threads}: give 1 or more")
        torch.set_num_threads(threads)
        most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
        numba.set_num_threads(min(threads, most))
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device}: not usable here ({reason}); choose cpu") from error
    return device
