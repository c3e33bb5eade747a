"""How many lists of 100 services a second the MEC platform shows over HTTPS.

    python benchmarks/services.py [--json] [--repeats 3] [--seconds 2]

One instance registered 100 services, and asks for all of them; its token names its node, whose standing is checked at
every request. The bearer token is verified once and remembered; with DPoP every request has a proof of its own. The
server has one core, the load another; connections stay open; the server logs warnings only.
"""

import contextlib
import json
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from measuring import Row, at_least, options, publish
from mechost import INSTANCE, Keys, opened
from starlette.types import ASGIApp
from webload import serving

from umec_core.http import create_app

__all__ = ["main"]

REGISTERED = 100
SERVICES = "/mec_service_mgmt/v1/services"
OWN = f"/mec_service_mgmt/v1/applications/{INSTANCE}/services"
BUDGET = 2500


def service(number: int) -> dict[str, Any]:
    """Return a description as the examples of MEC 011 have it."""
    return {
        "serName": f"camera-{number}",
        "serCategory": {"href": "/catalogue/cameras", "id": "cameras", "name": "Cameras", "version": "1"},
        "version": "1.0",
        "state": "ACTIVE",
        "transportInfo": {
            "id": "rest",
            "name": "REST",
            "description": "REST API",
            "type": "REST_HTTP",
            "protocol": "HTTP",
            "version": "2.0",
            "endpoint": {"uris": [f"https://camera-{number}.city.example/api"]},
            "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "https://as/"}},
        },
        "serializer": "JSON",
        "scopeOfLocality": "MEC_HOST",
        "consumedLocalOnly": False,
    }


@contextlib.asynccontextmanager
async def platform(folder: Path, keys: Keys) -> AsyncIterator[ASGIApp]:
    """The platform's Mp1, with nothing beside it: no host is asked."""

    def no_host(_: str) -> Any:  # noqa: ANN401 - never called
        raise NotImplementedError

    async with opened(folder, keys, no_host, "/nowhere") as made:
        yield create_app("mp1", made.mp1_routers)


def request(keys: Keys, token: str, method: str, path: str, *, bound: bool, body: bytes = b"") -> bytes:
    """Return a whole HTTP request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{keys.authorization(method, path, token, bound=bound)}"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def measure(seconds: float, repeats: int) -> list[Row]:
    """Measure over HTTPS."""
    keys, rows = Keys(), []
    bearer, proven = keys.token(bound=False), keys.token(bound=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(lambda _: platform(Path(folder), keys), tls=Path(folder) / "tls") as server,
    ):
        registering = [json.dumps(service(number)).encode() for number in range(REGISTERED)]
        server.send(
            [request(keys, bearer, "POST", OWN, bound=False, body=body) for body in registering],
            holds=b"serInstanceId",
            status=201,
        )
        listed = server.ask(request(keys, bearer, "GET", SERVICES, bound=False))
        assert len(json.loads(listed)) == REGISTERED  # noqa: S101 - else the figures mean nothing
        rows.append(Row("the list of 100 services", len(listed) / 1024, "KB"))
        for name, token, bound in (("token remembered", bearer, False), ("token remembered, DPoP", proven, True)):

            def make(count: int, token: str = token, bound: bool = bound) -> list[bytes]:  # noqa: FBT001
                return [request(keys, token, "GET", SERVICES, bound=bound) for _ in range(count)]

            rates, of_cpu = server.rates(make, holds=b"serInstanceId", seconds=seconds, repeats=repeats)
            rows.append(at_least(f"GET services, {name}", statistics.median(rates), "/s", BUDGET))
            rows.append(Row(f"GET services, {name}, for a CPU second of the server", of_cpu, "/s"))
        rows.append(Row("peak memory of the platform", server.peak_mb(), "MB"))
    return rows


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, repeats=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a series takes")
    given = parser.parse_args()
    publish(measure(given.seconds, given.repeats), as_json=given.json)


if __name__ == "__main__":
    main()
