"""The outbox: in order, at least once, whatever happens to the process."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.outbox import Dispatcher, OutboxTopicUnknown, put
from umec_core.store import Store

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

PROGRAM = textwrap.dedent("""
    import asyncio, os, signal, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from sqlalchemy.orm import DeclarativeBase
    from umec_core.outbox import Dispatcher, OutboxMixin, put
    from umec_core.store import Store

    class Base(DeclarativeBase):
        pass

    class Box(OutboxMixin, Base):
        __tablename__ = "outbox"

    now = lambda: datetime(2026, 11, 22, tzinfo=UTC)

    async def main(url, migrations, effects, mode):
        store = await Store.open(url, migrations=Path(migrations))
        if mode == "decide":
            async def decide(session):
                for number in range(30):
                    await put(session, Box, "effect", {"number": number}, now())
            await store.write(decide)
            os.kill(os.getpid(), signal.SIGKILL)
        async def effect(payload):
            with open(effects, "a") as file:
                file.write(f"{payload['number']}\\n")
            await asyncio.sleep(0.02 if mode == "slow" else 0)
        await Dispatcher(store, Box, {"effect": effect}, now).drain()
        await store.close()

    asyncio.run(main(*sys.argv[1:]))
""")


def run(body: Callable[[Store], Any], url: str, migrations: Path) -> None:
    async def opened() -> None:
        store = await Store.open(url, migrations=migrations)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(opened())


def test_nothing_is_lost_by_sigkill(tmp_path: Path, sqlite: str, migrations: Path) -> None:
    program, effects = tmp_path / "program.py", tmp_path / "effects"
    program.write_text(PROGRAM)

    def start(mode: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, program, sqlite, str(migrations), effects, mode])

    assert start("decide").wait() == -signal.SIGKILL  # between the decision and its first effect
    assert not effects.exists()
    slow = start("slow")
    for _ in range(1000):
        if effects.exists() and effects.read_text().count("\n") >= 5:
            break
        time.sleep(0.01)
    os.kill(slow.pid, signal.SIGKILL)  # in the midst of the effects
    assert slow.wait() == -signal.SIGKILL
    assert start("fast").wait() == 0
    done = [int(line) for line in effects.read_text().split()]
    assert done == sorted(done)
    assert set(done) == set(range(30))
    assert len(done) <= 31


def test_a_failing_effect_holds_up_those_behind_it(sqlite: str, migrations: Path, schema: Any) -> None:
    async def body(store: Store) -> None:
        done: list[int] = []
        third, fourth = asyncio.Event(), asyncio.Event()
        failures = iter([True, True, False])

        async def effect(payload: dict[str, Any]) -> None:
            if payload["n"] == 1 and next(failures, False):
                raise OSError("not now")
            done.append(payload["n"])
            if payload["n"] >= 2:
                (third if payload["n"] == 2 else fourth).set()

        async def decide(session: AsyncSession) -> None:
            for number in range(3):
                await put(session, schema.Box, "effect", {"n": number}, NOW)

        await store.write(decide)
        dispatcher = Dispatcher(store, schema.Box, {"effect": effect}, lambda: NOW)
        task = asyncio.create_task(dispatcher.run())
        await third.wait()
        assert done == [0, 1, 2]
        await store.write(lambda session: put(session, schema.Box, "effect", {"n": 3}, NOW))
        dispatcher.kick()
        await asyncio.wait_for(fourth.wait(), 30)
        task.cancel()

    run(body, sqlite, migrations)


def test_what_a_failed_decision_would_cause_never_happens(sqlite: str, migrations: Path, schema: Any) -> None:
    async def body(store: Store) -> None:
        async def decide(session: AsyncSession) -> None:
            await put(session, schema.Box, "effect", {}, NOW)
            raise LookupError

        with pytest.raises(LookupError):
            await store.write(decide)
        async with store.read() as session:
            assert await session.scalar(select(func.count()).select_from(schema.Box)) == 0

    run(body, sqlite, migrations)


def test_an_unknown_topic_stays_until_somebody_handles_it(sqlite: str, migrations: Path, schema: Any) -> None:
    async def body(store: Store) -> None:
        await store.write(lambda session: put(session, schema.Box, "new", {"n": 1}, NOW))
        with pytest.raises(OutboxTopicUnknown) as refused:
            await Dispatcher(store, schema.Box, {}, lambda: NOW).drain()
        assert refused.value.code == "outbox-topic-unknown"
        done: list[dict[str, Any]] = []

        async def effect(payload: dict[str, Any]) -> None:
            done.append(payload)

        await Dispatcher(store, schema.Box, {"new": effect}, lambda: NOW).drain()
        assert done == [{"n": 1}]

    run(body, sqlite, migrations)
