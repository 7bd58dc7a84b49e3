"""docs/gateway.md: every command of the page is run against a real installation, and answers what the page says."""

import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"
MARK = "=== next ==="

pytestmark = pytest.mark.django_db(transaction=True)

# What differs from run to run.
_VARYING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "an-id"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "a-time"),
    (re.compile(r";t=[0-9]+"), ";t=some"),
)


def commands_of(page: str) -> list[tuple[str, str]]:
    """Return each command of the page's console blocks, with the answer that stands under it."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.S)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return [(command, answer.strip()) for command, _, answer in (part.partition("\n") for part in parts)]


def run(commands: list[str], *, api: str, key: str, directory: Path) -> list[str]:
    """Run commands in one shell, and return what each printed."""
    script = "\n".join(f"{command}\necho '{MARK}'" for command in commands)
    environment = {"API": api, "KEY": key, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return [answer.replace("\r", "").strip() for answer in done.stdout.split(f"{MARK}\n")[:-1]]


def alike(text: str) -> str:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def test_every_command_of_the_page_answers_what_the_page_says(web, tmp_path):
    commands = commands_of(PAGE.read_text())
    answers = run([command for command, _ in commands], api=f"{web.url}/api/v1", key=web.key, directory=tmp_path)
    assert len(answers) == len(commands) > 20
    for (command, expected), answer in zip(commands, answers, strict=True):
        assert alike(answer) == alike(expected), command
