"""CPU seconds of processes and their descendants, from /proc; nothing where there is none."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(root: int) -> float | None:
    """User and system seconds of a process and all below it; None where unknown."""
    usage: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name may hold anything, closing parentheses too.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        # Of those it has waited for as well: a worker that was replaced has cost its share.
        ticks = sum(map(int, fields[11:15]))
        usage[int(entry.parent.name)] = (int(fields[1]), ticks / _TICKS)
    if root not in usage:
        return None
    total = 0.0
    below = {root}
    while below:
        total += sum(usage[pid][1] for pid in below)
        below = {pid for pid, (parent, _) in usage.items() if parent in below}
    return total
