"""The one grant: what a client that proved itself gets, decided by its registration, its node and the policies.

Pure: authenticated client, wishes, standing and policies in, a `Grant` or one refusal out.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from umec_core.principal import Binding
from umec_core.standing import StandingView
from umec_identity.authentication.attestation import AttestedNode
from umec_identity.authentication.service import Authenticated
from umec_identity.clients.service import Client
from umec_identity.errors import GrantDenied, ScopeInvalid, TargetInvalid
from umec_identity.settings import SCOPES, SIGSTORE, Resources
from umec_policies import Entity, Fact, PolicyDenied, PolicySet, Request

__all__ = ["Grant", "Wish", "decide"]

NODE_SCOPES: Final = frozenset({"node:host", "images:pull"})
"""What a node may ask for: to be known as a host, and the images that it is to start."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for: one resource and scopes, both None where it leaves them to us."""

    resource: str | None
    scope: str | None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client gets; `policies` decided it, `registered` says under which registration (a node has none)."""

    client_id: str
    kind: str
    api: str
    audience: str
    scopes: frozenset[str]
    tenant: str | None
    node: str | None
    generation: int | None
    instance: str | None
    registered: datetime | None
    binding: Binding
    policies: tuple[str, ...]
    policy_digest: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """A node or a registered client, as far as a grant is concerned."""

    client_id: str
    kind: str
    tenant: str | None
    node: str | None
    generation: int | None
    standing: str
    instance: str | None
    registered: datetime | None
    scopes: frozenset[str]
    resources: frozenset[str]


def decide(
    who: Authenticated,
    wish: Wish,
    *,
    binding: Binding,
    resources: Resources,
    standings: StandingView,
    policies: PolicySet,
    issuer: str,
    now: datetime,
) -> Grant:
    """Return what a client gets.

    1. If it lives on a node, that node stands. 2. The resource is one, known, and open to the client. 3. The scopes are
    the client's, and the resource's. 4. The policies permit it. Raises `standing-*`, `TargetInvalid`, `ScopeInvalid` or
    `GrantDenied`.
    """
    subject = _node(who.node) if who.node is not None else _client(who.client, standings, now)  # 1
    api, audience = _target(subject, wish.resource, resources)  # 2
    scopes = _scopes(subject, api, wish.scope)  # 3
    facts: dict[str, Fact] = {
        "issuer": issuer,
        "subject": subject.client_id,
        "kind": subject.kind,
        "binding": binding,
        "api": api,
        "scopes": scopes,
        "tenant_bound": subject.tenant is not None,
        "node_bound": subject.node is not None,
        "standing": subject.standing,
    }
    request = Request(Entity("Client", subject.client_id), "issue", Entity("Api", audience), facts)
    try:
        decision = policies.require(request)  # 4
    except PolicyDenied as error:
        raise GrantDenied(error.detail) from error
    return Grant(
        client_id=subject.client_id,
        kind=subject.kind,
        api=api,
        audience=audience,
        scopes=scopes,
        tenant=subject.tenant,
        node=subject.node,
        generation=subject.generation,
        instance=subject.instance,
        registered=subject.registered,
        binding=binding,
        policies=decision.policies,
        policy_digest=decision.policy_digest,
    )


def _node(node: AttestedNode) -> _Subject:
    return _Subject(
        client_id=node.node,
        kind="node",
        tenant=node.tenant,
        node=node.node,
        generation=node.generation,
        standing=node.standing,
        instance=None,
        registered=None,
        scopes=NODE_SCOPES,
        resources=frozenset(),
    )


def _client(client: Client | None, standings: StandingView, now: datetime) -> _Subject:
    assert client is not None  # noqa: S101 - `Authenticated` has a node or a client
    entry = None if client.node is None else standings.current(client.node, now)
    return _Subject(
        client_id=client.client_id,
        kind=client.kind,
        tenant=client.tenant,
        node=client.node,
        generation=None if entry is None else entry.generation,
        standing="none" if entry is None else entry.standing.value,
        instance=client.instance,
        registered=client.created_at,
        scopes=client.scopes,
        resources=client.resources,
    )


def _target(subject: _Subject, wanted: str | None, resources: Resources) -> tuple[str, str]:
    """Return the API and its resource indicator; an application that names none means Mp1, as unmodified clients do."""
    if wanted is None:
        wanted = _default(subject, resources)
    api = resources.api(wanted)
    if api is None or (subject.resources and wanted not in subject.resources):
        raise TargetInvalid("the resource is unknown, or this client has no access to it")
    if api == SIGSTORE and subject.kind != "builder":
        raise GrantDenied("signing identity tokens are for builders only")
    return api, wanted


def _default(subject: _Subject, resources: Resources) -> str:
    if len(subject.resources) == 1:
        return next(iter(subject.resources))
    if subject.kind == "application":
        return resources.by_api["mp1"]
    raise TargetInvalid("the request names no resource", advice="resource=URL of the API (RFC 8707)")


def _scopes(subject: _Subject, api: str, wanted: str | None) -> frozenset[str]:
    """Return the scopes: those asked for, or all that the client has at that API."""
    there = subject.scopes & (SCOPES[api] | {"node:host"})
    if wanted is None:
        return there
    asked = wanted.split(" ")
    if len(set(asked)) != len(asked):
        raise ScopeInvalid("scopes are given twice")
    if missing := set(asked) - there:
        raise ScopeInvalid(f"{len(missing)} of the scopes are unknown at this resource, or not this client's")
    return frozenset(asked)
