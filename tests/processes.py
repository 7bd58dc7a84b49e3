"""Processes as Linux shows them: who started whom, what runs, and whose a connection is."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def descendants_of(process_id: int) -> list[int]:
    """Return the children of a process, and theirs; none of one that has ended."""
    children = list(_children_of(process_id))
    return [*children, *(one for child in children for one in descendants_of(child))]


def _children_of(process_id: int) -> Iterator[int]:
    """Yield who was started by any of a process's threads, which come and go."""
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield from map(int, (task / "children").read_text().split())


def command_of(process_id: int) -> bytes:
    """Return the command line, its words parted by NUL."""
    return Path(f"/proc/{process_id}/cmdline").read_bytes()


def is_running(process_id: int) -> bool:
    """Whether the process lives; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def owner_of_port(port: int, *, among: Iterable[int]) -> int | None:
    """Return which of the processes has the TCP connection whose own end is this local port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].partition(":")[2], 16) == port}
    for process_id in among:
        with suppress(FileNotFoundError):
            if any(_target(file) in sockets for file in Path(f"/proc/{process_id}/fd").iterdir()):
                return process_id
    return None


def _target(file: Path) -> str:
    with suppress(FileNotFoundError):  # closed meanwhile
        return os.readlink(file)
    return ""
