"""Boot logs that are meant to fill a verifier: refused before anything is decoded, and nothing is unpacked."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

Run = Callable[..., None]
HUGE, PIECE = 64 * 1024 * 1024, 65536


def test_a_log_of_64_mib_is_refused_before_it_is_decoded(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            start, end = json.dumps({**evidence, "boot_log": "|"}).encode().split(b"|")
            read = 0

            async def sent() -> Any:
                nonlocal read
                yield start
                while read < HUGE:
                    read += PIECE
                    yield b"A" * PIECE
                yield end

            answer = await world.http.post("/attest/v1/evidence", content=sent())
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
            assert read < HUGE // 16
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_a_compressed_bomb_is_not_unpacked(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            packed = gzip.compress(json.dumps({**evidence, "boot_log": "A" * HUGE}).encode(), 1)
            assert len(packed) < HUGE // 100
            for encoding in ("gzip", "deflate", "zstd", "identity"):
                answer = await world.http.post(
                    "/attest/v1/evidence",
                    content=packed,
                    headers={"content-encoding": encoding, "content-type": "application/json"},
                )
                assert answer.status_code == 400
                assert answer.json()["code"] == "json-malformed"  # as it came: unpacked it would be too large
            log = base64.b64encode(gzip.compress(bytes(HUGE), 1)).decode()
            answer = await world.post("evidence", {**evidence, "boot_log_sha256": None, "boot_log": log})
            assert answer["verdict"] == "contraindicated"

    run(body)
