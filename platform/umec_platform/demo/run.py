"""One run: its folder, its processes, its timeline, and what it has made so far."""

import contextlib
import ssl
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from umec_platform.demo.command import Processes, umec
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import SITE_ADDRESS

__all__ = ["MANAGEMENT", "MP1", "REGISTRY", "Run", "begun", "carry_out", "code_of"]

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


@contextlib.contextmanager
def begun(folder: Path, timeline: Timeline, *, sabotage: int | None = None, only: str | None = None) -> Iterator[Run]:
    """Begin a run in a folder that is ready; all that it started ends with the block."""
    logs = folder / "logs"
    logs.mkdir()
    with contextlib.ExitStack() as clean_up:
        processes = Processes(logs)
        clean_up.callback(processes.stop_all)
        yield Run(folder, timeline, sabotage, processes, clean_up, only)


def carry_out(
    folder: Path,
    timeline: Timeline,
    show: Callable[[Run], None],
    *,
    sabotage: int | None = None,
    only: str | None = None,
) -> int:
    """Have `show` show a run in a folder that is ready, end all that it started, and return the exit status."""
    with begun(folder, timeline, sabotage=sabotage, only=only) as run:
        try:
            show(run)
        except Broken as broken:
            if not timeline.broken:
                timeline.broken.append(f"{broken.code or 'failed'}: {broken.detail}")
        except Exception as error:  # noqa: BLE001 - a run that stumbles has not shown the chain
            (folder / "logs" / "demo.log").write_text(traceback.format_exc())
            timeline.broken.append(f"the run itself failed: {type(error).__name__}: {error}")
    return timeline.finish()


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
