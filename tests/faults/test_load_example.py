"""examples/load.py against real web processes: its figures are those of the books, and it notices when they are not."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from django.db.models import Count, Sum

from billing_site.launcher import BASE_DIR
from examples.load import TIER, Kind, parse_mix, parser, percentile
from invoices.models import Invoice
from metering.models import MeterBalance, UsageEvent
from subscriptions.models import Tenant
from tests.faults.installation import Installation, held
from tests.world import make_world

BALANCE = """
SELECT b.id FROM metering_meterbalance b JOIN subscriptions_tenant t ON t.id = b.tenant_id WHERE t.code = %s FOR UPDATE OF b
"""


@dataclass
class Load:
    """The script at work: the run that it has announced, and at its end what it has printed."""

    process: "subprocess.Popen[str]"
    run: str = ""
    printed: str = ""

    def ended(self) -> int:
        """Wait for the end, and return the exit status."""
        self.printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode

    def figure(self, name: str, *, position: int = 0) -> int:
        """Return a number of a line."""
        [line] = re.findall(rf"^{name}  +(.*)$", self.printed, re.MULTILINE)
        return int(re.findall(r"-?[\d,]+", line)[position].replace(",", ""))


@contextmanager
def load(web: Installation, *options: str) -> Iterator[Load]:
    """Start the script, and return when its load begins."""
    command = [sys.executable, "examples/load.py", "--url", f"http://127.0.0.1:{web.port}", "--key", web.key, *options]
    with subprocess.Popen(
        command, cwd=BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            announced = process.stdout.readline()
            found = re.match(r"test clock (\S+), tenants ", announced)
            assert found, announced + process.communicate()[0]
            yield Load(process, found[1])
        finally:
            process.kill()


@pytest.mark.django_db(transaction=True)
def test_a_quiet_load_prints_the_figures_of_the_books_and_touches_no_other_tenant(web):
    world = make_world()
    world.use(12_345)
    mix = "single=50,batch100=5,batch7=20,duplicate=25"
    options = ["--rate", "500", "--duration", "2", "--mix", mix, "--tenants", "3", "--connections", "8"]
    with load(web, *options) as script:
        assert script.ended() == 0, script.printed

    events = UsageEvent.objects.filter(source=script.run)
    posted = events.count()
    assert set(events.values_list("subject", flat=True)) == {f"{script.run}-{number}" for number in (1, 2, 3)}
    balances = MeterBalance.objects.filter(tenant__test_clock__code=script.run)
    used = balances.aggregate(Sum("used"))["used__sum"]
    assert script.figure("accepted") == posted == balances.aggregate(Sum("events"))["events__sum"]
    assert script.figure("duplicates") == script.figure("duplicates", position=1) > 0
    assert script.figure("sent") == posted + script.figure("duplicates") >= 1000
    assert script.figure("acknowledged") == script.figure("in the books") == used
    assert script.figure("difference") == 0
    assert "errors        none" in script.printed
    for kind in ("single", "batch100", "batch7", "duplicate", "all"):
        assert script.figure(kind) > 0

    assert not Invoice.objects.filter(tenant__test_clock__code=script.run).exists()
    assert world.position() == ("12345", "10000", "2345")
    assert web.audit().startswith("The books are right")

    with load(web, "--rate", "20", "--duration", "1", "--tenants", "1") as later:
        assert later.ended() == 0, later.printed
    on_the_tier = Tenant.objects.filter(subscriptions__version__tier__code=TIER)
    assert list(on_the_tier.order_by("id").values_list("test_clock__code", flat=True)) == [script.run] * 3 + [later.run]


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_process_leaves_unanswered_is_sent_again_and_waiting_counts_from_the_schedule(web):
    options = ["--rate", "50", "--duration", "2", "--mix", "single=9,batch10=1", "--tenants", "1", "--connections", "4"]
    with load(web, *options) as script:
        with held(BALANCE, f"{script.run}-1") as lock:
            web.kill_who_waits("web", lock)
            # Most requests become due while nothing is answered, though only four of them are on their way.
            time.sleep(1.5)
        assert script.ended() == 0, script.printed
    assert "no answer" in script.printed
    assert script.figure("sent", position=2) > 0
    assert script.figure("difference") == 0
    assert script.figure("all", position=1) > 300  # the median, in milliseconds
    each = UsageEvent.objects.filter(source=script.run).values("event_id").annotate(Count("id"))
    assert set(each.values_list("id__count", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_usage_of_its_tenants_that_it_did_not_post_is_a_difference(web):
    # Single events alone, so that the schedule fills both seconds and the intruder comes in between.
    with load(web, "--rate", "50", "--duration", "2", "--tenants", "2", "--mix", "single=1") as script:
        data = {"total_tokens": 5}
        intruder = {"id": "intruder", "subject": f"{script.run}-2", "type": "load.tokens", "data": data}
        assert web.api.call("POST", "/events", intruder).status == 202
        assert script.ended() == 1, script.printed
    assert script.figure("difference") == 5
    assert re.search(rf"^  {script.run}-2: [\d,]+ in the books", script.printed, re.MULTILINE)
    assert f"  {script.run}-1: " not in script.printed


def test_a_mix_names_kinds_their_sizes_and_shares():
    assert parse_mix("single=80, batch100=15.5,duplicate=5") == [
        Kind("single", 1, 80.0),
        Kind("batch100", 100, 15.5),
        Kind("duplicate", 1, 5.0),
    ]


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--mix", "single", "'single' is not"),
        ("--mix", "triple=3", "'triple=3' is not"),
        ("--mix", "batch1001=1", "a batch has 1 to 1000 events"),
        ("--mix", "batch0=1", "a batch has 1 to 1000 events"),
        ("--mix", "single=0,duplicate=1", "some requests must have new events"),
        ("--rate", "nan", "must be 0 or more"),
        ("--connections", "0", "must be 1 or more"),
    ],
)
def test_options_that_make_no_load_are_refused(capsys, option, value, complaint):
    with pytest.raises(SystemExit) as refusal:
        parser().parse_args([option, value])
    assert refusal.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.01, 1), (1, 10)])
def test_a_percentile_is_one_of_the_latencies(share, expected):
    assert percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], share) == expected
