"""A token of a node at the verifier itself, which knows more than any feed has told: each reason by itself."""

from collections.abc import Callable
from typing import Any

from umec_core.standing import Standing, StandingEntry, StandingStatement

Run = Callable[..., None]


def test_the_verifier_s_own_word_counts_whatever_the_feed_has_told(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        def told(seq: int, node: str, generation: int) -> None:
            entry = StandingEntry(seq, node, "acme", Standing.TRUSTED, generation, world.clock())
            world.view.apply(StandingStatement(world.clock(), seq - 1, seq, None, (entry,)))

        async def asked(node: str, generation: int) -> tuple[int, str | None]:
            who = world.token("attest:read", node=node, generation=generation)
            answer = await world.http.get("/attest/v1/nodes", headers=who)
            return answer.status_code, answer.json().get("code")

        with tpms.booted() as booted:
            await world.ready_node(booted)
            told(1, "ghost", 1)
            told(2, "node-1", 2)
            assert await asked("node-1", 2) == (200, None)
            assert await asked("ghost", 1) == (403, "standing-fallen")
            told(3, "node-1", 3)
            assert await asked("node-1", 3) == (403, "standing-fallen")  # it never was in this generation
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            assert await asked("node-1", 3) == (403, "standing-fallen")  # it is, and does not stand

    run(body)
