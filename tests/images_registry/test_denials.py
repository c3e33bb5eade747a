"""The operator's deny list: who may change it, what it stops at once, and what a restart does not forget."""

import asyncio
import contextlib

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.audit import verify_export
from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.tokens import TokenVerifier
from umec_images.denials import Denials, service
from umec_images.errors import DenyListUnread
from umec_images.gateway import ImagesService, ImagesSettings
from umec_images.oci.version import parse_version
from umec_images.promotion import DenyList

URL = "https://registry.test:5443"
DENIALS = "/images/v1/denials"
MINIMUMS, CRANE = "/images/v1/minimums", "harbour/crane"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Client:
    """Somebody with a token, in the process of the service."""

    def __init__(self, issuer, service):
        self.issuer, self.service = issuer, service
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url=URL)

    async def send(self, method, path=DENIALS, *, scope="images:admin", **arguments):
        headers = {}
        if scope is not None:
            key = ec.generate_private_key(ec.SECP256R1())
            token = self.issuer.access(key, f"{URL}/", scope)
            proof = make_proof(key, method, f"{URL}{path}", now=system_clock(), access_token=token)
            headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        answer = await self.http.request(method, path, headers=headers, **arguments)
        return answer.status_code, answer.json()

    async def deny(self, digest, reason="it leaks a key", **arguments):
        return await self.send("POST", json={"digest": digest, "reason": reason}, **arguments)

    async def minimum(self, version, *, reason="1.0 leaks a key", repository=CRANE, **arguments):
        wanted = {"repository": repository, "version": version, "reason": reason}
        lower = {"lower": arguments.pop("lower")} if "lower" in arguments else {}
        return await self.send("PUT", MINIMUMS, json=wanted | lower, **arguments)

    async def allow(self, digest, **arguments):
        return await self.send("DELETE", f"{DENIALS}/{digest}", **arguments)


@pytest.fixture
def opened(issuer, tmp_path):
    """Return a context in which the service of this test's state runs; entering it again is a restart."""

    @contextlib.asynccontextmanager
    async def run():
        verifier = TokenVerifier(
            issuer=issuer.url, audience=f"{URL}/", keys=issuer.keys, standings=None, clock=system_clock
        )
        settings = ImagesSettings(state=tmp_path, url=URL, issuer=issuer.url)
        service = await ImagesService.open(settings, verifier=verifier, identity_keys=issuer.keys, clock=system_clock)
        try:
            yield Client(issuer, service)
        finally:
            await service.close()

    return run


def code(answer):
    status, body = answer
    return status, body.get("code")


def test_who_may_deny_and_allow(opened):
    async def work():
        async with opened() as client:
            for scope, refused in ((None, (401, "token-missing")), ("images:promote", (403, "token-scope"))):
                assert code(await client.deny(DIGEST, scope=scope)) == refused
                assert code(await client.allow(DIGEST, scope=scope)) == refused
                assert code(await client.send("GET", scope=scope)) == refused
                assert code(await client.minimum("1.0.0", scope=scope)) == refused
            assert client.service.denials.current() == DenyList()
            assert (await client.deny(DIGEST))[0] == 201
            assert (await client.allow(DIGEST))[0] == 200

    asyncio.run(work())


@pytest.mark.parametrize(
    "body",
    [
        {"digest": "sha256:00", "reason": "x"},
        {"digest": DIGEST.upper(), "reason": "x"},
        {"digest": DIGEST},
        {"digest": DIGEST, "reason": ""},
        {"digest": DIGEST, "reason": "two\nlines"},
        {"digest": DIGEST, "reason": "x" * 501},
        {"digest": DIGEST, "reason": "x", "until": "tomorrow"},
    ],
)
def test_malformed_denials_are_refused(opened, body):
    async def work():
        async with opened() as client:
            assert code(await client.send("POST", json=body)) == (400, "invalid-input")
            assert (await client.send("POST", json={"digest": DIGEST, "reason": "x"}))[0] == 201

    asyncio.run(work())


def test_a_denial_counts_at_once_and_after_a_restart_until_it_is_lifted(opened):
    async def work():
        async with opened() as client:
            assert await client.deny(DIGEST) == (201, {"digest": DIGEST, "version": 1})
            assert await client.deny(OTHER, "recalled") == (201, {"digest": OTHER, "version": 2})
            assert client.service.denials.current() == DenyList(2, frozenset({DIGEST, OTHER}))
            assert code(await client.deny(DIGEST)) == (409, "denial-exists")
        async with opened() as client:
            assert client.service.denials.current() == DenyList(2, frozenset({DIGEST, OTHER}))
            _, shown = await client.send("GET")
            assert shown["version"] == 2
            found = [(each["digest"], each["reason"], each["actor"]) for each in shown["denials"]]
            assert found == [(DIGEST, "it leaks a key", "client"), (OTHER, "recalled", "client")]
            assert await client.allow(DIGEST) == (200, {"digest": DIGEST, "version": 3})
            assert code(await client.allow(DIGEST)) == (404, "denial-unknown")
            assert client.service.denials.current() == DenyList(3, frozenset({OTHER}))
        async with opened() as client:
            assert client.service.denials.current() == DenyList(3, frozenset({OTHER}))

    asyncio.run(work())


def test_versions_are_not_given_twice(opened):
    digests = [f"sha256:{number:064x}" for number in range(10)]

    async def work():
        async with opened() as client:
            answers = await asyncio.gather(*(client.deny(digest) for digest in digests))
            assert sorted(body["version"] for _, body in answers) == list(range(1, 11))
            assert client.service.denials.current() == DenyList(10, frozenset(digests))

    asyncio.run(work())


def test_every_change_is_in_the_audit_log(opened):
    async def work():
        async with opened() as client:
            await client.deny(DIGEST)
            await client.deny(DIGEST)
            await client.allow(DIGEST)
            log = await client.service.authority.journal.export()
            verify_export(log, client.service.audit_key)
        return [(entry["actor"], entry["action"], entry["subject"], entry["facts"]) for entry in log["entries"]]

    assert asyncio.run(work()) == [
        ("client", "image-denied", DIGEST, {"reason": "it leaks a key", "version": 1}),
        ("client", "image-allowed", DIGEST, {"version": 2}),
    ]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"version": "1.0"}, "version-invalid"),
        ({"version": 1}, "invalid-input"),
        ({"repository": "crane"}, "reference-invalid"),
        ({"reason": ""}, "invalid-input"),
        ({"lower": "perhaps"}, "invalid-input"),
        ({"surprise": 1}, "invalid-input"),
    ],
)
def test_malformed_minimums_are_refused(opened, change, refused):
    body = {"repository": CRANE, "version": "1.0.0", "reason": "x"}

    async def work():
        async with opened() as client:
            assert code(await client.send("PUT", MINIMUMS, json=body | change)) == (400, refused)
            assert (await client.send("PUT", MINIMUMS, json=body))[0] == 200
            incomplete = {name: value for name, value in body.items() if name != "version"}
            assert code(await client.send("PUT", MINIMUMS, json=incomplete)) == (400, "invalid-input")

    asyncio.run(work())


def test_a_minimum_only_rises_until_an_operator_lowers_it_on_purpose(opened):
    async def work():
        async with opened() as client:
            assert await client.minimum("1.1.0") == (200, {"repository": CRANE, "minimum": "1.1.0", "version": 1})
            assert (await client.minimum("1.2.0"))[0] == 200
            assert (await client.minimum("1.2.0", reason="again"))[1]["version"] == 2  # nothing changed
            for lower in ("1.1.9", "1.2.0-rc.1", None):
                assert code(await client.minimum(lower)) == (409, "minimum-falls")
            assert client.service.denials.current() == DenyList(2, minimums={CRANE: parse_version("1.2.0")})
        async with opened() as client:
            assert client.service.denials.current() == DenyList(2, minimums={CRANE: parse_version("1.2.0")})
            assert (await client.minimum("1.1.0", lower=True, reason="1.2.0 does not start"))[0] == 200
            _, shown = await client.send("GET")
            assert [
                (each["repository"], each["minimum"], each["reason"], each["actor"]) for each in shown["minimums"]
            ] == [(CRANE, "1.1.0", "1.2.0 does not start", "client")]
            assert await client.minimum(None, lower=True) == (200, {"repository": CRANE, "minimum": None, "version": 4})
            assert client.service.denials.current() == DenyList(4)
            log = await client.service.authority.journal.export()
            return [(entry["action"], entry["subject"], entry["facts"]) for entry in log["entries"]]

    def facts(minimum, before, reason="1.0 leaks a key", *, version):
        return {"minimum": minimum, "before": before, "reason": reason, "version": version}

    assert asyncio.run(work()) == [
        ("image-minimum-raised", CRANE, facts("1.1.0", None, version=1)),
        ("image-minimum-raised", CRANE, facts("1.2.0", "1.1.0", version=2)),
        ("image-minimum-lowered", CRANE, facts("1.1.0", "1.2.0", "1.2.0 does not start", version=3)),
        ("image-minimum-lowered", CRANE, facts(None, "1.1.0", version=4)),
    ]


class Unreadable:
    """A database that can be written, and not read while `reads` is False."""

    def __init__(self, store):
        self.store, self.reads = store, True

    def read(self):
        if not self.reads:
            raise OSError("a bad sector")
        return self.store.read()

    async def write(self, work):
        return await self.store.write(work)


def test_nothing_is_judged_by_a_list_that_changed_and_could_not_be_read(opened, monkeypatch):
    monkeypatch.setattr(service, "READ_EVERY", 0.02)

    async def work():
        async with opened() as client:
            authority = client.service.authority
            store = Unreadable(authority.store)
            denials = await Denials.open(store, authority.journal, system_clock)
            assert (await denials.deny("operator", OTHER, "it leaks")).denies(OTHER)
            store.reads = False
            with pytest.raises(OSError, match="bad sector"):
                await denials.deny("operator", DIGEST, "it leaks")
            for _ in range(3):
                with pytest.raises(DenyListUnread):
                    denials.current()
                await asyncio.sleep(0.03)
            store.reads = True
            while True:
                with contextlib.suppress(DenyListUnread):
                    assert denials.current() == DenyList(2, frozenset({DIGEST, OTHER}))
                    break
                await asyncio.sleep(0.01)
            assert not (await denials.allow("operator", DIGEST)).denies(DIGEST)
            await denials.close()

    asyncio.run(work())
