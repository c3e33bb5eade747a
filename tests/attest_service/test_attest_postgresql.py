"""The same service on PostgreSQL: two replicas of it, where whole rounds and races end as on SQLite."""

import asyncio
import base64
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from umec_core.audit import verify_export
from umec_core.standing import StandingView
from umec_core.testing import temporary_postgresql


def test_two_replicas_on_one_database_agree(reopen: Any, tpms: Any, clock: Any) -> None:
    async def body(url: str) -> None:
        async with reopen(clock, database=url) as here, reopen(clock, database=url) as there:
            with tpms.booted() as booted:
                assert (await here.ready_node(booted))["standing"] == "trusted"
                evidence = booted.evidence(await there.challenge())
                asked = [world.http.post("/attest/v1/evidence", json=evidence) for world in (here, there) * 4]
                found = Counter(
                    (answer.status_code, answer.json().get("code")) for answer in await asyncio.gather(*asked)
                )
                assert found == {(200, None): 1, (409, "evidence-replayed"): 7}

                await here.service.look()
                clock.advance(300)  # both were away
                await there.service.look()
                await here.service.look()
                node = await here.get("nodes/node-1")
                left = datetime.fromisoformat(node["deadline"]) - clock()
                assert (node["standing"], left) == ("trusted", timedelta(seconds=90))

                kept = {"secret": base64.b64encode(bytes(32)).decode()}
                await here.http.put("/attest/v1/nodes/node-1/secrets/disk", json=kept, headers=here.admin)
                wanted = {"name": "disk", "evidence": booted.evidence(await there.challenge())}
                released = await there.post("secrets/release", wanted)  # both read the key of one state folder
                assert (released["name"], released["version"]) == ("disk", 1)

                view = StandingView()
                view.apply(await there.statement())
                waiting = asyncio.create_task(there.statement(view.last, wait=5))
                await here.post("nodes/node-1/quarantine", {}, headers=here.admin)
                view.apply(await waiting)
                assert view.entries["node-1"].standing.value == "quarantined"

                export = await there.get("audit")
                verify_export(export, there.service.audit_public_key)
                assert len(export["entries"]) >= 6

    with temporary_postgresql() as url:
        asyncio.run(body(url))
