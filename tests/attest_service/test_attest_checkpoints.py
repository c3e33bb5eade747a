"""Checkpoints for all who want to remember: a log that was changed on disk cannot go on from what it had shown."""

import asyncio
import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from umec_attest.agent.errors import LogInconsistent, LogKeyChanged, LogRefused, LogShrunk
from umec_attest.agent.wire import ShownCheckpoint
from umec_attest.agent.witness import SeenLog, next_seen
from umec_core.tree import leaf_hash


async def shown(world: Any, first: int = 0) -> ShownCheckpoint:
    answer = await world.http.get("/attest/v1/checkpoint", params={"from": first})  # without any token
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return ShownCheckpoint(
        said["origin"],
        base64.b64decode(said["key"]),
        said["checkpoint"],
        tuple(base64.b64decode(node) for node in said["proof"]),
    )


async def write(world: Any, entries: int) -> None:
    for _ in range(entries):
        body = {"asset": "node-9", "tenant": "acme", "image": "edge-node", "ek_sha256": "ab" * 32}
        await world.post("tickets", body, status=201, headers=world.admin)


def test_a_log_that_grows_is_proved_from_every_size(run: Any) -> None:
    async def body(world: Any) -> None:
        seen: list[SeenLog] = []
        for _ in range(6):
            seen.append(next_seen(None, await shown(world)))
            await write(world, 1)
        for older in seen:
            newest = next_seen(older, await shown(world, older.verified().size))
            assert newest.verified().size == 6
        assert (await shown(world, 99)).proof == ()

    run(body)


@pytest.mark.parametrize("size", ["-1", "x", str(2**53)])
def test_a_size_that_is_none_is_refused(run: Any, size: str) -> None:
    async def body(world: Any) -> None:
        await world.get("checkpoint", **{"from": size}, status=400)
        await world.get("checkpoint", **{"from": str(2**53 - 1)})

    run(body)


def test_the_checkpoint_is_that_of_the_exported_log(run: Any) -> None:
    async def body(world: Any) -> None:
        await write(world, 3)
        said = await shown(world)
        exported = await world.get("audit")
        assert (
            next_seen(None, said).verified()
            == next_seen(None, ShownCheckpoint(exported["origin"], said.key, exported["checkpoint"], ())).verified()
        )

    run(body)


def rewrite(rows: sqlite3.Connection) -> None:
    entry = rows.execute("SELECT entry FROM audit WHERE `index` = 1").fetchone()[0].replace("acme", "evil")
    rows.execute("UPDATE audit SET entry = ?, leaf = ? WHERE `index` = 1", (entry, leaf_hash(entry.encode())))


def cut(rows: sqlite3.Connection) -> None:
    rows.execute("DELETE FROM audit WHERE `index` >= 3")


def fork(rows: sqlite3.Connection) -> None:
    rows.execute("UPDATE audit SET leaf = ? WHERE `index` = 4", (leaf_hash(b"what others are shown"),))


def lose_key(folder: Path) -> None:
    (folder / "state" / "audit.key").unlink()


@pytest.mark.parametrize(
    ("change", "error"),
    [(rewrite, LogInconsistent), (cut, LogShrunk), (fork, LogInconsistent), (lose_key, LogKeyChanged), (None, None)],
    ids=["rewritten", "cut", "forked", "another-key", "unchanged"],
)
def test_a_log_that_was_changed_between_two_starts_is_found_out(
    reopen: Any, clock: Any, tmp_path: Path, change: Any, error: type[LogRefused] | None
) -> None:
    async def body() -> None:
        async with reopen(clock) as world:
            await write(world, 5)
            seen = next_seen(None, await shown(world))
        if change is lose_key:
            lose_key(tmp_path)
        elif change is not None:
            with sqlite3.connect(tmp_path / "attest.db") as rows:
                change(rows)
            rows.close()
        async with reopen(clock) as world:
            await write(world, 0 if change is cut else 2)
            later = await shown(world, 5)
        if error is None:
            assert next_seen(seen, later).verified().size == 7
            return
        with pytest.raises(error) as refused:
            next_seen(seen, later)
        assert refused.value.code == error.code

    asyncio.run(body())
