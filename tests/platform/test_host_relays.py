"""Hosts on other machines: who may be the relay of one, what it is handed, what becomes of the rest."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_core.errors import Kind
from umec_core.http import create_app
from umec_core.standing import Standing
from umec_core.tokens import certificate_thumbprint
from umec_platform.errors import AnswerLate, HostSilent
from umec_platform.hosts import relays as relays_module
from umec_platform.hosts.relays import MOST_LOGS, MOST_OPEN, RelayDriver, Relays
from umec_platform.hosts.wire import RELAY, deflate, inflate
from umec_platform.netd.errors import RemoteRefusal
from umec_platform.netd.messages import MAX_LINE, Reply

MANAGEMENT = "https://authority.test:8443"
NODE = "pole-7"


@dataclass
class Pole:
    """A node as its relay speaks for it: a certificate, and tokens that are bound to it."""

    world: Any
    http: httpx.AsyncClient
    node: str = NODE
    generation: int = 1
    session: str = "0" * 32
    seen: int = 0

    @property
    def certificate(self) -> bytes:
        return f"certificate of {self.node}".encode()

    def token(self, **claims: Any) -> str:
        bound = {"x5t#S256": certificate_thumbprint(self.certificate)}
        said = {
            "sub": self.node,
            "client_id": self.node,
            "node": self.node,
            "generation": self.generation,
            "cnf": bound,
        }
        return str(self.world.token(f"{MANAGEMENT}/platform/v1", claims.pop("scope", "node:host"), **said | claims))

    async def send(self, method: str, path: str, *, token: str | None = None, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token()}", "Test-Certificate": self.certificate.hex()}
        return await self.http.request(method, MANAGEMENT + RELAY + path, headers=headers, **arguments)

    async def begin(self) -> None:
        opened = await self.send("POST", "")
        assert opened.status_code == 201, opened.text
        self.session, self.seen = opened.json()["session"], 0

    async def ask(self, after: int | None = None) -> list[dict[str, Any]]:
        """Return the messages that are handed out now, or after a while."""
        answer = await self.send("GET", f"/{self.session}/requests?after={self.seen if after is None else after}")
        assert answer.status_code == 200, answer.text
        handed = answer.json()["requests"]
        self.seen = max([self.seen, *(one["seq"] for one in handed)])
        return [json.loads(one["line"]) for one in handed]

    async def answer(
        self, message: dict[str, Any], result: dict[str, Any] | None = None, **members: Any
    ) -> httpx.Response:
        reply = {"id": message["id"], "ok": True, "result": result or {}, **members}
        return await self.hand_in(deflate(json.dumps(reply).encode()))

    async def hand_in(self, body: bytes) -> httpx.Response:
        return await self.send("POST", f"/{self.session}/answers", content=body)


def shown_certificates(app: Any) -> Any:
    """The application behind a TLS server that shows it who asked."""

    async def shown(scope: Any, receive: Any, send: Any) -> None:
        found = [value for name, value in scope["headers"] if name == b"test-certificate"]
        certificate = bytes.fromhex(found[0].decode()) if found else None
        await app({**scope, "state": {"client_certificate": certificate}}, receive, send)

    return shown


@contextlib.asynccontextmanager
async def street(world: Any, *, working: bool = False) -> AsyncIterator[Pole]:
    """A platform with a host that is reached by the relay of its node, which stands."""
    async with world.open(working=working):
        app = shown_certificates(create_app("management", world.service.management_routers))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=20) as http:
            made = {"id": NODE, "node": NODE, "netd": f"node:{NODE}"}
            assert (await world.operate("POST", "/platform/v1/hosts", json=made)).status_code == 201
            await world.stand(NODE, Standing.TRUSTED, 1)
            yield Pole(world, http)


async def until_waiting(relays: Relays, number: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(relays._lines[NODE].waiting) != number:  # noqa: ASYNC110 - there is nothing that tells
            await asyncio.sleep(0.001)


@pytest.fixture
def driver_of(world: Any) -> Any:
    """The driver of the pole in an opened world, and its relays."""

    async def found() -> tuple[RelayDriver, Relays]:
        driver = await world.service._fleet.driver(NODE)
        assert isinstance(driver, RelayDriver)
        return driver, driver._relays

    return found


# --- who may -----------------------------------------------------------------------------------------------------


STRANGERS: Final[list[tuple[dict[str, Any], int, str]]] = [
    ({"node": None, "generation": None}, 403, "not-a-node"),
    ({"client_id": "app-1", "instance": "app-1"}, 403, "not-a-node"),
    ({"instance": "app-1"}, 403, "not-a-node"),
    ({"client_id": "operator"}, 403, "not-a-node"),
    ({"scope": "platform:admin"}, 403, "token-scope"),
    ({"generation": 2}, 403, "standing-fallen"),
    ({"cnf": {"x5t#S256": certificate_thumbprint(b"another")}}, 401, "token-binding"),
    ({"node": "pole-8", "client_id": "pole-8"}, 403, "standing-fallen"),
]


def test_only_the_node_itself_begins_a_relay(world: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            for claims, status, code in STRANGERS:
                refused = await pole.send("POST", "", token=pole.token(**claims))
                assert (refused.status_code, refused.json()["code"]) == (status, code), claims
            await pole.begin()

    asyncio.run(scenario())


def test_a_token_for_another_key_than_a_certificate_is_no_node_s(world: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            token = world.token(
                f"{MANAGEMENT}/platform/v1", "node:host", sub=NODE, client_id=NODE, node=NODE, generation=1
            )
            refused = await world.call("POST", MANAGEMENT + RELAY, token)
            assert (refused.status_code, refused.json()["code"]) == (403, "not-a-node")
            await pole.begin()

    asyncio.run(scenario())


def test_a_node_whose_host_is_elsewhere_or_nowhere_has_no_relay(world: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await world.furnish()  # node-a is the node of a host with a socket
            await world.stand("node-x", Standing.TRUSTED, 1)
            for node in ("node-a", "node-x"):
                refused = await Pole(world, pole.http, node).send("POST", "")
                assert (refused.status_code, refused.json()["code"]) == (404, "host-unknown")
                refused = await Pole(world, pole.http, node).send("GET", f"/{'0' * 32}/requests")
                assert (refused.status_code, refused.json()["code"]) == (404, "relay-unknown")
            await pole.begin()

    asyncio.run(scenario())


def test_a_host_is_reached_by_the_relay_of_its_own_node_alone(world: Any) -> None:
    async def scenario() -> None:
        async with world.open(working=False):
            for netd in ("node:pole-8", "node:", "node", "relay:pole-7", "node:pole-7 "):
                made = {"id": NODE, "node": NODE, "netd": netd}
                refused = await world.operate("POST", "/platform/v1/hosts", json=made)
                assert (refused.status_code, refused.json()["code"]) == (400, "invalid-input")
            made = {"id": NODE, "node": NODE, "netd": f"node:{NODE}"}
            assert (await world.operate("POST", "/platform/v1/hosts", json=made)).status_code == 201

    asyncio.run(scenario())


def test_the_relay_of_another_node_gets_nothing_and_answers_nothing(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            made = {"id": "pole-8", "node": "pole-8", "netd": "node:pole-8"}
            assert (await world.operate("POST", "/platform/v1/hosts", json=made)).status_code == 201
            await world.stand("pole-8", Standing.TRUSTED, 1)
            other = Pole(world, pole.http, "pole-8")
            await pole.begin()
            await other.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await pole.ask()
            own = other.session
            other.session = pole.session  # somebody told it
            refused = await other.send("GET", f"/{pole.session}/requests?after=0")
            assert (refused.status_code, refused.json()["code"]) == (409, "relay-replaced")
            refused = await other.answer(message, {"began": "a lie"})
            assert (refused.status_code, refused.json()["code"]) == (409, "relay-replaced")
            other.session = own
            refused = await other.answer(message, {"began": "a lie"})
            assert (refused.status_code, refused.json()["code"]) == (409, "relay-answer-late")
            assert (await pole.answer(message, {"began": "x"})).status_code == 204
            assert await asked == {"began": "x"}

    asyncio.run(scenario())


# --- what is handed out, and answered -------------------------------------------------------------------------------


def test_requests_go_there_in_their_order_and_answers_come_back(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            first = asyncio.create_task(driver.put_tenant("harbour"))
            await until_waiting(relays)
            second = asyncio.create_task(driver.stop_instance("one"))
            await until_waiting(relays, 2)
            tenant, stop = await pole.ask()
            assert (tenant["op"], tenant["tenant"]) == ("tenant.put", "harbour")
            assert (stop["op"], stop["instance"]) == ("instance.stop", "one")
            refusal = {"ok": False, "result": None, "code": "tenant-unknown", "kind": "not-found", "detail": "no"}
            assert (await pole.answer(stop, **refusal)).status_code == 204
            assert (await pole.answer(tenant, {"subnet": "10.64.0.0/24"})).status_code == 204
            assert await first == {"subnet": "10.64.0.0/24"}
            with pytest.raises(RemoteRefusal) as refused:
                await second
            assert (refused.value.code, refused.value.kind) == ("tenant-unknown", Kind.NOT_FOUND)
            await until_waiting(relays, 0)

    asyncio.run(scenario())


def test_what_was_lost_on_its_way_is_handed_out_again_until_it_is_answered(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await pole.ask()
            assert await pole.ask(after=0) == [message]
            assert (await pole.answer(message, {"began": "x"})).status_code == 204
            assert await asked == {"began": "x"}
            late = await pole.answer(message, {"began": "y"})
            assert (late.status_code, late.json()["code"]) == (409, "relay-answer-late")

    asyncio.run(scenario())


def test_an_ask_waits_for_a_request(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, _ = await driver_of()
            asking = asyncio.create_task(pole.ask())
            await asyncio.sleep(0)
            asked = asyncio.create_task(driver.status())
            [message] = await asking
            assert (await pole.answer(message)).status_code == 204
            await asked

    asyncio.run(scenario())


def test_an_answer_to_what_was_never_handed_out_is_none(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [identifier] = relays._lines[NODE].waiting
            early = await pole.answer({"id": identifier})
            assert (early.status_code, early.json()["code"]) == (409, "relay-answer-late")
            [message] = await pole.ask()
            assert (await pole.answer(message, {"began": "x"})).status_code == 204
            await asked

    asyncio.run(scenario())


NO_ANSWERS: Final = [
    b"",
    b"{}",
    deflate(b""),
    deflate(b"{}"),
    deflate(b'{"id": "a", "ok": true, "more": 1}'),
    deflate(b'{"id": "a", "ok": "yes"}'),
    deflate(b'{"id": "a", "ok": true}')[:-1],
    deflate(b'{"id": "a", "ok": true}') + b"x",
    deflate(b" " * (MAX_LINE + 1)),
]


def test_of_two_answers_at_once_the_first_counts(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await pole.ask()
            relays.answer(NODE, pole.session, Reply(id=message["id"], ok=True, result={"began": "x"}))
            with pytest.raises(AnswerLate) as late:
                relays.answer(NODE, pole.session, Reply(id=message["id"], ok=True, result={"began": "y"}))
            assert late.value.code == "relay-answer-late"
            assert await asked == {"began": "x"}

    asyncio.run(scenario())


def test_what_is_no_answer_is_refused(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await pole.ask()
            for body in NO_ANSWERS:
                refused = await pole.hand_in(body)
                assert (refused.status_code, refused.json()["code"]) == (400, "relay-answer-invalid"), body[:40]
            assert (await pole.answer(message)).status_code == 204
            await asked

    asyncio.run(scenario())


@given(st.binary())
def test_any_body_is_an_answer_or_refused(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        inflate(body)
    assert inflate(deflate(body)) == body


# --- replaced, silent, full, fallen ---------------------------------------------------------------------------------


def test_a_second_relay_replaces_the_first_and_nothing_waits_for_what_that_one_had(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            handed = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await pole.ask()
            waiting = asyncio.create_task(pole.send("GET", f"/{pole.session}/requests?after={pole.seen}"))
            await asyncio.sleep(0)
            second = Pole(world, pole.http)
            await second.begin()
            with pytest.raises(HostSilent) as silent:
                await handed
            assert silent.value.code == "host-silent"
            refused = await waiting
            assert (refused.status_code, refused.json()["code"]) == (409, "relay-replaced")
            refused = await pole.answer(message, {"began": "old"})
            assert (refused.status_code, refused.json()["code"]) == (409, "relay-replaced")
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            [message] = await second.ask()
            assert (await second.answer(message, {"began": "new"})).status_code == 204
            assert await asked == {"began": "new"}

    asyncio.run(scenario())


def test_what_was_not_handed_out_goes_to_the_next_relay(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            await pole.begin()
            [message] = await pole.ask()
            assert (await pole.answer(message)).status_code == 204
            await asked

    asyncio.run(scenario())


def test_without_a_relay_a_host_is_silent_at_once(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            driver, _ = await driver_of()
            with pytest.raises(HostSilent) as silent:
                await driver.status()
            assert (silent.value.code, silent.value.kind) == ("host-silent", Kind.UNAVAILABLE)
            await pole.begin()
            asked = asyncio.create_task(driver.status())
            [message] = await pole.ask()
            await pole.answer(message)
            await asked

    asyncio.run(scenario())


def test_a_relay_that_asks_no_more_is_not_waited_for(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            relays._silent = 0.5
            asked = asyncio.create_task(driver.status())
            await until_waiting(relays)
            await pole.ask()
            with pytest.raises(HostSilent):
                await asked
            await until_waiting(relays, 0)
            with pytest.raises(HostSilent):
                await driver.status()

    asyncio.run(scenario())


def test_a_request_has_its_time_even_while_its_relay_asks_on(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            _, relays = await driver_of()
            asking = asyncio.create_task(pole.ask(after=7))
            with pytest.raises(HostSilent):
                await relays.carry(NODE, b"{}", "a", seconds=0.05)
            asking.cancel()

    asyncio.run(scenario())


def test_a_host_has_so_many_open_requests(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = [asyncio.create_task(driver.status()) for _ in range(MOST_OPEN)]
            await until_waiting(relays, MOST_OPEN)
            with pytest.raises(HostSilent):
                await driver.status()
            for message in await pole.ask():
                await pole.answer(message)
            await asyncio.gather(*asked)
            asked = [asyncio.create_task(driver.status())]
            for message in await pole.ask():
                await pole.answer(message)
            await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_a_full_line_keeps_no_statement_about_the_standing_from_its_node(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = [asyncio.create_task(driver.status()) for _ in range(MOST_OPEN)]
            await until_waiting(relays, MOST_OPEN)
            told = asyncio.create_task(driver.standing("a.b.c"))
            await until_waiting(relays, MOST_OPEN + 1)
            with pytest.raises(HostSilent):  # of all else there is no more
                await driver.status()
            messages = await pole.ask()
            assert messages[-1]["op"] == "standing"
            for message in messages:
                await pole.answer(message)
            await asyncio.gather(*asked, told)

    asyncio.run(scenario())


def test_logs_that_are_asked_for_without_end_leave_a_host_room_for_the_rest(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asked = [asyncio.create_task(driver.instance_log("one", lines=1)) for _ in range(MOST_OPEN)]
            await until_waiting(relays, MOST_LOGS)
            refused = await asyncio.gather(*asked[MOST_LOGS:], return_exceptions=True)
            assert [getattr(error, "code", error) for error in refused] == ["host-silent"] * (MOST_OPEN - MOST_LOGS)
            asked = [*asked[:MOST_LOGS], asyncio.create_task(driver.status())]
            await until_waiting(relays, MOST_LOGS + 1)
            for message in await pole.ask():
                await pole.answer(message)
            await asyncio.gather(*asked)
            asked = [asyncio.create_task(driver.instance_log("one", lines=1))]  # those are over: there may be others
            for message in await pole.ask():
                await pole.answer(message)
            await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_large_requests_are_handed_out_one_after_the_other(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            _, relays = await driver_of()
            long = json.dumps({"id": "x", "text": "x" * (relays_module.MOST_HANDED // 2)}).encode()
            asked = [
                asyncio.create_task(relays.carry(NODE, long.replace(b'"x"', b'"%d"' % one), str(one), seconds=20))
                for one in range(3)
            ]
            await until_waiting(relays, 3)
            sizes = []
            while sum(sizes) < 3:
                messages = await pole.ask()
                sizes.append(len(messages))
                for message in messages:
                    await pole.answer(message)
            assert sizes == [1, 1, 1]
            await asyncio.gather(*asked)

    asyncio.run(scenario())


def test_a_fallen_node_is_handed_the_statement_that_says_so_and_nothing_else(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            before = asyncio.create_task(driver.status())
            await until_waiting(relays)
            asking = asyncio.create_task(pole.ask(after=1))
            await asyncio.sleep(0)
            await world.stand(NODE, Standing.UNTRUSTED, 2)
            with pytest.raises(HostSilent):
                await driver.status()
            statement = asyncio.create_task(driver.standing("a.b.c"))
            assert [message["op"] for message in await asking] == ["standing"]
            for path, method in (
                ("", "POST"),
                (f"/{pole.session}/requests", "GET"),
                (f"/{pole.session}/answers", "POST"),
            ):
                refused = await pole.send(method, path)
                assert (refused.status_code, refused.json()["code"]) == (403, "standing-fallen")
            before.cancel()
            statement.cancel()
            await asyncio.gather(before, statement, return_exceptions=True)
            # It stands again, in another generation: with a token of that one it is served.
            await world.stand(NODE, Standing.TRUSTED, 3)
            pole.generation = 3
            await pole.begin()
            asked = asyncio.create_task(driver.status())
            [message] = await pole.ask()
            assert (await pole.answer(message)).status_code == 204
            await asked

    asyncio.run(scenario())


def test_the_last_ask_of_a_fallen_node_waits_a_little_longer_for_that_statement(world: Any, driver_of: Any) -> None:
    async def scenario() -> None:
        async with street(world) as pole:
            await pole.begin()
            driver, relays = await driver_of()
            asking = asyncio.create_task(relays.requests(NODE, 1, pole.session, after=0, wait=0.05))
            await asyncio.sleep(0)
            await world.stand(NODE, Standing.UNTRUSTED, 2)
            await asyncio.sleep(0.1)
            statement = asyncio.create_task(driver.standing("a.b.c"))
            [handed] = await asking
            assert json.loads(handed.line)["op"] == "standing"
            statement.cancel()
            await asyncio.gather(statement, return_exceptions=True)

    asyncio.run(scenario())


# --- the whole platform with it --------------------------------------------------------------------------------------


def test_an_instance_starts_on_a_host_by_relay_from_an_image_that_the_node_fetched(world: Any) -> None:
    async def scenario() -> None:
        async with street(world, working=True) as pole:
            made = {"id": "harbour", "name": "h", "addresses": ["203.0.113.8/29"], "domains": ["harbour.example"]}
            assert (await world.operate("POST", "/platform/v1/tenants", json=made)).status_code == 201
            await world.onboard()
            said: list[dict[str, Any]] = []
            serving = asyncio.create_task(_serve(pole, said))
            try:
                await world.instantiate(host=NODE)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
            [pull] = [one for one in said if one["op"] == "image.pull"]
            [start] = [one for one in said if one["op"] == "instance.start"]
            assert pull["repository"] == start["spec"]["repository"] == "harbour/hello"
            assert (start["spec"]["digest"], start["spec"]["blobs"]) == (pull["digest"], "/on/the/node")
            assert world.neighbours.pulled == []
            assert said.index(pull) < said.index(start)

    asyncio.run(scenario())


async def _serve(pole: Pole, said: list[dict[str, Any]]) -> None:
    results = {
        "status": {"began": "1", "instances": []},
        "tenant.put": {"tenant": "harbour", "subnet": "10.64.1.0/24", "gateway": "10.64.1.1"},
        "image.pull": {"folder": "/on/the/node"},
        "instance.start": {"instance": "x", "address": "10.64.1.10", "pid": 1},
    }
    await pole.begin()
    while True:
        for message in await pole.ask():
            said.append(message)
            await pole.answer(message, results.get(message["op"], {}))
