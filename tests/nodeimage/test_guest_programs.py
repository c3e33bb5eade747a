"""The programs in a node image that are shell, run by the shell that runs them there: BusyBox's."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

GUEST = files("umec_images.nodeimage").joinpath("guest")


def function(program: str, name: str) -> str:
    """The text of a function in one of the programs."""
    found = re.search(rf"^{name}\(\) \{{\n.*?^\}}\n", GUEST.joinpath(program).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def shell(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["busybox", "sh", "-c", text], capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def process_named(name: str) -> Iterator[None]:
    """Another program that says that it is this one."""
    with subprocess.Popen([name, "infinity"], executable="/usr/bin/sleep", stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def test_a_process_with_the_name_of_the_agent_s_program_keeps_it_from_nothing(tmp_path: Path) -> None:
    start = function("init.sh", "as_agent")
    for place, here in (("/run/agent.pid", str(tmp_path / "pid")), ("-c umec-agent ", "")):
        assert place in start
        start = start.replace(place, here)
    program = "/usr/bin/printf"
    for _ in range(2):
        with process_named(program):
            done = shell(f"{start}\nas_agent {program} -- started")
        assert (done.returncode, done.stdout) == (0, "started"), done.stderr
        (tmp_path / "pid").write_text("1\n")  # whatever was there before is no reason


def test_a_ticket_of_the_host_is_handed_on_as_far_as_one_is_long() -> None:
    [line] = [line for line in GUEST.joinpath("init.sh").read_text().splitlines() if "$ticket >" in line]
    assert "head -c 8193 $ticket" in line


def test_root_writes_nothing_for_the_agent_where_the_agent_s_user_could_have_put_a_link() -> None:
    """Before the agent runs, its user already reads what whoever holds the disk wrote (`unlock`)."""
    lines = GUEST.joinpath("init.sh").read_text().splitlines()
    [handed] = [number for number, line in enumerate(lines) if "chown" in line and " /run/umec-agent " in line]
    written = [number for number, line in enumerate(lines) if "> /run/umec-agent/" in line]
    opened = [number for number, line in enumerate(lines) if "/usr/lib/umec/data " in line]
    assert len(written) == 2
    assert max(written + opened) < handed
