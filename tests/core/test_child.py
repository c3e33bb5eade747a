"""A program beside us: it is ready or refused, started again, ended in time, and never an orphan."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from umec_core.child import Child, ChildFailed, ChildTimes, append_bounded
from umec_core.errors import Unavailable

QUICK = ChildTimes(start=5.0, stop=0.2, first_pause=0.05, last_pause=0.1)

ORPHANS = """
import asyncio, sys
from umec_core.child import Child

async def main():
    child = Child("sleeper", lambda: ["sleep", "60"], orphan=sys.argv[1])
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def until(look, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not (found := look()):  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.01)
    return found


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def shell(text, *, name="shell", **options):
    return Child(name, lambda: ["sh", "-c", text], times=options.pop("times", QUICK), **options)


async def never():
    return False


@contextlib.asynccontextmanager
async def kept(child, again=None):
    task = asyncio.create_task(child.keep(again))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await child.stop()


def test_what_ends_at_its_start_is_refused_and_what_becomes_ready_is_not(tmp_path):
    async def go():
        said = tmp_path / "said"

        async def ready():
            return said.exists()

        with pytest.raises(ChildFailed, match="status 3") as caught:
            await shell("exit 3", ready=ready).start()
        assert (caught.value.code, caught.value.kind) == ("child-failed", Unavailable.kind)
        child = shell(f"sleep 0.1; touch {said}; sleep 60", ready=ready)
        await child.start()
        assert said.exists()
        assert alive(child.pid)
        await child.stop()

    asyncio.run(go())


def test_what_does_not_become_ready_in_time_is_refused_and_ended(tmp_path):
    async def go():
        child = shell(
            f"echo $$ > {tmp_path / 'pid'}; exec sleep 60", ready=never, times=ChildTimes(start=0.5, stop=1.0)
        )
        with pytest.raises(ChildFailed, match="not ready after"):
            await child.start()
        assert child.pid is None
        assert not alive(int((tmp_path / "pid").read_text()))

    asyncio.run(go())


def test_a_start_that_is_cancelled_leaves_nothing(tmp_path):
    async def go():
        pid = tmp_path / "pid"
        starting = asyncio.create_task(shell(f"echo $$ > {pid}; exec sleep 60", ready=never).start())
        await until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not alive(int(pid.read_text()))

    asyncio.run(go())


def test_a_program_that_is_not_there(tmp_path, monkeypatch):
    async def go():
        with pytest.raises(ChildFailed, match="status 127"):
            await Child("none", lambda: [str(tmp_path / "none")], ready=never, times=QUICK).start()
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ChildFailed, match="cannot be started"):
            await shell("true").start()

    asyncio.run(go())


def test_what_ends_is_started_again_and_what_it_had_is_given_again():
    async def go():
        lives = []

        async def again():
            lives.append(child.pid)

        child = shell("exec sleep 60")
        await child.start()
        async with kept(child, again):
            first = child.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: lives)
            assert lives == [child.pid]
            assert child.pid != first
            assert alive(child.pid)
        assert not alive(lives[0])

    with structlog.testing.capture_logs() as told:
        asyncio.run(go())
    assert [(one["event"], one.get("status"), one.get("again_in")) for one in told] == [
        ("child ended", -signal.SIGKILL, 0.05),
        ("child runs", None, None),
    ]


def test_what_does_not_run_yet_is_started_at_once_and_a_failed_start_is_tried_again():
    async def go():
        tries = []

        def command():
            tries.append(asyncio.get_running_loop().time())
            return ["sh", "-c", "exit 1" if len(tries) < 4 else "exec sleep 60"]

        async def ready():
            return len(tries) == 4

        child = Child("late", command, ready=ready, times=QUICK)
        async with kept(child):
            await until(lambda: len(tries) == 4 and child.pid)
        assert tries[2] - tries[1] >= 0.1

    with structlog.testing.capture_logs() as told:
        asyncio.run(go())
    assert [one["again_in"] for one in told if one["event"] == "child does not start"] == [0.05, 0.1, 0.1]


def test_a_start_whose_state_cannot_be_given_again_is_no_start():
    async def go():
        refusals = []

        async def again():
            if not refusals:
                refusals.append(child.pid)
                raise ChildFailed("what it held cannot be given to it")
            refusals.append(child.pid)

        child = shell("exec sleep 60")
        async with kept(child, again):
            await until(lambda: len(refusals) == 2)
            assert not alive(refusals[0])
            assert alive(refusals[1])

    asyncio.run(go())


def test_pauses_double_up_to_the_last_and_begin_anew_after_a_long_life():
    times = ChildTimes(first_pause=0.5, last_pause=3.0)
    pauses = [0.0]
    for _ in range(5):
        pauses.append(times.pause(pauses[-1], lived=3.0))
    assert pauses == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert times.pause(3.0, lived=3.1) == 0.5


def test_who_does_not_end_when_asked_is_killed_and_who_does_is_not(tmp_path):
    async def go():
        for text, killed in (("trap '' TERM; echo > {}; sleep 60 & wait; wait", True), ("echo > {}; sleep 60", False)):
            begun = tmp_path / f"begun-{killed}"
            child = shell(text.format(begun), times=ChildTimes(stop=0.2))
            await child.start()
            await until(begun.exists)
            pid = child.pid
            with structlog.testing.capture_logs() as told:
                await child.stop()
            assert not alive(pid)
            assert [one["event"] for one in told] == (["child does not end and is killed"] if killed else [])
            await child.stop()

    asyncio.run(go())


@pytest.mark.parametrize("orphan", ["TERM", "KILL"])
def test_nobody_is_left_behind(orphan):
    with subprocess.Popen([sys.executable, "-c", ORPHANS, orphan], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        # The parent's death is only heard once `setpriv` has asked for it: until then the program is another one.
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parent.kill()
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_it_writes_is_kept_although_something_holds_its_output_open(tmp_path):
    async def go():
        log = tmp_path / "log"
        child = shell("echo out; echo err >&2; sleep 3 & exit 1", ready=never, log_file=log)
        with pytest.raises(ChildFailed):
            await child.start()
        assert sorted(log.read_text().split()) == ["err", "out"]
        assert log.stat().st_mode & 0o777 == 0o600

    asyncio.run(go())


def test_its_log_is_bounded_and_keeps_the_end(tmp_path):
    log = tmp_path / "registry.log"
    for number in range(1000):
        append_bounded(log, f"{number}\n".encode(), 100)
    kept = (tmp_path / "registry.log.1").read_bytes() + (log.read_bytes() if log.exists() else b"")
    assert len(kept) <= 220
    assert kept.endswith(b"998\n999\n")
    assert {each.name for each in tmp_path.iterdir()} <= {"registry.log", "registry.log.1"}
