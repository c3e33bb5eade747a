# ruff: noqa: INP001 - one script, no package
"""A MEC application, of standards and off-the-shelf clients only.

It learns who it is from /run/umec/client.json, gets DPoP-bound tokens (RFC 9449) with private_key_jwt (RFC 7523), says
that it is ready, registers a service (MEC 011), switches on the traffic rule and the DNS rule of its descriptor, and
answers on port 8080 of its own address.
"""

import json
import logging
import os
import socket
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import requests
from jwskate import Jwk
from requests_oauth2client import OAuth2Client, OAuth2ClientCredentialsAuth, PrivateKeyJwt

CREDENTIAL = Path(os.environ.get("HELLO_CREDENTIAL", "/run/umec/client.json"))
PORT = int(os.environ.get("HELLO_PORT", "8080"))
log = logging.getLogger("hello")
TIMEOUT = 10
TRIES = 5


def connect(me: dict) -> requests.Session:
    """Return a session that asks for a token when it needs one, and trusts the platform's CA only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as ca:
        ca.write(me["ca"])
    session = requests.Session()
    session.verify, session.trust_env = ca.name, False
    key = Jwk(me["private_jwk"]).with_kid_thumbprint()
    client = OAuth2Client(
        token_endpoint=me["token_endpoint"],
        auth=PrivateKeyJwt(me["client_id"], key, alg="ES256", aud=me["issuer"]),
        dpop_bound_access_tokens=True,
        session=session,
    )
    api = requests.Session()
    api.verify, api.trust_env = ca.name, False
    api.auth = OAuth2ClientCredentialsAuth(client, resource=f"{me['mp1']}/")
    return api


def call(api: requests.Session, method: str, url: str, body: dict | None = None) -> requests.Response:
    """Call Mp1 and return its answer, or stop with what it says. Whoever is not there now is asked a few times."""
    for _ in range(TRIES):
        answer = api.request(method, url, json=body, timeout=TIMEOUT)
        if answer.status_code != requests.codes.unavailable:
            break
        time.sleep(int(answer.headers.get("Retry-After", 1)))
    if not answer.ok:
        raise SystemExit(f"{method} {url}: {answer.status_code} {answer.text}")
    return answer


def own_address(mp1: str) -> str:
    """Return the address from which this application reaches its platform."""
    platform = urlsplit(mp1)
    with socket.create_connection((platform.hostname, platform.port), timeout=TIMEOUT) as connection:
        return connection.getsockname()[0]


def announce(api: requests.Session, me: dict, address: str) -> None:
    """Say that we are ready, register the service, and switch on our rules."""
    support = f"{me['mp1']}/mec_app_support/v1/applications/{me['client_id']}"
    services = f"{me['mp1']}/mec_service_mgmt/v1/applications/{me['client_id']}/services"
    call(api, "POST", f"{support}/confirm_ready", {"indication": "READY"})
    transport = {"id": "rest", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "1.1"}
    transport |= {"endpoint": {"uris": [f"http://{address}:{PORT}/"]}, "security": {}}
    service = {"serName": "hello", "version": "1.0", "state": "ACTIVE", "serializer": "JSON"}
    call(api, "POST", services, {**service, "transportInfo": transport})
    for kind in ("traffic_rules", "dns_rules"):
        for rule in call(api, "GET", f"{support}/{kind}").json():
            name = rule.get("trafficRuleId") or rule["dnsRuleId"]
            call(api, "PUT", f"{support}/{kind}/{name}", {**rule, "state": "ACTIVE"})


class Hello(BaseHTTPRequestHandler):
    """Answers every GET with a greeting."""

    def do_GET(self) -> None:
        """Greet, and say who answers to whom."""
        greeting = {"hello": self.client_address[0], "from": self.server.instance, "path": self.path[:256]}
        body = json.dumps(greeting).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Listen first, so that whoever follows our rules finds us; then announce."""
    logging.basicConfig(level=logging.INFO)
    me = json.loads(CREDENTIAL.read_text())
    address = own_address(me["mp1"])
    with ThreadingHTTPServer((address, PORT), Hello) as server:
        server.instance = me["client_id"]
        announce(connect(me), me, address)
        log.info("answering on http://%s:%d/", address, PORT)
        server.serve_forever()


if __name__ == "__main__":
    main()
