"""
Starts the processes of one installation, watches them, and ends them together.

On Linux no child outlives its launcher, not even after `kill -9`: each asks the kernel to be signalled when its parent
ends. The kernel ties that wish to the *thread* that forked, so children are started from the main thread only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROTATE_AT_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Child:
    """A running process, the file that it logs to, and the signal that asks it to finish."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    end_signal: signal.Signals

    def epitaph(self) -> str:
        """Describe how the process ended, with the last lines of its log."""
        code = self.process.poll()
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
        return f"{self.name} ended ({how}). The end of {self.log}:\n{tail(self.log)}"


@contextmanager
def child(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    end_signal: signal.Signals = signal.SIGTERM,
    patience: float = 10,
    **options: Any,
) -> Iterator[Child]:
    """
    Run a command for the length of the context, in a session of its own, with its output appended to `log`.

    On leaving, it gets `end_signal`, and after `patience` seconds SIGKILL, with whatever it left behind in its session.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Children are started from the main thread: they end with the thread that started them.")
    with _log_file(log) as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches the launcher alone, which ends its children in order
            preexec_fn=end_with_parent(end_signal, parent=os.getpid()),
            **{"stdin": subprocess.DEVNULL, **options},
        )
    running = Child(name=name, process=process, log=log, end_signal=end_signal)
    try:
        yield running
    finally:
        _end(running, patience=patience)


def end_with_parent(end_signal: signal.Signals, *, parent: int) -> Callable[[], None]:
    """Return a function that, called in a child of the process `parent`, has it signalled when that one ends."""

    def ask_the_kernel() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(end_signal), 0, 0, 0)
            if os.getppid() != parent:  # it ended before we could ask
                os.kill(os.getpid(), signal.SIGKILL)

    return ask_the_kernel


def _end(running: Child, *, patience: float) -> None:
    process = running.process
    if process.poll() is None:
        process.send_signal(running.end_signal)
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that a killed process could not end itself


def wait_until(ready: Callable[[], bool], *, running: Iterable[Child], timeout: float, what: str) -> None:
    """Return once `ready` says so. Raises ChildEnded when a process ends first, TimeoutError after `timeout` seconds."""
    watched = tuple(running)
    give_up_at = time.monotonic() + timeout
    while not ready():
        raise_if_ended(watched)
        if time.monotonic() > give_up_at:
            logs = "\n".join(f"The end of {one.log}:\n{tail(one.log)}" for one in watched)
            raise TimeoutError(f"{what} did not answer within {timeout:.0f} seconds.\n{logs}")
        time.sleep(0.05)


def watch(running: Iterable[Child]) -> None:
    """Wait until one of the processes ends, and raise ChildEnded about it."""
    watched = tuple(running)
    while True:
        raise_if_ended(watched)
        time.sleep(0.2)


class ChildEnded(Exception):
    """A process that should run for as long as the installation has ended; the text names it."""


def raise_if_ended(running: Iterable[Child]) -> None:
    """Raise ChildEnded if one of the processes has ended."""
    for one in running:
        if one.process.poll() is not None:
            raise ChildEnded(one.epitaph())


def tail(log: Path, *, lines: int = 15) -> str:
    """Return the last lines of a log, indented."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _log_file(log: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown large is put aside first, as `<name>.1`."""
    log.parent.mkdir(mode=0o755, exist_ok=True)
    if log.exists() and log.stat().st_size > ROTATE_AT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    return log.open("ab")
