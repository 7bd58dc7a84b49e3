"""A PostgreSQL or a Valkey of a test's own, as durable as `make run` has it, to be killed and started again on its port."""

import os
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from billing_site.embedded import Servers, servers
from tests.faults.installation import until
from tests.processes import descendants_of, is_running


class OwnServer:
    """One server, `postgres` or `valkey`, in a directory that is removed at the end of the context."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._directory = Path(tempfile.mkdtemp(prefix=f"tierbook-{kind}-"))
        self._directory.chmod(0o711)  # root's servers step down to another account, which has to pass
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> "OwnServer":
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, where it was before."""
        stack = ExitStack()
        running: Servers = stack.enter_context(
            servers(self._directory, postgres=self._kind == "postgres", valkey=self._kind == "valkey")
        )
        self._stack = stack
        child = running.postgres or running.valkey
        assert child is not None
        self._process_id = child.process.pid
        url = running.database_url if running.postgres else running.redis_url
        assert self.url in ("", url), "its port was taken meanwhile"
        self.url = url

    def stop(self) -> None:
        """End it in order: PostgreSQL by its fast shutdown."""
        self._stack.close()

    def kill(self) -> None:
        """kill -9 the server and all of its processes at once, as a power cut ends them."""
        processes = [self._process_id, *descendants_of(self._process_id)]
        for process_id in processes:
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:  # it has seen its postmaster die
                continue
        until(lambda: not any(map(is_running, processes)), what=f"the end of {self._kind}")
        self._stack.close()
