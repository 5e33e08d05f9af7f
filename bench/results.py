"""bench/RESULTS.md: one section a benchmark, replaced when it runs again, with machine, commit and date."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).parent / "RESULTS.md"
HEAD = """# Results

Measured by the scripts in `bench/`; each section names machine, commit and date. Nothing is typed by hand.
"""


def machine() -> str:
    """CPU model, cores that may be used, and memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        model = found.group(1).strip() if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, load {os.getloadavg()[0]:.1f} at the end"


def commit() -> str:
    """Short hash, with a plus if files differ from it; or that there is no git."""
    here = Path(__file__).parent
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "../src"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"
    return sha.stdout.strip() + ("+" if changed.stdout.strip() else "")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(c) for c in row) + " |" for row in rows)])


def put(title: str, text: str) -> None:
    """Write the section `title`, in place of the one of that name if there is one."""
    old = FILE.read_text(encoding="utf-8") if FILE.exists() else HEAD
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    section = f"## {title}\n\n{text.strip()}\n\n*{when}, commit {commit()}, {machine()}.*\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    new = (
        pattern.sub(lambda _: section + "\n", old) if pattern.search(old) else f"{old.rstrip()}\n\n{section}"
    )
    FILE.write_text(new.rstrip() + "\n", encoding="utf-8")
    print(f"wrote section '{title}' into {FILE.name}")
