"""Every endpoint of every listener, asked badly: a refusal with a code, in time, that shows nothing of the inside.

The endpoints are those that the applications themselves name: one that `ENDPOINTS` does not describe fails the first
test, and the rest walks over all of them. A fault is made in a request that is good without it, on a real connection
that has to serve the next request as well.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MARK: Final = "hunter2"
"""Stands in everything bad that is sent, and in nothing that is answered or logged."""

INSTANCE: Final = "00000000-0000-4000-8000-000000000000"
DIGEST: Final = "sha256:" + "ab" * 32
JSON: Final = b"application/json"
FORM: Final = b"application/x-www-form-urlencoded"
OCTETS: Final = b"application/octet-stream"
MAX_BODY: Final = 1024 * 1024
ATTEST, IDENTITY, PLATFORM, MP1, REGISTRY = "attest", "identity", "platform", "mp1", "registry"
AUDIENCES: Final = {
    ATTEST: ("management", "/attest/v1"),
    IDENTITY: ("management", "/identity/v1"),
    PLATFORM: ("management", "/platform/v1"),
    MP1: ("mp1", "/"),
    REGISTRY: ("registry", "/"),
}
VALUES: Final = {
    "instance": INSTANCE,
    "service": INSTANCE,
    "subscription": "none",
    "rule": "Web",
    "name": "attest",
    "enrolment": "ab" * 16,
    "node": "lamp",
    "sha256": "ab" * 32,
    "client_id": "nobody",
    "package": INSTANCE,
    "operation": INSTANCE,
    "digest": DIGEST,
    "tenant": "harbour",
    "repository": "hello",
    "reference": "v1",
    "upload": INSTANCE,
    "session": "ab" * 16,
    "ek_sha256": "ab" * 32,
}
"""A good value for each parameter of a path."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, how to ask it well, and what it answers then."""

    listener: str
    method: str
    path: str
    good: int
    code: str | None = None
    api: str | None = None
    """Whose token it wants; None for one that is public or authenticates its callers in another way."""
    scope: str = ""
    body: Any = None
    kind: bytes = JSON
    ours: bool = False
    """Its body is a format of our own: an unknown member is refused."""
    optional: bool = False
    """It may be asked without a body."""
    signed: bool = False
    """Its body is an envelope that says itself what it is, whatever the content type is."""
    query: str = ""
    """What it must be asked with."""
    free_query: bool = False
    """Its standard, or custom, lets a query hold what it does not know."""

    def __str__(self) -> str:
        return f"{self.listener} {self.method} {self.path}"

    def content(self) -> bytes:
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return json.dumps(self.body).encode()


BLOB: Final = "AAAA"
SERVICE: Final = {
    "serName": "hello",
    "version": "1.0",
    "state": "ACTIVE",
    "serializer": "JSON",
    "livenessInterval": 0,
    "transportInfo": {
        "id": "t1",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "1.1",
        "endpoint": {"uris": ["http://10.64.1.10/"]},
    },
}
TRAFFIC: Final = {
    "trafficRuleId": "Web",
    "filterType": "FLOW",
    "priority": 1,
    "action": "DROP",
    "state": "ACTIVE",
    "trafficFilter": [{"dstAddress": ["203.0.113.10"], "dstPort": ["80"], "protocol": ["TCP"]}],
}
DNS: Final = {
    "dnsRuleId": "Web",
    "domainName": "hello.harbour.example",
    "ipAddressType": "IP_V4",
    "ipAddress": "203.0.113.10",
    "ttl": 30,
    "state": "ACTIVE",
}
APPD: Final = {
    "appDId": "hello",
    "appName": "hello",
    "appProvider": "harbour",
    "appSoftVersion": "1.0",
    "appDVersion": "1",
    "mecVersion": ["3.1.1"],
    "swImageDescriptor": [{"swImage": f"harbour/hello@{DIGEST}"}],
}
AVAILABILITY: Final = {
    "subscriptionType": "SerAvailabilityNotificationSubscription",
    "callbackReference": "http://10.64.1.10/news",
}
TERMINATION: Final = {
    "subscriptionType": "AppTerminationNotificationSubscription",
    "appInstanceId": INSTANCE,
    "callbackReference": "http://10.64.1.10/end",
}
CLIENT: Final = {"client_id": "tool", "kind": "builder", "tenant": "harbour", "jwks": {"keys": []}}


def _management() -> Iterator[Endpoint]:
    m = "management"
    for probe in ("/healthz", "/readyz", "/metrics"):
        yield Endpoint(m, "GET", probe, 200, free_query=True)
    node, enrolment = "/attest/v1/nodes", "/attest/v1/enrolments"
    ticket = {"asset": "lamp", "tenant": "harbour", "image": "edge", "ek_sha256": "ab" * 32, "lifetime_seconds": 60}
    device = {"public": BLOB, "certificate": BLOB, "chain": [BLOB]}
    keys = {"node": "lamp", "ek_public": BLOB, "ak_public": BLOB, "node_key_public": BLOB}
    keys |= {"iak": device, "idevid": device}
    certified = {"attest": BLOB, "signature": BLOB}
    proof = {"secret": BLOB, "certify_attest": BLOB, "certify_signature": BLOB}
    proof |= {"iak_certifies_ak": certified, "iak_certifies_idevid": certified}
    evidence = {"node": "lamp", "challenge": "c", "quote": BLOB, "signature": BLOB, "pcrs": {"sha256": {"0": "00"}}}
    admin = {"api": ATTEST, "scope": "attest:admin"}
    yield Endpoint(m, "POST", "/attest/v1/tickets", 201, body=ticket, ours=True, **admin)
    allowed = "/attest/v1/allowed-tpms/{ek_sha256}"
    word = {name: value for name, value in ticket.items() if name != "ek_sha256"}
    yield Endpoint(m, "DELETE", allowed, 404, "tpm-not-allowed", **admin)
    yield Endpoint(m, "PUT", allowed, 200, body=word, ours=True, **admin)
    yield Endpoint(m, "POST", enrolment, 400, "tpm-invalid", body=keys, ours=True)
    yield Endpoint(m, "POST", enrolment + "/{enrolment}/activation", 404, "enrolment-unknown", body=proof, ours=True)
    yield Endpoint(m, "POST", "/attest/v1/challenges", 404, "node-unknown", body={"node": "lamp"}, ours=True)
    yield Endpoint(m, "POST", "/attest/v1/evidence", 404, "node-unknown", body=evidence, ours=True)
    asked = {"node": "lamp", "ak_public": BLOB, "node_key_public": BLOB}
    said = {"attest": BLOB, "signature": BLOB}
    proven = {"permit": "p", "secret": BLOB, "ak_certified": said, "node_key_certified": said, "quoted": said}
    proven |= {**asked, "pcrs": {"sha256": {"0": "00"}}}
    yield Endpoint(m, "POST", "/attest/v1/rotations", 404, "node-unknown", body=asked, ours=True)
    yield Endpoint(m, "POST", "/attest/v1/rotations/proof", 422, "rotation-unknown", body=proven, ours=True)
    yield Endpoint(m, "GET", "/attest/v1/checkpoint", 200)
    yield Endpoint(m, "GET", "/attest/v1/jwks", 200)
    yield Endpoint(m, "GET", "/attest/v1/standings", 200, api=ATTEST, scope="standings:read")
    yield Endpoint(m, "GET", "/attest/v1/standings/own", 403, "not-a-node", api=ATTEST, scope="node:host")
    for path in ("", "/{node}", "/{node}/explain", "/{node}/history", "/{node}/evidence/{sha256}"):
        found = (404, "node-unknown") if path else (200, None)
        yield Endpoint(m, "GET", node + path, *found, api=ATTEST, scope="attest:read")
    decided = {"ours": True, "optional": True, **admin}
    for act in ("approve", "quarantine", "readmit", "revoke", "announce-reboot", "clear-reset"):
        said = {"tenant": "harbour"} if act == "approve" else {"reason": "r"}
        yield Endpoint(m, "POST", f"{node}/{{node}}/{act}", 404, "node-unknown", body=said, **decided)
    back = {"version": 1, "reason": "r"}
    yield Endpoint(m, "POST", f"{node}/{{node}}/allow-version", 404, "node-unknown", body=back, ours=True, **admin)
    own = {"seconds": 60, "resets": 1, "reason": "r"}
    yield Endpoint(
        m, "POST", "/attest/v1/reboots", 403, "not-a-node", body=own, ours=True, api=ATTEST, scope="node:host"
    )
    kept, secret = f"{node}/{{node}}/secrets", {"secret": 8 * BLOB, "degraded": False}
    wanted = {"name": "disk", "evidence": evidence}
    yield Endpoint(m, "GET", kept, 404, "node-unknown", api=ATTEST, scope="attest:read")
    yield Endpoint(m, "PUT", kept + "/{name}", 404, "node-unknown", body=secret, ours=True, **admin)
    yield Endpoint(m, "DELETE", kept + "/{name}", 404, "secret-unknown", **admin)
    yield Endpoint(m, "POST", "/attest/v1/secrets/release", 404, "node-unknown", body=wanted, ours=True)
    yield Endpoint(m, "GET", "/attest/v1/audit", 200, **admin)
    sets = "/attest/v1/reference-sets"
    envelope = {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}
    yield Endpoint(m, "POST", sets, 422, "reference-signature", body=envelope, signed=True, **admin)
    yield Endpoint(m, "GET", sets, 200, api=ATTEST, scope="attest:read")

    for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"):
        form = b"grant_type=client_credentials" if path == "/oauth2/token" else b"token=t"
        yield Endpoint(m, "POST", path, 401, "client-authentication-missing", body=form, kind=FORM)
    yield Endpoint(m, "POST", "/oauth2/challenge", 200)
    yield Endpoint(m, "GET", "/oauth2/jwks", 200)
    for document in ("oauth-authorization-server", "openid-configuration", "oauth-protected-resource/{name}/v1"):
        yield Endpoint(m, "GET", f"/.well-known/{document}", 200)
    clients = {"api": IDENTITY, "scope": "identity:clients"}
    yield Endpoint(m, "GET", "/identity/v1/ca", 200)
    yield Endpoint(m, "POST", "/identity/v1/certificates", 400, "csr-invalid", body={"csr": "PEM"}, ours=True)
    yield Endpoint(m, "POST", "/identity/v1/clients", 400, "jwk-invalid", body=CLIENT, ours=True, **clients)
    yield Endpoint(m, "GET", "/identity/v1/clients", 200, **clients)
    for method in ("GET", "DELETE"):
        yield Endpoint(m, method, "/identity/v1/clients/{client_id}", 404, "client-unknown", **clients)
    yield Endpoint(m, "GET", "/identity/v1/audit", 200, **clients)
    yield Endpoint(m, "GET", "/identity/v1/audit-key", 200)

    ours = {"api": PLATFORM, "scope": "platform:admin"}
    tenant = {"id": "edge", "name": "Edge", "addresses": ["203.0.113.8/29"], "domains": ["edge.example"]}
    yield Endpoint(m, "POST", "/platform/v1/tenants", 201, body=tenant, ours=True, **ours)
    yield Endpoint(m, "POST", "/platform/v1/hosts", 201, body={"id": "h", "node": "n", "netd": "/h"}, ours=True, **ours)
    node = {"api": PLATFORM, "scope": "node:host"}
    yield Endpoint(m, "POST", "/platform/v1/relay", 403, "not-a-node", **node)
    yield Endpoint(m, "GET", "/platform/v1/relay/{session}/requests", 403, "not-a-node", **node)
    yield Endpoint(m, "POST", "/platform/v1/relay/{session}/answers", 403, "not-a-node", **node)
    order = {"repository": "harbour/lamp", "digest": DIGEST, "node": "lamp"}
    report = {"image": "lamp", "running": 1, "confirmed": 1, "phase": "failed", "version": 2}
    report |= {"manifest": DIGEST, "digest": DIGEST, "code": "trial-over", "detail": "not trusted in time"}
    orders, own = "/platform/v1/node-images", "/platform/v1/node-image"
    yield Endpoint(m, "PUT", orders, 404, "manifest-unknown", body=order, ours=True, **ours)
    yield Endpoint(m, "GET", orders, 200, **ours)
    yield Endpoint(m, "DELETE", orders, 404, "node-image-order-unknown", query="target=node/lamp", **ours)
    yield Endpoint(m, "GET", own, 403, "not-a-node", **node)
    yield Endpoint(m, "POST", own, 403, "not-a-node", body=report, ours=True, **node)
    for path in ("tenants", "hosts", "services", "rules", "audit"):
        yield Endpoint(m, "GET", f"/platform/v1/{path}", 200, **ours)
    packages, package = "/app_pkgm/v1/app_packages", "/app_pkgm/v1/app_packages/{package}"
    instances, instance = "/app_lcm/v1/app_instances", "/app_lcm/v1/app_instances/{instance}"
    no_package, no_instance = (404, "package-unknown"), (404, "instance-unknown")
    yield Endpoint(m, "GET", "/platform/v1/instances/{instance}/log", *no_instance, **ours)
    yield Endpoint(m, "POST", packages, 403, "tenant-foreign", body={"appPkgName": "hello"}, **ours)
    yield Endpoint(m, "GET", packages, 200, **ours)
    yield Endpoint(m, "GET", package, *no_package, **ours)
    yield Endpoint(m, "GET", f"{package}/appd", *no_package, **ours)
    yield Endpoint(m, "PUT", f"{package}/package_content", 404, "package-unknown", body=APPD, **ours)
    yield Endpoint(m, "DELETE", package, *no_package, **ours)
    yield Endpoint(m, "POST", instances, *no_package, body={"appDId": "hello"}, **ours)
    yield Endpoint(m, "GET", instances, 200, **ours)
    yield Endpoint(m, "GET", instance, *no_instance, **ours)
    yield Endpoint(m, "DELETE", instance, *no_instance, **ours)
    yield Endpoint(m, "POST", f"{instance}/instantiate", *no_instance, body={}, **ours)
    yield Endpoint(m, "POST", f"{instance}/terminate", *no_instance, body={"terminationType": "FORCEFUL"}, **ours)
    yield Endpoint(m, "GET", "/app_lcm/v1/app_lcm_op_occs", 200, **ours)
    yield Endpoint(m, "GET", "/app_lcm/v1/app_lcm_op_occs/{operation}", 404, "operation-unknown", **ours)


def _mp1() -> Iterator[Endpoint]:
    for probe in ("/healthz", "/readyz"):
        yield Endpoint("mp1", "GET", probe, 200, free_query=True)
    for version in ("v1", "v2"):
        yield from _services(f"/mec_service_mgmt/{version}")
        yield from _support(f"/mec_app_support/{version}")


def _mp1_endpoint(scope: str, method: str, path: str, good: int | str, body: Any = None) -> Endpoint:
    status, code = (good, None) if isinstance(good, int) else (404, good)
    return Endpoint("mp1", method, path, status, code, MP1, f"mec:{scope}", body)


def _services(base: str) -> Iterator[Endpoint]:
    services, own = f"{base}/services", f"{base}/applications/{{instance}}/services"
    one, mine, no_service = f"{services}/{{service}}", f"{own}/{{service}}", "service-unknown"
    read, write = "services.read", "services.write"
    yield _mp1_endpoint(read, "GET", services, 200)
    yield _mp1_endpoint(read, "GET", one, no_service)
    yield _mp1_endpoint(read, "GET", f"{one}/liveness", no_service)
    yield _mp1_endpoint(write, "PATCH", f"{one}/liveness", no_service, {"state": "ACTIVE"})
    yield _mp1_endpoint(read, "GET", f"{base}/transports", 200)
    yield _mp1_endpoint(read, "GET", own, 200)
    yield _mp1_endpoint(write, "POST", own, "instance-unknown", SERVICE)
    yield _mp1_endpoint(read, "GET", mine, no_service)
    yield _mp1_endpoint(write, "PUT", mine, "instance-unknown", SERVICE)
    yield _mp1_endpoint(write, "DELETE", mine, no_service)
    yield from _subscriptions(base, read, AVAILABILITY)


def _support(base: str) -> Iterator[Endpoint]:
    app, no_instance = f"{base}/applications/{{instance}}", "instance-unknown"
    yield _mp1_endpoint("app", "POST", f"{app}/confirm_ready", no_instance, {"indication": "READY"})
    yield _mp1_endpoint("app", "POST", f"{app}/confirm_termination", no_instance, {"operationAction": "STOPPING"})
    yield _mp1_endpoint("app", "GET", f"{base}/registrations/{{instance}}", no_instance)
    for path in ("timing_caps", "current_time"):
        yield _mp1_endpoint("app", "GET", f"{base}/timing/{path}", 200)
    for scope, body in (("traffic", TRAFFIC), ("dns", DNS)):
        yield _mp1_endpoint(scope, "GET", f"{app}/{scope}_rules", no_instance)
        yield _mp1_endpoint(scope, "GET", f"{app}/{scope}_rules/{{rule}}", "rule-unknown")
        yield _mp1_endpoint(scope, "PUT", f"{app}/{scope}_rules/{{rule}}", "rule-unknown", body)
    yield from _subscriptions(base, "app", TERMINATION)


def _subscriptions(base: str, scope: str, body: Any) -> Iterator[Endpoint]:
    all_of_them = f"{base}/applications/{{instance}}/subscriptions"
    unsupported = (422, "subscription-unsupported", MP1, f"mec:{scope}", body)
    yield _mp1_endpoint(scope, "GET", all_of_them, 200)
    yield Endpoint("mp1", "POST", all_of_them, *unsupported)
    for method in ("GET", "DELETE"):
        yield _mp1_endpoint(scope, method, f"{all_of_them}/{{subscription}}", "subscription-unknown")


def _registry() -> Iterator[Endpoint]:
    r = "registry"
    for probe in ("/healthz", "/readyz"):
        yield Endpoint(r, "GET", probe, 200, free_query=True)
    admin = {"api": REGISTRY, "scope": "images:admin"}
    images = "/images/v1"
    promotion = {"repository": "harbour/hello", "digest": DIGEST, "stage": "staging"}
    yield Endpoint(r, "GET", f"{images}/audit", 200, **admin)
    yield Endpoint(r, "GET", f"{images}/denials", 200, **admin)
    asked = {"query": f"tenant=harbour&repository=harbour/hello&digest={DIGEST}", "scope": "images:pull"}
    yield Endpoint(r, "GET", f"{images}/admission", 200, api=REGISTRY, **asked)
    yield Endpoint(r, "POST", f"{images}/denials", 201, body={"digest": DIGEST, "reason": "r"}, ours=True, **admin)
    yield Endpoint(r, "DELETE", images + "/denials/{digest}", 200, **admin)
    promoter = {"api": REGISTRY, "scope": "images:promote"}
    yield Endpoint(r, "POST", f"{images}/promotions", 404, "manifest-unknown", body=promotion, ours=True, **promoter)
    least = {"repository": "harbour/hello", "version": "1.0.0", "reason": "r"}
    yield Endpoint(r, "PUT", f"{images}/minimums", 200, body=least, ours=True, **admin)
    for public in ("promotion-key", "audit-key"):
        yield Endpoint(r, "GET", f"{images}/{public}", 200)
    for public in ("trusted_root.json", "client_trust_config.json", "fulcio/api/v2/trustBundle"):
        yield Endpoint(r, "GET", f"/sigstore/{public}", 200)
    yield Endpoint(r, "GET", "/api/v2/trustBundle", 200)
    for path in ("/sigstore/fulcio/api/v2/signingCert", "/api/v2/signingCert"):
        yield Endpoint(r, "POST", path, 401, "identity-token-missing", body={"certificateSigningRequest": "AAAA"})
    yield Endpoint(r, "POST", "/sigstore/rekor/api/v2/log/entries", 400, "log-entry-invalid", body={"a": {}})
    no_time = (400, "timestamp-request-invalid")
    yield Endpoint(r, "POST", "/sigstore/tsa/api/v1/timestamp", *no_time, body=b"0", kind=OCTETS)

    name = "/v2/{tenant}/{repository}"
    served: dict[str, dict[str, tuple[int, str | None]]] = {
        "/v2/": {"GET": (200, None), "HEAD": (200, None)},
        f"{name}/tags/list": {"GET": (200, None)},
        f"{name}/manifests/{{reference}}": {
            "GET": (404, "manifest-unknown"),
            "HEAD": (404, None),
            "PUT": (400, "manifest-invalid"),
        },
        f"{name}/referrers/{{digest}}": {"GET": (200, None)},
        f"{name}/blobs/uploads/": {"POST": (202, None)},
        f"{name}/blobs/uploads/{{upload}}": {
            "GET": (400, "upload-refused"),
            "PATCH": (400, "upload-refused"),
            "PUT": (400, "reference-invalid"),
        },
        f"{name}/blobs/{{digest}}": {"GET": (404, "blob-unknown"), "HEAD": (404, None)},
    }
    access = {"api": REGISTRY, "scope": "images:pull images:push", "kind": OCTETS, "free_query": True}
    for path, methods in served.items():
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            code = None if method == "HEAD" else "operation-unsupported"
            body = b"octets" if method in {"PUT", "PATCH"} else None
            yield Endpoint(r, method, path, *methods.get(method, (405, code)), body=body, **access)


ENDPOINTS: Final = [*_management(), *_mp1(), *_registry()]


def test_every_endpoint_is_described(site):
    assert {(one.listener, one.method, one.path) for one in ENDPOINTS} == site.routes()


# --- asking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request that can still be changed."""

    endpoint: Endpoint
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def but(self, **changes: Any) -> "Request":
        return Request(
            **{**{name: getattr(self, name) for name in ("endpoint", "target", "headers", "body")}, **changes}
        )

    def with_query(self, query: bytes) -> "Request":
        return self.but(target=self.target + (b"&" if b"?" in self.target else b"?") + query)

    def with_body(self, body: bytes) -> "Request":
        return self.but(body=body, headers=(*self._without(b"content-length"), (b"Content-Length", b"%d" % len(body))))

    def with_header(self, name: bytes, *values: bytes) -> "Request":
        return self.but(headers=(*self._without(name.lower()), *((name, value) for value in values)))

    def _without(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        return (pair for pair in self.headers if pair[0].lower() != name)


def made(site: Any, endpoint: Endpoint, *, path: str | None = None, anonymous: bool = False) -> Request:
    """Return the good request of an endpoint; `path` is sent in place of its own."""
    target = path or endpoint.path.format(**VALUES)
    headers: list[tuple[bytes, bytes]] = []
    if endpoint.api is not None and not anonymous:
        listener, audience = AUDIENCES[endpoint.api]
        claims = {"tenant": "harbour", "instance": INSTANCE} if endpoint.api == MP1 else {}
        token = site.token(site.url(listener) + audience, endpoint.scope, **claims)
        headers += site.credentials(endpoint.method, site.url(endpoint.listener) + target, token)
    content = endpoint.content()
    if endpoint.body is not None:
        headers.append((b"Content-Type", endpoint.kind))
    if endpoint.method in {"POST", "PUT", "PATCH"}:
        headers.append((b"Content-Length", b"%d" % len(content)))
    asked = f"{target}?{endpoint.query}" if endpoint.query else target
    return Request(endpoint, asked.encode(), tuple(headers), content)


def ask(site: Any, request: Request) -> Any:
    """Send a request; whatever the answer is, it has to be one of ours, and the log has to be calm."""
    answer = site.ask(request.endpoint.listener, request.endpoint.method, request.target, request.headers, request.body)
    lines = site.logged.take()
    where = (str(request.endpoint), answer.status, answer.body[:300])
    assert answer.status < 500, (where, lines)
    assert not [line for line in lines if line.get("exc_info") or line["level"] in {"error", "critical"}], where
    assert MARK not in repr(lines), (where, lines)
    if answer.status >= 400 and request.endpoint.method != "HEAD":
        well_formed(request, answer)
    return answer


def well_formed(request: Request, answer: Any) -> None:
    """A refusal: JSON of the kind that the endpoint's clients read, a code, and nothing of what was sent."""
    where = (str(request.endpoint), answer.status, answer.body[:300])
    said, kind = answer.document, answer.headers["content-type"]
    path = request.endpoint.path
    if path.startswith("/v2"):
        assert kind == "application/json", where
        assert re.fullmatch(r"[A-Z_]+", said["errors"][0]["code"]), where
    elif path.startswith("/oauth2/") and "error" in said:
        assert kind == "application/json", where
        assert re.fullmatch(r"[a-z_]+", said["error"]), where
    else:
        assert kind == "application/problem+json", where
        assert said["status"] == answer.status, where
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", answer.code), where
    assert MARK not in answer.body.decode(), where
    assert "Traceback" not in answer.body.decode(), where


def refused(site: Any, request: Request, *, status: set[int] | None = None) -> Any:
    answer = ask(site, request)
    where = (str(request.endpoint), request.target[:100], request.headers, request.body[:100], answer.body[:300])
    assert 400 <= answer.status < 500, where
    assert status is None or answer.status in status, (answer.status, where)
    return answer


PROTECTED: Final = [one for one in ENDPOINTS if one.api is not None]


def test_without_a_fault_each_answers_as_it_should(site):
    wrong = []
    for endpoint in ENDPOINTS:
        answer = ask(site, made(site, endpoint))
        code = answer.code if answer.status >= 400 and answer.body else None
        if (answer.status, code) != (endpoint.good, endpoint.code):
            wrong.append((str(endpoint), answer.status, code))
    assert not wrong, "\n".join(map(str, wrong))


# --- bodies ----------------------------------------------------------------------------------------------------------

READS_JSON: Final = [one for one in ENDPOINTS if one.body is not None and one.kind == JSON]
NOT_JSON: Final = {
    "null": b"null",
    "true": b"true",
    "number": b"7",
    "text": b'"hunter2"',
    "list": b'["hunter2"]',
    "nested list": b"[" * 500 + b"]" * 500,
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "NaN": b'{"more": NaN}',
    "infinity": b'{"more": 1e999}',
    "long number": b'{"more": ' + b"9" * 5000 + b"}",
    "white space": b" \n",
    "NUL": b"\0",
    "not UTF-8": b'{"more": "\xff\xfe"}',
    "half of a character": b'{"more": "\\ud800"}',
    "escaped NUL": b'{"more": "\\u0000"}',
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
}


def spoiled(endpoint: Endpoint) -> Iterator[tuple[str, bytes]]:
    """The good body of an endpoint, with one fault in how it is written."""
    good = endpoint.content()
    members = json.dumps({**endpoint.body, "more": "hunter2"})
    yield "truncated", good[:-1]
    yield "halved", good[: len(good) // 2]
    yield "continued", good + b"hunter2"
    yield "twice", good + good
    yield "UTF-16", good.decode().encode("utf-16")
    yield "UTF-32", good.decode().encode("utf-32-le")
    yield "marked", b"\xef\xbb\xbf" + good
    yield "member twice", b"%s, %s" % (members[:-1].encode(), members[1:].encode())
    yield "single quotes", str({**endpoint.body, "more": "hunter2"}).encode()
    yield "too deep", json.dumps({**endpoint.body, "more": deep(40)}).encode()
    if endpoint.ours:
        yield "unknown member", members.encode()


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


@pytest.mark.parametrize("endpoint", READS_JSON, ids=str)
def test_a_body_that_is_not_what_it_should_be_is_refused(site, endpoint):
    bodies = {**NOT_JSON, **dict(spoiled(endpoint)), **({} if endpoint.optional else {"empty": b""})}
    if endpoint.optional:
        del bodies["null"]
    for anonymous in (False, True):
        for name, body in bodies.items():
            answer = refused(site, made(site, endpoint, anonymous=anonymous).with_body(body))
            authentic = answer.status in {401, 403} and endpoint.api is not None
            assert answer.status in {400, 422} or (anonymous and authentic), (name, answer)


@pytest.mark.parametrize("endpoint", READS_JSON, ids=str)
def test_a_body_of_another_type_is_refused(site, endpoint):
    request = made(site, endpoint)
    for kind in (b"text/plain", b"application/xml", b"multipart/form-data; boundary=x", b"\xff\xfe", b"/", b"a" * 5000):
        if not endpoint.signed:
            refused(site, made(site, endpoint).with_header(b"Content-Type", kind), status={400, 401})
    refused(site, request.with_header(b"Content-Type", JSON, b"text/plain"), status={400})
    if not endpoint.signed:
        refused(site, made(site, endpoint).with_header(b"Content-Type"), status={400, 401})


@pytest.mark.parametrize("endpoint", [one for one in READS_JSON if one.body], ids=str)
def test_a_member_of_another_type_is_refused(site, endpoint):
    for name, good in endpoint.body.items():
        for wrong in (7, 1.5, True, "hunter2", ["hunter2"], {"more": 1}, -(10**19)):
            if _alike(wrong, good) or (name == "mecVersion" and wrong == "hunter2"):  # editions differ in it
                continue
            body = json.dumps({**endpoint.body, name: wrong}).encode()
            answer = refused(site, made(site, endpoint).with_body(body), status={400, 401, 404, 422})
            if endpoint.good not in {400, 401, 422}:  # else the next check refuses what is good here, too
                assert answer.code != endpoint.code, (name, wrong)


def _alike(wrong: Any, good: Any) -> bool:
    """Whether a value may be good where another one is: numbers and truth values are read for each other."""
    numbers = (int, float)
    return isinstance(wrong, type(good)) or (isinstance(wrong, numbers) and isinstance(good, numbers))


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.body is not None], ids=str)
def test_a_body_that_is_too_large_is_refused(site, endpoint):
    if endpoint.path.startswith("/v2/") and "manifests" not in endpoint.path:
        return  # blobs may be that large
    body = b'{"a": "' + b"x" * (MAX_BODY - 8) + b'"}'
    assert refused(site, made(site, endpoint).with_body(body)).status in {400, 405, 413}
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    request = made(site, endpoint).with_header(b"Content-Length").with_header(b"Transfer-Encoding", b"chunked")
    assert refused(site, request.but(body=chunks)).status in {400, 405, 413}


junk: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["", "../x", "a\nb", "-", "\x00", "{}", "0" * 5000, "hunter2", "2026-01-01T00:00:00Z", 2**63]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=6,
)


@given(endpoint=st.sampled_from(READS_JSON), data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_change_of_a_good_body_is_answered(site, endpoint, data):
    body = copy.deepcopy(endpoint.body)
    for _ in range(data.draw(st.integers(1, 3))):
        at, key = body, None
        while isinstance(at, dict | list) and at and (key is None or data.draw(st.booleans())):
            above = at
            key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
            at = at[key]
        if key is None:
            body["more"] = data.draw(junk)
        else:
            above[key] = data.draw(junk)
    ask(site, made(site, endpoint).with_body(json.dumps(body).encode()))


@given(endpoint=st.sampled_from([one for one in ENDPOINTS if one.body is not None]), data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_octets_in_a_good_body_are_answered(site, endpoint, data):
    body = bytearray(endpoint.content())
    at = data.draw(st.integers(0, len(body)))
    body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=12))
    ask(site, made(site, endpoint).with_body(bytes(body)))


# --- forms -----------------------------------------------------------------------------------------------------------

FORMS: Final = [one for one in ENDPOINTS if one.kind == FORM]
BAD_FORMS: Final = {
    "empty": b"",
    "no pairs": b"hunter2",
    "repeated": b"a=1&a=hunter2",
    "not ASCII": b"a=\xff",
    "not UTF-8": b"a=%ff",
    "half an escape": b"grant_type=%",
    "NUL": b"grant_type=%00",
    "many": b"&".join(b"a%d=hunter2" % n for n in range(100)),
    "large": b"a=" + b"x" * 20_000,
    "JSON": b'{"grant_type": "client_credentials"}',
    "several resources": b"resource=a&resource=b",
}


@pytest.mark.parametrize("endpoint", FORMS, ids=str)
def test_a_form_that_is_none_is_refused(site, endpoint):
    good = made(site, endpoint)
    for body in BAD_FORMS.values():
        assert "error" in refused(site, good.with_body(body), status={400, 401, 413}).document
    for kind in (b"application/json", b"text/plain", b"multipart/form-data", FORM + b"; charset=utf-16", b"\xff"):
        assert refused(site, good.with_header(b"Content-Type", kind), status={400}).code == "request-invalid"
    assert refused(site, good.with_header(b"Content-Type"), status={400}).code == "request-invalid"
    refused(site, good.with_header(b"Content-Type", FORM, FORM), status={400})


@given(endpoint=st.sampled_from(FORMS), body=st.binary(max_size=80) | st.text("a=&%+01f", max_size=60).map(str.encode))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_form_is_answered(site, endpoint, body):
    refused(site, made(site, endpoint).with_body(body))


# --- addresses -------------------------------------------------------------------------------------------------------

BAD_SEGMENTS: Final = (
    *("%2F", "..%2F..%2Fhunter2", "%2e%2e", "%00", "%0d%0aX-Hunter2:%20hunter2", "%ff%fe", "%c3%a4hunter2", "%", "%zz"),
    *(
        "*",
        "'%20or%201=1--hunter2",
        "$(hunter2)",
        "a" * 5000,
        "%252Fhunter2",
        "-hunter2",
        "sha256:hunter2",
        "%f0%9f%98%80",
    ),
)


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if "{" in one.path], ids=str)
def test_a_path_that_names_nothing_is_refused(site, endpoint):
    for parameter in re.findall(r"\{(\w+)\}", endpoint.path):
        for segment in BAD_SEGMENTS:
            path = endpoint.path.format(**{**VALUES, parameter: segment})
            refused(site, made(site, endpoint, path=path), status={400, 401, 403, 404, 405, 422})


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_a_query_that_is_not_read_is_refused(site, endpoint):
    for query in (
        b"hunter2=1",
        b"hunter2",
        b"%00=%00",
        b"&".join([b"hunter2=%ff"] * 1000),
        b"tenant=a&tenant=b",
    ):
        request = made(site, endpoint).with_query(query)
        if endpoint.free_query:
            answer = ask(site, request)
            assert answer.status in {endpoint.good, 400}, answer
        else:
            refused(site, request, status={400, 401})


QUERIES: Final = {
    "/attest/v1/standings": [
        "after=-1",
        "after=x",
        "after=9007199254740993",
        "wait=nan",
        "wait=-1",
        "wait=1e9",
        "node=A",
    ],
    "/platform/v1/instances/{instance}/log": ["lines=0", "lines=x", "lines=1e3", "lines=99999999999999999999"],
    "/mec_service_mgmt/v1/services": [
        *("is_local=maybe", "ser_name=", "ser_name=a,,b", "ser_name=a&ser_instance_id=b", "scope_of_locality=MOON"),
        *("is_local=true&is_local=false", "ser_name=" + "a," * 100 + "a", "ser_name=" + "a" * 2000),
    ],
}


@pytest.mark.parametrize("path", QUERIES)
def test_a_value_in_a_query_that_is_none_is_refused(site, path):
    endpoint = next(one for one in ENDPOINTS if (one.method, one.path) == ("GET", path))
    for query in QUERIES[path]:
        refused(site, made(site, endpoint).with_query(query.encode()), status={400})


@pytest.mark.parametrize("path", sorted({(one.listener, one.path) for one in ENDPOINTS}), ids=" ".join)
def test_a_method_that_is_not_served_is_refused(site, path):
    listener, template = path
    served = {one.method for one in ENDPOINTS if (one.listener, one.path) == path}
    example = next(one for one in ENDPOINTS if (one.listener, one.path) == path)
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - served:
        endpoint = Endpoint(listener, method, template, 405, api=example.api, scope=example.scope)
        assert refused(site, made(site, endpoint)).status in {404, 405}


# --- headers ---------------------------------------------------------------------------------------------------------

BAD_TOKENS: Final = (
    *(b"", b"DPoP", b"Basic aHVudGVyMg==", b"DPoP hunter2", b"DPoP \xff.\xfe.\xff", b"DPoP e30.e30.e30"),
    *(b"DPoP " + b"." * 9000, b"Bearer eyJhbGciOiJub25lIn0.e30."),
)


@pytest.mark.parametrize("endpoint", PROTECTED, ids=str)
def test_a_credential_that_is_none_is_refused(site, endpoint):
    good = made(site, endpoint)
    for value in BAD_TOKENS:
        refused(site, good.with_header(b"Authorization", value), status={401})
        refused(site, good.with_header(b"DPoP", value.removeprefix(b"DPoP ")), status={401})
    token, proof = (
        next(value for name, value in good.headers if name == wanted) for wanted in (b"Authorization", b"DPoP")
    )
    refused(site, good.with_header(b"Authorization"), status={401})
    refused(site, good.with_header(b"DPoP"), status={401})
    refused(site, good.with_header(b"Authorization", token, token), status={401})
    refused(site, good.with_header(b"DPoP", proof, proof), status={401})
    refused(site, good.with_header(b"Authorization", token[:-4] + b"AAAA"), status={401})
    refused(site, good.with_header(b"Authorization", token.replace(b"DPoP", b"Bearer")), status={401})


ATTESTED: Final = [one for one in ENDPOINTS if one.path.startswith("/oauth2/") and one.method == "POST"]


@pytest.mark.parametrize("endpoint", ATTESTED, ids=str)
def test_an_attestation_that_is_none_is_refused(site, endpoint):
    for name in (b"OAuth-Client-Attestation", b"OAuth-Client-Attestation-PoP", b"Authorization", b"DPoP"):
        for value in (*BAD_TOKENS[2:], b"a" * 9000):
            answer = ask(site, made(site, endpoint).with_header(name, value))
            assert answer.status in {200, 400, 401}
            assert answer.status != 200 or (endpoint.good == 200 and len(value) < 8192)
        refused(site, made(site, endpoint).with_header(name, b"hunter2", b"hunter2"), status={400})


INDIFFERENT: Final = {
    b"Accept": (b"\xff;;q=9", b"," * 5000),
    b"Accept-Encoding": (b"identity;q=0",),
    b"Range": (b"bytes=5-1", b"bytes=" + b"0-1," * 1000),
    b"If-None-Match": (b"\xff",),
    b"Cookie": (b"\xff=hunter2; " * 100,),
    b"X-Forwarded-For": (b"hunter2",),
    b"Expect": (b"hunter2",),
}
"""Headers that change what is answered only where they mean something; a bad one is as none (RFC 9110)."""


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.method == "GET"], ids=str)
def test_a_header_that_is_not_read_changes_nothing(site, endpoint):
    for name, values in INDIFFERENT.items():
        for value in values:
            assert ask(site, made(site, endpoint).with_header(name, value)).status == endpoint.good
