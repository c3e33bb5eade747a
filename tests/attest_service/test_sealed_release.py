"""Sealed release: who gets which secret, over HTTP and with TPMs that really open what was sealed for them."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from umec_attest.agent.errors import TpmRefused
from umec_attest.agent.tpm import sealing
from umec_attest.sealed import SealedSecret
from umec_attest.service.errors import SecretUnreadable
from umec_attest.service.vault.cabinet import Cabinet
from umec_attest.testing.image import Tamper
from umec_attest.testing.node import SoftwareNode

Run = Callable[..., None]

KEY = bytes(range(64))
SECRETS = "nodes/node-1/secrets"


def sealed(answer: dict[str, Any]) -> SealedSecret:
    public, duplicate, seed = (base64.b64decode(answer[name]) for name in ("public", "duplicate", "encrypted_seed"))
    counts = answer["reset_count"], answer["restart_count"]
    return SealedSecret(public, duplicate, seed, tuple(answer["pcrs"]["sha256"]), *counts, answer["clock_until"])


def opened(node: SoftwareNode, answer: dict[str, Any]) -> bytes:
    return node.tpm.do(lambda esys: sealing.unseal_released(esys, sealed(answer)))


async def store(world: Any, name: str = "disk", *, secret: bytes = KEY, status: int = 200, **more: Any) -> Any:
    place = more.pop("place", SECRETS)
    headers = more.pop("headers", world.admin)
    body = {"secret": base64.b64encode(secret).decode(), **more}
    answer = await world.http.put(f"/attest/v1/{place}/{name}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def release(world: Any, booted: Any, name: str = "disk", *, status: int = 200) -> Any:
    challenge = await world.challenge(booted.node.name)
    return await world.post("secrets/release", {"name": name, "evidence": booted.evidence(challenge)}, status=status)


def test_a_trusted_node_gets_its_secret_and_its_tpm_alone_opens_it(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            stored = await store(world)
            assert (stored["version"], stored["set_by"], stored["releases"]) == (1, "operator", 0)
            answer = await release(world, booted)
            assert (answer["node"], answer["name"], answer["version"]) == ("node-1", "disk", 1)
            assert answer["standing"] == "trusted"
            assert await asyncio.to_thread(opened, booted.node, answer) == KEY
            shown = (await world.get(SECRETS))["secrets"]
            assert [(row["name"], row["releases"]) for row in shown] == [("disk", 1)]
            assert shown[0]["released_at"] == "2034-11-22T12:00:00.000000Z"

    run(body)


def test_another_tpm_opens_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await store(world)
            answer = await release(world, booted)
            with pytest.raises(TpmRefused):
                await asyncio.to_thread(opened, other.node, answer)
            assert await asyncio.to_thread(opened, booted.node, answer) == KEY

    run(body)


def test_a_node_does_not_get_the_secret_of_another(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            await store(world)
            refused = await release(world, other, status=404)
            assert refused["code"] == "secret-unknown"
            stolen = booted.evidence(await world.challenge("node-1")) | {"node": "node-2"}
            answer = await world.post("secrets/release", {"name": "disk", "evidence": stolen}, status=422)
            assert answer["code"] == "nonce-unknown"
            assert (await release(world, booted))["name"] == "disk"
            assert ("secret.release", "refused", "secret-unknown") in await world.audited()

    run(body)


def test_evidence_that_is_stale_or_replayed_releases_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            request = {"name": "disk", "evidence": booted.evidence(await world.challenge())}
            await world.post("secrets/release", request)
            assert (await world.post("secrets/release", request, status=409))["code"] == "evidence-replayed"
            late = {"name": "disk", "evidence": booted.evidence(await world.challenge())}
            world.clock.advance(20)
            assert (await world.post("secrets/release", late, status=422))["code"] == "nonce-expired"
            used = booted.evidence(await world.challenge())
            await world.post("evidence", used)
            answer = await world.post("secrets/release", {"name": "disk", "evidence": used}, status=409)
            assert answer["code"] == "evidence-replayed"
            assert (await world.get(SECRETS))["secrets"][0]["releases"] == 1

    run(body)


@pytest.mark.parametrize(("decision", "code"), [("quarantine", "secret-standing"), ("revoke", "node-revoked")])
def test_an_operator_s_word_ends_releases(run: Run, tpms: Any, decision: str, code: str) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            evidence = booted.evidence(await world.challenge())
            await world.post(f"nodes/node-1/{decision}", {}, headers=world.admin)
            refused = await world.post("secrets/release", {"name": "disk", "evidence": evidence}, status=403)
            assert refused["code"] == code
            if decision == "revoke":
                assert (await store(world, status=403))["code"] == code

    run(body)


def test_a_node_that_is_not_approved_gets_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.reference()
            await world.enrol(booted.node)
            await store(world)
            assert (await release(world, booted, status=409))["code"] == "node-assignment-missing"
            approval = {"tenant": "acme", "image": "edge-node"}
            await world.post("nodes/node-1/approve", approval, headers=world.admin)
            assert (await release(world, booted))["standing"] == "trusted"

    run(body)


def test_a_node_found_untrusted_gets_nothing_and_learns_no_names(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            booted.reboot(Tamper.KERNEL)
            assert (await release(world, booted, status=422))["code"] == "boot-log-required"
            for name in ("disk", "none"):
                assert (await release(world, booted, name, status=403))["code"] == "secret-standing"
            booted.reboot()
            assert (await release(world, booted))["standing"] == "trusted"

    run(body)


def test_a_lapsed_node_proves_itself_by_the_very_evidence_that_asks(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            evidence = booted.evidence(await world.challenge())
            await world.pass_time(91)
            assert (await world.get("nodes/node-1"))["standing"] == "lapsed"
            answer = await world.post("secrets/release", {"name": "disk", "evidence": evidence}, status=422)
            assert answer["code"] == "nonce-expired"
            assert (await release(world, booted))["standing"] == "trusted"

    run(body)


def test_a_degraded_node_gets_what_was_stored_for_it_and_nothing_else(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            await world.reference(days=400)
            assert (await world.round(booted))["standing"] == "trusted"
            await store(world)
            await store(world, "seal", degraded=True)
            world.clock.advance(366 * 24 * 3600)  # policy does not trust by a reference set as old as that
            assert (await release(world, booted, status=403))["code"] == "secret-standing"
            answer = await release(world, booted, "seal")
            assert answer["standing"] == "degraded"
            assert await asyncio.to_thread(opened, booted.node, answer) == KEY

    run(body)


def test_a_standing_that_moved_between_verdict_and_release_releases_nothing(
    run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            submit = world.service.rounds.submit
            meanwhile: list[str] = []

            async def disturbed(request: Any, *, address: str) -> dict[str, Any]:
                judged: dict[str, Any] = await submit(request, address=address)
                for decision in meanwhile:
                    await world.post(f"nodes/node-1/{decision}", {}, headers=world.admin)
                if "readmit" in meanwhile:
                    await submit_again()
                return judged

            async def submit_again() -> None:
                monkeypatch.undo()
                assert (await world.round(booted))["standing"] == "trusted"

            monkeypatch.setattr(world.service.rounds, "submit", disturbed)
            assert (await release(world, booted))["name"] == "disk"
            meanwhile += ["quarantine", "readmit"]
            assert (await release(world, booted, status=409))["code"] == "secret-superseded"
            assert (await release(world, booted))["name"] == "disk"

    run(body)


def test_a_secret_is_for_the_tpm_that_the_node_had(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted("node-1", 1) as squatter:
            await world.reference()
            await world.enrol(squatter.node)
            await store(world)
        with tpms.booted() as booted:
            await world.ready_node(booted)
            assert (await release(world, booted, status=403))["code"] == "secret-other-tpm"
            await store(world)
            assert (await release(world, booted))["version"] == 2

    run(body)


def test_what_is_stored_is_bounded_and_never_shown(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            for size in (0, 15, 129):
                assert (await store(world, secret=bytes(size), status=400))["code"] == "secret-size"
            for size in (16, 128):
                await store(world, secret=bytes(size))
            assert (await store(world, place="nodes/ghost/secrets", status=404))["code"] == "node-unknown"
            assert (await world.get("nodes/ghost/secrets", status=404))["code"] == "node-unknown"
            for number in range(31):
                await store(world, f"more-{number}")
            assert (await store(world, "one-more", status=429))["code"] == "secrets-full"
            assert (await store(world, "more-30"))["version"] == 2
            await remove(world, "more-30")
            assert (await store(world, "one-more"))["version"] == 1
            assert (await remove(world, "more-30", status=404))["code"] == "secret-unknown"
            shown = await world.get(SECRETS)
            log = await world.get("audit")
            for text in (str(shown), str(log)):
                assert base64.b64encode(KEY).decode() not in text
                assert KEY.hex() not in text
            audited = await world.audited()
            assert audited.count(("secret.remove", "done", None)) == 1
            assert ("secret.store", "refused", "secrets-full") in audited
            rows = (world.folder / "attest.db").read_bytes() + (world.folder / "attest.db-wal").read_bytes()
            assert KEY not in rows
            assert (world.folder / "state" / "secrets.key").stat().st_mode & 0o777 == 0o600

    run(body)


async def remove(world: Any, name: str, *, status: int = 200) -> Any:
    answer = await world.http.delete(f"/attest/v1/{SECRETS}/{name}", headers=world.admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_who_may_do_what_with_secrets(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await store(world)
            place = f"/attest/v1/{SECRETS}"
            callers: list[dict[str, str]] = [{}, world.token("attest:read"), world.token("attest:admin")]
            callers += [world.token("attest:read", tenant=tenant) for tenant in ("acme", "umbrella")]
            callers += [world.token("attest:admin", audience="https://elsewhere.example")]
            content = {"secret": base64.b64encode(KEY).decode()}
            asked = [
                ("GET", place, None, [401, 200, 403, 200, 404, 401]),
                ("PUT", f"{place}/disk", content, [401, 403, 200, 403, 403, 401]),
                ("DELETE", f"{place}/disk", None, [401, 403, 200, 403, 403, 401]),
            ]
            for method, url, sent, expected in asked:
                for headers, status in zip(callers, expected, strict=True):
                    answer = await world.http.request(method, url, json=sent, headers=headers)
                    assert answer.status_code == status, (method, headers, answer.text)
            for method in ("GET", "POST"):
                answer = await world.http.request(method, f"{place}/disk", headers=world.admin)
                assert answer.status_code == 405  # there is no way to read one

    run(body)


def test_a_secret_moved_to_another_row_or_under_another_key_does_not_open() -> None:
    cabinet = Cabinet(bytes(32))
    place: dict[str, Any] = {"node": "node-1", "name": "disk", "version": 1, "ek_sha256": "ab"}
    kept = cabinet.lock(KEY, **place)
    assert cabinet.unlock(kept, **place) == KEY
    moved: list[dict[str, Any]] = [{"node": "node-2"}, {"name": "seal"}, {"version": 2}, {"ek_sha256": "cd"}]
    for change in moved:
        with pytest.raises(SecretUnreadable) as refused:
            cabinet.unlock(kept, **{**place, **change})
        assert refused.value.code == "secret-unreadable"
    with pytest.raises(SecretUnreadable):
        Cabinet(bytes(31) + b"\1").unlock(kept, **place)
    with pytest.raises(SecretUnreadable):
        cabinet.unlock(kept[:-1] + bytes([kept[-1] ^ 1]), **place)
    with pytest.raises(ValueError, match="32 bytes"):
        Cabinet(bytes(31))
