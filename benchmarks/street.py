"""A street of real processes, built by parts of the demo: a site, and nodes with an application each."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from umec_platform.demo import applications, chain, images, nodes
from umec_platform.demo.command import Processes
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Timeline
from umec_platform.demo.topology import NODES, build_street

__all__ = ["Effects", "attest_nodes", "deploy", "running"]


@dataclass(slots=True)
class Effects(Timeline):
    """A timeline that prints nothing, and keeps how long each effect took to arrive, in milliseconds."""

    arrived: list[tuple[str, float]] = field(default_factory=list)

    def effect(self, name: str, *, ok: bool, ms: float | None, detail: str = "") -> None:
        """Keep an effect; one that did not arrive raises RuntimeError."""
        if not ok:
            raise RuntimeError(f"{name}: {detail}")
        if ms is not None:
            self.arrived.append((name, ms))

    def _line(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Run]:
    """Start the site; everything that was started ends with the block."""
    (folder / "logs").mkdir()
    processes = Processes(folder / "logs")
    with contextlib.ExitStack() as clean_up:
        clean_up.callback(processes.stop_all)
        run = Run(folder, Effects(as_json=True), None, processes, clean_up)
        build_street()
        for node in NODES:
            run.facts[node.name] = nodes.start_tpm(run, node.name)
        chain.start_site(run)
        yield run


def attest_nodes(run: Run, count: int) -> None:
    """Boot, enrol and attest nodes, and leave their agents running."""
    nodes.publish_reference_set(run)
    for node in NODES[:count]:
        nodes.boot(run, node)
        nodes.enrol(run, node, run.facts[node.name]["ek_chain"])
        nodes.attest(run, node)
        nodes.get_credentials(run, node)


def deploy(run: Run) -> list[applications.Running]:
    """Build the example's image, admit it, and run it on every node."""
    images.register_builders(run)
    digest = images.build_example(run)
    for node in NODES:
        images.publish(run, node, digest)
        applications.add_tenant(run, node)
    return [applications.deploy(run, node, digest) for node in NODES]
