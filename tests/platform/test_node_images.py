"""Which image a node should have: who orders it, which node is told, and what becomes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from umec_core.http import create_app
from umec_core.standing import Standing
from umec_core.tokens import certificate_thumbprint
from umec_platform.nodeimages.schemas import ImageOrder, ImageReport
from umec_platform.tables.nodeimages import NodeImageOrderRow

MANAGEMENT = "https://authority.test:8443"
ORDERS, OWN = "/platform/v1/node-images", "/platform/v1/node-image"
NODE, OTHER = "pole-7", "pole-8"
IMAGE = "harbour/street-node"
REPORT = {
    "image": "street-node",
    "running": 2,
    "confirmed": 2,
    "phase": "none",
    "version": 2,
    "manifest": "sha256:" + "02" * 32,
    "digest": None,
    "code": None,
    "detail": "",
}


def digest(version: int) -> str:
    """The digest of a version in the registry of these tests."""
    return f"sha256:{'ab' * 31}{version:02d}"


class Site:
    """A platform with nodes that show their certificates."""

    def __init__(self, world: Any, http: httpx.AsyncClient) -> None:
        self.world, self.http = world, http

    async def order(self, version: int, *, dry: bool = False, **wish: Any) -> httpx.Response:
        wish = {"repository": IMAGE, "digest": digest(version), "node": NODE} | wish
        return await self.world.operate("PUT", ORDERS, json=wish, params={"dry_run": dry})

    async def shown(self, node: str | None = None) -> dict[str, Any]:
        answer = await self.world.operate("GET", ORDERS, params={} if node is None else {"node": node})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ask(self, method: str, node: str = NODE, *, tenant: str = "harbour", **arguments: Any) -> httpx.Response:
        certificate = f"certificate of {node}".encode()
        claims = {"sub": node, "client_id": node, "node": node, "tenant": tenant, "generation": 1}
        bound = {"cnf": {"x5t#S256": certificate_thumbprint(certificate)}}
        token = self.world.token(f"{MANAGEMENT}/platform/v1", "node:host", **claims, **bound)
        headers = {"Authorization": f"Bearer {token}", "Test-Certificate": certificate.hex()}
        return await self.http.request(method, MANAGEMENT + OWN, headers=headers, **arguments)

    async def told(self, node: str = NODE, image: str | None = "street-node", **who: Any) -> int | None:
        answer = await self.ask("GET", node, params={} if image is None else {"image": image}, **who)
        assert answer.status_code == 200, answer.text
        order = answer.json()["order"]
        return None if order is None else int(order["version"])

    async def audit(self) -> list[tuple[str, str, str, str | None]]:
        entries = (await self.world.operate("GET", "/platform/v1/audit")).json()["entries"]
        found = [(each["actor"], each["action"], each["subject"], each.get("code")) for each in entries]
        return [each for each in found if each[1].startswith("node-image.")]


@contextlib.asynccontextmanager
async def site(world: Any) -> AsyncIterator[Site]:
    async with world.open(working=False):
        app = create_app("management", world.service.management_routers)

        async def shown(scope: Any, receive: Any, send: Any) -> None:
            found = next(value for name, value in scope["headers"] if name == b"test-certificate")
            await app({**scope, "state": {"client_certificate": bytes.fromhex(found.decode())}}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(shown)) as http:
            for node in (NODE, OTHER):
                await world.stand(node, Standing.TRUSTED, 1)
            yield Site(world, http)


def test_a_node_is_told_what_was_ordered_for_it(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            assert await it.told() is None
            made = await it.order(2)
            assert made.status_code == 200
            assert (await it.ask("GET")).json()["order"] == {
                "target": f"node/{NODE}",
                "image": "street-node",
                "repository": IMAGE,
                "digest": digest(2),
                "version": 2,
                "manifest": f"sha256:{2:064d}",
                "kernel": f"sha256:{102:064d}",
                "attempt": 1,
                "ordered_by": "operator",
                "ordered_at": made.json()["ordered_at"],
                "registry": "https://authority.test:5443",
            }
            assert await it.told(OTHER) is None

    asyncio.run(scenario())


def test_an_order_for_all_is_for_the_nodes_of_its_tenant_with_that_image(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            assert (await it.order(3, node=None, fleet="harbour/street-node")).status_code == 200
            assert [await it.told(), await it.told(OTHER)] == [3, 3]
            assert await it.told(image="lamp") is None
            assert await it.told(image=None) is None
            assert await it.told(tenant="transit") is None
            assert (await it.order(2)).status_code == 200  # its own goes first
            assert [await it.told(), await it.told(OTHER)] == [2, 3]

    asyncio.run(scenario())


def test_what_the_site_does_not_admit_is_not_ordered(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            it.world.neighbours.refused = True
            refused = await it.order(2)
            assert (refused.status_code, refused.json()["code"]) == (422, "image-unsigned")
            assert (await it.shown())["orders"] == []
            it.world.neighbours.refused = False
            assert (await it.order(2)).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("fleet", ["transit/street-node", "harbour/lamp"])
def test_an_image_of_another_fleet_is_not_ordered_for_it(world: Any, fleet: str) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            refused = await it.order(2, node=None, fleet=fleet)
            assert (refused.status_code, refused.json()["code"]) == (422, "node-image-other")
            assert (await it.order(2, node=None, fleet="harbour/street-node")).status_code == 200

    asyncio.run(scenario())


def test_an_image_of_another_tenant_is_not_ordered_for_a_node(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            refused = await it.order(2, repository="transit/street-node")
            assert (refused.status_code, refused.json()["code"]) == (422, "node-image-other")
            assert (await it.order(2)).status_code == 200
            # Of which tenant a node is may be said later than what it should have.
            assert (await it.order(2, node="pole-9", repository="transit/street-node")).status_code == 200
            await it.world.stand("pole-9", Standing.TRUSTED, 1)
            assert await it.told("pole-9") is None
            assert (await it.order(3, node=None, fleet="harbour/street-node")).status_code == 200
            assert await it.told("pole-9") == 3
            assert await it.told("pole-9", tenant="transit") == 2

    asyncio.run(scenario())


def test_an_operator_of_a_tenant_orders_sees_and_takes_back_its_own(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:

            async def act(tenant: str | None, method: str, **arguments: Any) -> httpx.Response:
                claims = {} if tenant is None else {"tenant": tenant}
                token = world.token(f"{MANAGEMENT}/platform/v1", "platform:admin", **claims)
                return await world.call(method, MANAGEMENT + ORDERS, token, **arguments)

            wish = {"json": {"repository": IMAGE, "digest": digest(2), "node": NODE}}
            refused = await act("transit", "PUT", **wish)
            assert (refused.status_code, refused.json()["code"]) == (403, "tenant-foreign")
            assert (await act("harbour", "PUT", **wish)).status_code == 200
            assert (await it.ask("POST", json=REPORT)).status_code == 204
            seen = {name: (await act(name, "GET")).json() for name in ("transit", "harbour", None)}
            assert seen["transit"] == {"orders": [], "nodes": []}
            assert seen["harbour"] == seen[None]
            assert [len(rows) for rows in seen["harbour"].values()] == [1, 1]
            target = {"params": {"target": f"node/{NODE}"}}
            refused = await act("transit", "DELETE", **target)
            assert (refused.status_code, refused.json()["code"]) == (404, "node-image-order-unknown")
            assert (await act("harbour", "DELETE", **target)).status_code == 204

    asyncio.run(scenario())


def test_the_same_order_changes_nothing_and_a_dry_run_neither(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            tried = await it.order(2, dry=True)
            assert (tried.json()["dry_run"], tried.json()["attempt"]) == (True, 1)
            assert (await it.shown())["orders"] == await it.audit() == []
            for _ in range(2):
                made = await it.order(2)
                assert (made.json()["attempt"], made.json()["dry_run"]) == (1, False)
            assert await it.audit() == [("operator", "node-image.order", f"node/{NODE}", None)]
            assert (await it.order(2, again=True)).json()["attempt"] == 2
            assert (await it.order(3)).json()["attempt"] == 1
            assert [order["version"] for order in (await it.shown())["orders"]] == [3]
            assert len(await it.audit()) == 3

    asyncio.run(scenario())


def test_what_is_to_be_tried_again_exceeds_every_former_attempt(world: Any) -> None:
    fleet = {"node": None, "fleet": "harbour/street-node"}

    async def attempt(it: Site, version: int, **wish: Any) -> int:
        return int((await it.order(version, **wish)).json()["attempt"])

    async def scenario() -> None:
        async with site(world) as it:
            assert [await attempt(it, 2), await attempt(it, 2, again=True)] == [1, 2]
            withdrawn = await it.world.operate("DELETE", ORDERS, params={"target": f"node/{NODE}"})
            assert withdrawn.status_code == 204
            assert await attempt(it, 2) == 1  # a node where it failed does not try it by itself
            assert await attempt(it, 2, again=True, dry=True) == 3
            assert await attempt(it, 2, again=True) == 3
            assert await attempt(it, 3, again=True) == 1  # another image is ordered, and then the first
            assert await attempt(it, 2, again=True) == 4
            assert await attempt(it, 2, again=True, **fleet) == 5  # for a node that the other orders were for, too

    asyncio.run(scenario())


def test_an_order_is_taken_back(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            target = {"target": f"node/{NODE}"}
            missing = await it.world.operate("DELETE", ORDERS, params=target)
            assert (missing.status_code, missing.json()["code"]) == (404, "node-image-order-unknown")
            await it.order(2)
            await it.order(3, node=None, fleet="harbour/street-node")
            assert (await it.world.operate("DELETE", ORDERS, params=target)).status_code == 204
            assert await it.told() == 3
            fleet = {"target": "image/harbour/street-node"}
            assert (await it.world.operate("DELETE", ORDERS, params=fleet)).status_code == 204
            assert await it.told() is None
            assert [action for _, action, _, _ in await it.audit()].count("node-image.withdraw") == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("fleet", ["a" * 63 + "/" + "b" * 63, None])
def test_what_an_order_may_be_for_fits_its_row_and_nothing_is_longer(fleet: str | None) -> None:
    order = {"repository": f"{'a' * 63}/{'c' * 191}", "digest": digest(2)}
    name = "fleet" if fleet is not None else "node"
    longest = fleet or "d" * 63
    target = f"image/{longest}" if fleet is not None else f"node/{longest}"
    assert ImageOrder.model_validate(order | {name: longest})
    assert len(target) <= NodeImageOrderRow.__table__.c.target.type.length
    with pytest.raises(ValidationError):
        ImageOrder.model_validate(order | {name: longest + "b"})


@pytest.mark.parametrize(
    "wish",
    [
        {"node": None},
        {"fleet": "harbour/street-node"},
        {"repository": "street-node"},
        {"digest": "latest"},
        {"node": "a" * 64},
        {"node": None, "fleet": "harbour/" + "a" * 64},
        {"when": "now"},
    ],
    ids=str,
)
def test_an_order_that_is_none_is_refused(world: Any, wish: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            refused = await it.order(2, **wish)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid-input")
            assert (await it.order(2)).status_code == 200

    asyncio.run(scenario())


def test_what_became_of_it_is_kept_and_what_is_new_is_audited(world: Any) -> None:
    failed = REPORT | {
        "running": 1,
        "confirmed": 1,
        "phase": "failed",
        "code": "update-not-trusted",
        "digest": digest(2),
    }

    async def scenario() -> None:
        async with site(world) as it:
            await it.order(2, node=None, fleet="harbour/street-node")
            assert (await it.ask("POST", json=REPORT)).status_code == 204
            [kept] = (await it.shown(NODE))["nodes"]
            assert {name: kept[name] for name in REPORT} == REPORT
            assert (kept["node"], kept["tenant"]) == (NODE, "harbour")
            it.world.now += timedelta(seconds=5)
            assert (await it.ask("POST", json=REPORT | {"detail": "the same"})).status_code == 204
            it.world.now += timedelta(seconds=5)
            assert (await it.ask("POST", json=failed)).status_code == 204
            shown = await it.shown(NODE)
            assert (shown["nodes"][0]["code"], shown["nodes"][0]["digest"]) == ("update-not-trusted", digest(2))
            assert [order["target"] for order in shown["orders"]] == ["image/harbour/street-node"]
            assert (await it.shown(OTHER)) == {"orders": [], "nodes": []}
            said = [each for each in await it.audit() if each[1] == "node-image.report"]
            assert said == [(NODE, "node-image.report", NODE, code) for code in (None, "update-not-trusted")]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["digest", "manifest", "image"])
def test_another_image_of_the_same_version_is_news(world: Any, name: str) -> None:
    other = {"digest": digest(3), "manifest": digest(3), "image": "lamp"}[name]

    async def scenario() -> None:
        async with site(world) as it:
            for said in (REPORT, REPORT | {name: other}, REPORT | {name: other, "detail": "the same"}):
                assert (await it.ask("POST", json=said)).status_code == 204
                it.world.now += timedelta(seconds=5)
            assert len(await it.audit()) == 2

    asyncio.run(scenario())


def test_a_node_that_reports_without_end_is_sent_away(world: Any) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            assert (await it.ask("POST", json=REPORT)).status_code == 204
            it.world.now += timedelta(seconds=3)
            refused = await it.ask("POST", json=REPORT)
            assert (refused.status_code, refused.json()["code"]) == (429, "node-image-report-too-soon")
            assert refused.headers["retry-after"] == "2"
            assert (await it.ask("POST", OTHER, json=REPORT)).status_code == 204
            it.world.now += timedelta(seconds=2)
            assert (await it.ask("POST", json=REPORT)).status_code == 204

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [{"phase": "done"}, {"running": 0}, {"code": "No Code"}, {"detail": "x" * 501}, {"manifest": "ab"}, {"more": 1}],
    ids=str,
)
def test_a_report_that_is_none_is_refused(world: Any, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with site(world) as it:
            refused = await it.ask("POST", json=REPORT | change)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid-input")
            assert (await it.ask("POST", json=REPORT)).status_code == 204

    asyncio.run(scenario())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from([*REPORT, "node", "repository", "fleet"]), value=JSON)
def test_any_member_of_an_order_or_a_report_is_read_or_refused(name: str, value: Any) -> None:
    order = {"repository": IMAGE, "digest": digest(2), "node": NODE}
    for kind, members in ((ImageOrder, order), (ImageReport, REPORT)):
        with contextlib.suppress(ValidationError):
            kind.model_validate(members | {name: value})
