"""Credentials of applications: somebody has a token, or a key, and not what belongs to it."""

import json
import secrets
from functools import cached_property
from typing import Any, Final

import httpx
import requests
from joserfc.jwk import ECKey

from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.client import OutsideClient
from umec_platform.demo.hand import PLATFORM, Hand, register, seconds, signed
from umec_platform.demo.run import MANAGEMENT, MP1, Run, code_of
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ATTACKS", "Holders"]

SERVICES: Final = "/mec_service_mgmt/v1/services"


class Holders:
    """People outside with a credential each: one bound to a node, one of its tenant and no node, one of another.

    `instance` is an application instance of the first tenant.
    """

    def __init__(self, run: Run, instance: str) -> None:
        self.run = run
        self.instance = instance
        self.http = run.clean_up.enter_context(run.http())
        self.bound = self._client("city-probe", tenant="city", node=NODES[0].name)
        self.outside = self._client("city-dashboard", tenant="city")
        self.foreign = self._client("transit-dashboard", tenant="transit")
        self.hand = Hand.of(self.http, run.folder / "city-probe.json")

    def _client(self, name: str, **members: str) -> OutsideClient:
        """Have the operator register somebody who may only read services."""
        file = self.run.folder / f"{name}.json"
        client = register(self.operator, name, kind="application", scopes=["mec:services.read"], **members)
        document = {"issuer": MANAGEMENT, "client_id": name, "private_jwk": client.key.as_dict(private=True)}
        file.write_text(json.dumps(document))
        return OutsideClient(file, self.run.ca)

    @cached_property
    def operator(self) -> Hand:
        """The operator."""
        return Hand.of(self.http, self.run.state / "operator.json")

    @cached_property
    def token(self) -> str:
        """A token of the one that is bound to a node."""
        return self.hand.token(f"{MP1}/")

    def honest(self) -> httpx.Response:
        """Read services with that token and a proof, as its holder does; raises `Broken` if that is refused."""
        answer = self.hand.call("GET", f"{MP1}{SERVICES}", self.token)
        if not answer.is_success or not answer.json():
            raise Broken(f"the honest call was refused: {answer.text}")
        return answer


def without_key(holders: Holders) -> str | None:
    """Show a stolen token without a proof."""
    token = holders.bound.token()
    if not holders.bound.call("GET", SERVICES, token=token).ok:
        raise Broken("the honest call was refused")
    return _said(holders.bound.call_without_proof(SERVICES, token=token))


def with_another_key(holders: Holders) -> str | None:
    """Show a stolen token with a proof by one's own key."""
    token = holders.bound.token()
    if not holders.bound.call("GET", SERVICES, token=token).ok:
        raise Broken("the honest call was refused")
    return _said(holders.foreign.call_with_own_proof(SERVICES, token=token))


def replayed_proof(holders: Holders) -> str | None:
    """Send a whole request again: token and proof as they were."""
    holders.honest()
    url = f"{MP1}{SERVICES}"
    proof = holders.hand.proof("GET", url, holders.token)
    if not holders.hand.call("GET", url, holders.token, proof=proof).is_success:
        raise Broken("the honest call was refused")
    return code_of(holders.hand.call("GET", url, holders.token, proof=proof))


def proof_of_another_request(holders: Holders) -> str | None:
    """Use the proof for one request with another."""
    holders.honest()
    proof = holders.hand.proof("GET", f"{MP1}/mec_service_mgmt/v1/transports", holders.token)
    return code_of(holders.hand.call("GET", f"{MP1}{SERVICES}", holders.token, proof=proof))


def forged_token(holders: Holders) -> str | None:
    """Sign an access token oneself, with every claim as it should be and more scopes."""
    holders.honest()
    now, key = seconds(), ECKey.generate_key("P-256", auto_kid=True)
    claims: dict[str, Any] = {"iss": MANAGEMENT, "aud": f"{MP1}/", "tenant": "city", "jti": secrets.token_hex(16)}
    claims |= {"sub": "city-probe", "client_id": "city-probe", "scope": "mec:services.read mec:app"}
    claims |= {"iat": now, "exp": now + 60}
    claims |= {"cnf": {"jkt": holders.hand.key.thumbprint()}}
    token = signed(claims, key, typ="at+jwt")
    return code_of(holders.hand.call("GET", f"{MP1}{SERVICES}", token))


def not_granted(holders: Holders) -> str | None:
    """Use a token where another scope is needed."""
    holders.honest()
    path = f"/mec_app_support/v1/applications/{holders.instance}/traffic_rules"
    return code_of(holders.hand.call("GET", f"{MP1}{path}", holders.token))


def widened(holders: Holders) -> str | None:
    """Ask for a scope that was not registered."""
    holders.hand.token(f"{MP1}/", "mec:services.read")
    return code_of(holders.hand.ask(f"{MP1}/", "mec:services.read mec:traffic"))


def foreign_resource(holders: Holders) -> str | None:
    """Ask for a token for an API of somebody else."""
    holders.hand.token(f"{MP1}/")
    return code_of(holders.hand.ask("https://198.51.100.1/"))


def at_management(holders: Holders) -> str | None:
    """Show a token for Mp1 to the management API."""
    holders.honest()
    return code_of(holders.hand.call("GET", f"{PLATFORM}/tenants", holders.token))


def at_mp1(holders: Holders) -> str | None:
    """Show a token for the management API to Mp1, though it is an operator's."""
    token = holders.operator.token(PLATFORM)
    if not holders.operator.call("GET", f"{PLATFORM}/tenants", token).is_success:
        raise Broken("the operator's token was refused")
    return code_of(holders.operator.call("GET", f"{MP1}{SERVICES}", token))


def expired_assertion(holders: Holders) -> str | None:
    """Use an assertion of a client whose time is over."""
    holders.hand.token(f"{MP1}/")
    now = seconds()
    return code_of(holders.hand.ask(f"{MP1}/", assertion=holders.hand.assertion(iat=now - 200, exp=now - 100)))


def replayed_assertion(holders: Holders) -> str | None:
    """Use an assertion of a client a second time."""
    assertion = holders.hand.assertion()
    if not holders.hand.ask(f"{MP1}/", assertion=assertion).is_success:
        raise Broken("the assertion was refused the first time")
    return code_of(holders.hand.ask(f"{MP1}/", assertion=assertion))


def foreign_assertion(holders: Holders) -> str | None:
    """Pass an assertion on that a client made for another server."""
    holders.hand.token(f"{MP1}/")
    return code_of(holders.hand.ask(f"{MP1}/", assertion=holders.hand.assertion(aud="https://198.51.100.1")))


def assertion_of_another(holders: Holders) -> str | None:
    """Sign an assertion in the name of another client."""
    holders.hand.token(f"{MP1}/")
    name = "transit-dashboard"
    return code_of(holders.hand.ask(f"{MP1}/", assertion=holders.hand.assertion(iss=name, sub=name)))


def other_tenants_services(holders: Holders) -> str | None:
    """Look for services of another tenant."""
    holders.honest()
    theirs = holders.foreign.call("GET", SERVICES, token=holders.foreign.token())
    return "served" if any(holders.instance in str(each) for each in theirs.json()) else "not-shown"


def other_tenants_instance(holders: Holders) -> str | None:
    """Act for an application instance of another tenant, with every scope that an application can have."""
    holders.honest()
    robot = register(
        holders.operator, "transit-robot", kind="application", tenant="transit", scopes=["mec:app", "mec:traffic"]
    )
    path = f"/mec_app_support/v1/applications/{holders.instance}/traffic_rules"
    return code_of(robot.call("GET", f"{MP1}{path}", robot.token(f"{MP1}/")))


def removed_client(holders: Holders) -> str | None:
    """Use a token of a client that was removed meanwhile."""
    client = register(holders.operator, "city-former", kind="application", tenant="city", scopes=["mec:services.read"])
    token = client.token(f"{MP1}/")
    if not client.call("GET", f"{MP1}{SERVICES}", token).is_success:
        raise Broken("the token did not work before")
    identity = f"{MANAGEMENT}/identity/v1"
    holders.operator.have("DELETE", f"{identity}/clients/city-former", identity)
    return code_of(client.call("GET", f"{MP1}{SERVICES}", token))


def no_token(holders: Holders) -> str | None:
    """Ask without a token."""
    holders.honest()
    return code_of(holders.http.get(f"{MP1}{SERVICES}"))


def _said(answer: requests.Response) -> str | None:
    return None if answer.ok else str(answer.json().get("code"))


TOKEN: Final = "another's token"  # noqa: S105 - a word
OWN: Final = "a client's own key"

ATTACKS: Final[tuple[Attack[Holders], ...]] = (
    Attack("stolen-token-without-its-key", "token-binding", TOKEN, without_key),
    Attack("stolen-token-with-another-key", "token-binding", f"{TOKEN}, an own key", with_another_key),
    Attack("replayed-proof", "dpop-replayed", "a recorded request", replayed_proof),
    Attack("proof-of-another-request", "dpop-invalid", "a recorded request", proof_of_another_request),
    Attack("forged-token", "token-invalid", "an own key", forged_token),
    Attack("scope-not-granted", "token-scope", OWN, not_granted),
    Attack("scope-widened", "scope-invalid", OWN, widened),
    Attack("resource-not-ours", "target-invalid", OWN, foreign_resource),
    Attack("mp1-token-at-management", "token-audience", OWN, at_management),
    Attack("management-token-at-mp1", "token-audience", "an operator's token", at_mp1),
    Attack("expired-assertion", "assertion-expired", "a recorded assertion", expired_assertion),
    Attack("replayed-assertion", "assertion-replayed", "a recorded assertion", replayed_assertion),
    Attack("assertion-for-another-server", "assertion-audience", "a server that clients trust", foreign_assertion),
    Attack("assertion-of-another-client", "client-invalid", OWN, assertion_of_another),
    Attack("services-of-another-tenant", "not-shown", OWN, other_tenants_services),
    Attack("instance-of-another-tenant", "instance-foreign", OWN, other_tenants_instance),
    Attack("token-of-a-removed-client", "token-revoked", OWN, removed_client),
    Attack("no-token", "token-missing", "a network", no_token),
)
