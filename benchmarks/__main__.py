"""
`make bench`: one run, one table, on servers of its own.

    python -m benchmarks --only single-64 batch-1000 hot --rounds 3

Prints the table, and writes it to `benchmarks/results.md` unless only some rows were asked for.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from benchmarks.stage import Stage

# "single" and "batch" are all that begin so.
NAMES = (
    *("single", "single-1", "single-32", "single-64", "single-128", "batch", "batch-100", "batch-1000", "hot", "mixed"),
    *("duplicates", "balances", "gate", "redis", "closing", "growth"),
)
RESULTS = Path(__file__).parent / "results.md"


def main() -> int:
    """Start the servers, measure, print, and write the table; return the exit status: 1 where the books are not exact."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="tierbook-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # root's servers step down to another account, which has to pass
        with Stage(directory) as stage:
            os.environ.update(stage.environment())
            import django

            django.setup()
            from benchmarks.run import Run

            page, exact = Run(stage, options).measure()
    print(page)
    if not options.only:
        RESULTS.write_text(page)
    return 0 if exact else 1


def _end(number: int, frame: FrameType | None) -> None:
    """Unwind, so that servers and files go."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure ratios, side by side.")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"these rows: {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the first, which warms up (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.7, help="about how long each path runs in a round (0.7)")
    parser.add_argument("--periods", type=int, default=12000, help="at most so many periods are closed (12,000)")
    parser.add_argument("--minutes", type=float, default=6, help="fewer rounds where they would take longer (6)")
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="EVENTS", help="with so many events stored, too (1 and 5 million)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
