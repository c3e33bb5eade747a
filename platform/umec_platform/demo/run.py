"""One run: its folder, its processes, its timeline, and what it has made so far."""

import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from umec_platform.demo.command import Processes, umec
from umec_platform.demo.timeline import Timeline
from umec_platform.demo.topology import SITE_ADDRESS

__all__ = ["MANAGEMENT", "MP1", "REGISTRY", "Run", "code_of"]

MANAGEMENT: Final = f"https://{SITE_ADDRESS}:8443"
MP1: Final = f"https://{SITE_ADDRESS}:8444"
REGISTRY: Final = f"https://{SITE_ADDRESS}:5443"
REFUSAL_HEADER: Final = "Umec-Refusal"
"""Where the registry says our code: the errors of its own API have none."""


@dataclass(slots=True)
class Run:
    """What the steps share."""

    folder: Path
    timeline: Timeline
    sabotage: int | None
    processes: Processes
    clean_up: contextlib.ExitStack
    only: str | None = None
    """The one attack that is to be shown; None for all."""
    shown: bool = False
    """Whether that attack was carried out: nothing more is to be done."""
    tcti: dict[str, str] = field(default_factory=dict)
    """How to reach the TPM of each node."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What one step found and a later one needs."""

    @property
    def state(self) -> Path:
        """The site's state folder."""
        return self.folder / "site"

    @property
    def credential(self) -> str:
        """The operator's credential file."""
        return str(self.state / "operator.json")

    @property
    def ca(self) -> str:
        """The server CA that every client pins."""
        return str(self.state / "server-ca.pem")

    @property
    def whole(self) -> bool:
        """Whether this run shows everything."""
        return self.only is None and self.sabotage is None

    def sabotaged(self, link: int) -> bool:
        """Tell whether this run breaks that link on purpose."""
        return self.sabotage == link

    def operator(self, *arguments: str) -> dict[str, Any]:
        """Run a command with the operator's credential."""
        return umec(*arguments, "--credential", self.credential)

    def http(self) -> httpx.Client:
        """Return an HTTP client that pins the server CA and has no credential."""
        return httpx.Client(verify=ssl.create_default_context(cafile=self.ca), timeout=10.0, trust_env=False)


def code_of(answer: httpx.Response) -> str | None:
    """Return the stable code of a refusal, or None for an answer that is none."""
    if answer.is_success:
        return None
    if REFUSAL_HEADER in answer.headers:
        return answer.headers[REFUSAL_HEADER]
    try:
        said = answer.json()
    except ValueError:
        return f"http-{answer.status_code}"
    return str(said.get("code") or said.get("error") or f"http-{answer.status_code}")
