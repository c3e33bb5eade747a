"""What an adversary does to a simulated node or its evidence, one fault each, and what a verifier has to say about it.

A `Tampering` takes a `Scene` and a challenge of its node, and returns the body to submit. It is noticed if the answer
is a refusal with one of its `codes`, or a verdict that does not trust the node and has a finding of them.
"""

import base64
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from umec_attest.testing.fleet import structures
from umec_attest.testing.fleet.node import Boot, SimulatedNode

__all__ = ["TAMPERINGS", "Act", "Body", "Scene", "Tampering", "Verifier", "b64", "signed", "tampering"]

Body = dict[str, Any]


class Verifier(Protocol):
    """The verifier as nodes see it; `submit` raises what refuses evidence."""

    async def challenge(self, node: str) -> Body:
        """Return a challenge."""

    async def submit(self, body: Body) -> Body:
        """Return the verdict."""

    def wait(self, seconds: float) -> None:
        """Let time go by."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is there: the node, another one, boots of changed images, and chance."""

    verifier: Verifier
    node: SimulatedNode
    other: SimulatedNode
    changed: Mapping[str, Boot]
    random: random.Random


Act = Callable[[Scene, Mapping[str, Any]], Awaitable[Body]]


@dataclass(frozen=True, slots=True)
class Tampering:
    """One kind of tampering, and the codes and findings that it may be refused with."""

    name: str
    codes: frozenset[str]
    act: Act


TAMPERINGS: Final[dict[str, Tampering]] = {}


def tampering(*codes: str) -> Callable[[Act], Act]:
    """Write a function down as a kind of tampering that has to be refused with one of these codes."""

    def keep(act: Act) -> Act:
        name = act.__name__.strip("_").replace("_", "-")
        TAMPERINGS[name] = Tampering(name, frozenset(codes), act)
        return act

    return keep


def signed(scene: Scene, challenge: Mapping[str, Any], *, by: SimulatedNode | None = None, **changes: Any) -> Body:  # noqa: ANN401 - fields of TPMS_ATTEST
    """Return evidence with another TPMS_ATTEST, really signed."""
    node = scene.node
    asked = challenge["pcrs"]["sha256"]
    members: dict[str, Any] = {
        "signer": node.signer,
        "extra_data": base64.b64decode(challenge["nonce"]),
        "clock": node.clock,
        "attested": structures.quote_info(node.pcrs, asked),
        **changes,
    }
    made = structures.attest(**members)
    return node.evidence(challenge) | {"quote": b64(made), "signature": b64((by or node).keys.sign(made))}


def b64(data: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(data).decode()
