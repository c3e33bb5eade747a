"""What rounds said over time: told for each that changed something, kept as evidence where it contradicted."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from umec_attest.digests import parse_pcr_values
from umec_attest.quote import verify_quote
from umec_attest.service.evidence import history
from umec_attest.service.tables import BootLogRow, EvidenceRow, NodeRow, RoundRow
from umec_attest.testing.adversary import extend_pcr
from umec_attest.testing.image import Tamper
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import parse_public

Run = Callable[..., None]

SENT = ("quote", "signature", "pcrs")


async def told(world: Any, node: str = "node-1", **query: Any) -> list[dict[str, Any]]:
    return list((await world.get(f"nodes/{node}/history", **query))["history"])


async def counted(world: Any, row: Any) -> int:
    async with world.service._store.read() as session:
        return int(await session.scalar(select(func.count()).select_from(row)) or 0)


def test_each_round_that_changes_something_is_told_and_no_other(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            world.clock.advance(30)
            await world.round(booted)
            world.clock.advance(200)
            await world.round(booted)  # another result, and nothing new about the node
            await world.reference(2)
            await world.round(booted)  # judged by another set, and the same about the node
            (first,) = await told(world)
            assert (first["verdict"], first["findings"], first["standing"], first["round"]) == (
                "affirming",
                [],
                "trusted",
                1,
            )
            booted.reboot()
            await world.round(booted, status=422)
            await world.round(booted)
            await world.round(booted)
            rounds = await told(world)
            assert [(each["round"], each["findings"]) for each in rounds] == [(6, []), (5, ["rebooted"]), (1, [])]
            assert rounds[1]["reset_count"] > first["reset_count"]
            extend_pcr(booted.tpm, 4)
            await world.round(booted)
            await world.round(booted)
            assert len(await told(world)) == 4  # the same findings again are no news
            fallen = (await told(world))[0]
            assert (fallen["verdict"], fallen["standing"], fallen["generation"]) == ("contraindicated", "untrusted", 3)
            last = (await world.get("nodes/node-1/explain"))["last_round"]
            assert fallen["policy_sha256"] == last["policy_sha256"]
            assert fallen["reference"] == last["reference"]

    run(body)


def test_what_an_operator_changed_in_between_is_news_of_the_next_round(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            await world.round(booted)
            assert [each["standing"] for each in await told(world)] == ["trusted", "trusted"]

    run(body)


def test_the_evidence_of_a_contradiction_can_be_judged_again(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            good = (await told(world))[0]
            booted.reboot(Tamper.CMDLINE)
            challenge = {**await world.challenge(), "boot_log": "full"}
            sent = booted.evidence(challenge)
            assert (await world.post("evidence", sent))["standing"] == "untrusted"
            sha256 = (await told(world))[0]["evidence_sha256"]
            kept = await world.get(f"nodes/node-1/evidence/{sha256}")
            assert {name: kept[name] for name in SENT} == {name: sent[name] for name in SENT}
            assert base64.b64decode(kept["boot_log"]) == booted.log
            quote = verify_quote(
                attest=base64.b64decode(kept["quote"]),
                signature=base64.b64decode(kept["signature"]),
                ak=parse_public(base64.b64decode(kept["ak_public"])),
                ak_parent=parse_public(base64.b64decode(kept["ek_public"])),
                nonce=base64.b64decode(kept["nonce"]),
                selection=PcrSelection.from_mapping(challenge["pcrs"]),
                pcrs=parse_pcr_values(kept["pcrs"]),
            )
            assert quote.clock_info.reset_count == (await told(world))[0]["reset_count"]
            for path in (f"nodes/node-2/evidence/{sha256}", f"nodes/node-1/evidence/{good['evidence_sha256']}"):
                assert (await world.get(path, status=404))["code"] == "evidence-unknown"
            stranger = world.token("attest:read", tenant="globex")
            for path in (f"nodes/node-1/evidence/{sha256}", "nodes/node-1/history"):
                assert (await world.get(path, headers=stranger, status=404))["code"] == "node-unknown"
                own = world.token("attest:read", tenant="acme")
                await world.get(path, headers=own)

    run(body)


def test_history_and_evidence_are_kept_for_their_days(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            booted.reboot(Tamper.CMDLINE)
            challenge = {**await world.challenge(), "boot_log": "full"}
            await world.post("evidence", booted.evidence(challenge))
            sha256 = (await told(world))[0]["evidence_sha256"]

            async def forget_log(session: Any) -> None:
                (await session.get_one(NodeRow, "node-1")).boot_log_sha256 = None

            await world.service._store.write(forget_log)  # the node boots another log: this one is evidence only
            world.clock.advance(timedelta(days=2).total_seconds() - 1)
            await world.service.tend()
            kept = await world.get(f"nodes/node-1/evidence/{sha256}")
            assert base64.b64decode(kept["boot_log"]) == booted.log
            assert len(await told(world)) == 2
            world.clock.advance(2)
            await world.service.tend()
            assert await told(world) == []
            assert (await counted(world, EvidenceRow), await counted(world, BootLogRow)) == (0, 0)
            assert (await world.get(f"nodes/node-1/evidence/{sha256}", status=404))["code"] == "evidence-unknown"

    run(body, history_days=2)


def test_no_node_fills_the_history(run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_OF_NODE", 2)

    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(other)
            await world.ready_node(booted)
            for kept in ([2, 1], [3, 2], [4, 3]):
                await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
                await world.post("nodes/node-1/readmit", {}, headers=world.admin)
                await world.round(booted)
                assert [each["round"] for each in await told(world)] == kept
            assert len(await told(world, "node-2")) == 1

    run(body)


def test_a_long_history_comes_in_pages(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)

            async def many(session: Any) -> None:
                row = await session.scalar(select(RoundRow))
                kept = {column.name: getattr(row, column.name) for column in RoundRow.__table__.columns}
                await session.execute(delete(RoundRow))
                for number in range(1, 131):
                    session.add(RoundRow(**{**kept, "seq": number, "round": number}))

            await world.service._store.write(many)
            first = await world.get("nodes/node-1/history")
            assert [each["round"] for each in first["history"]] == list(range(130, 30, -1))
            second = await world.get("nodes/node-1/history", before=first["next"])
            assert [each["round"] for each in second["history"]] == list(range(30, 0, -1))
            assert "next" not in second

    run(body)
