"""Processes as Linux shows them: who started whom, what runs, and whose a connection is."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

# What the kernel says of a process or file that has ended before, and in the midst of, being read.
_GONE = FileNotFoundError, ProcessLookupError


def descendants_of(process_id: int) -> list[int]:
    """Return the children of a process, and theirs; none of one that has ended."""
    children = list(_children_of(process_id))
    return [*children, *(one for child in children for one in descendants_of(child))]


def _children_of(process_id: int) -> Iterator[int]:
    """Yield who was started by any of a process's threads, which come and go."""
    with suppress(*_GONE):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            with suppress(*_GONE):
                yield from map(int, (task / "children").read_text().split())


def command_of(process_id: int) -> bytes:
    """Return the command line, its words parted by NUL; nothing of a process that has ended."""
    with suppress(*_GONE):
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    return b""


def is_running(process_id: int) -> bool:
    """Whether the process lives; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except _GONE:
        return False


def owner_of_port(port: int, *, among: Iterable[int]) -> int | None:
    """Return which of the processes has the TCP connection whose own end is this local port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].partition(":")[2], 16) == port}
    for process_id in among:
        with suppress(*_GONE):
            if any(_target(file) in sockets for file in Path(f"/proc/{process_id}/fd").iterdir()):
                return process_id
    return None


def _target(file: Path) -> str:
    with suppress(*_GONE):
        return os.readlink(file)
    return ""
