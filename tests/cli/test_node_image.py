"""`umec node image` and `umec node show`: whose orders and reports are shown, and what is taken for none."""

import pytest

from umec_core.remote import RemoteRefused, refusal
from umec_platform.cli.node.image import image_lines, not_shown, of_fleet


def order(target: str) -> dict[str, object]:
    return {"target": target, "image": "lamp", "version": 2, "digest": "sha256:" + "ab" * 32, "attempt": 1}


def report(node: str, tenant: str | None, image: str | None) -> dict[str, object]:
    return {"node": node, "tenant": tenant, "image": image}


def test_of_a_fleet_its_nodes_and_their_orders_are_shown() -> None:
    own = [report("pole-1", "city", "lamp"), report("pole-2", "city", "lamp")]
    others = [report("pole-3", "city", "camera"), report("pole-4", "port", "lamp"), report("pole-5", None, None)]
    wanted = [order("image/city/lamp"), order("node/pole-2")]
    rest = [order("image/port/lamp"), order("image/city/camera"), order("node/pole-3"), order("node/city/lamp")]
    said = {"orders": [*rest, *wanted], "nodes": [*others, *own]}
    assert of_fleet(said, "city/lamp") == {"orders": wanted, "nodes": own}


@pytest.mark.parametrize("status", [400, 401, 403, 409, 429, 500, 503])
def test_a_refusal_is_not_taken_for_no_orders(status: int) -> None:
    with pytest.raises(RemoteRefused) as refused:
        not_shown(refusal(status, b'{"code": "standing-stale"}'))
    assert refused.value.code == "standing-stale"
    assert not_shown(refusal(404, b"")) == {"orders": [], "nodes": []}


def test_who_may_not_see_orders_is_told_so_and_sees_the_node() -> None:
    said = not_shown(refusal(400, b'{"error": "invalid_scope", "code": "scope-invalid"}'))
    assert said == {"orders": [], "nodes": [], "refused": "scope-invalid"}
    assert image_lines(said) == ["not shown to this client: scope-invalid"]
