"""Inside namespaces of its own: a node takes the next image by itself, and goes back to none. One JSON line a step."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from umec_images.machine import Machine, install, open_folder
from umec_platform.demo.chain import start_site
from umec_platform.demo.command import umec
from umec_platform.demo.run import REGISTRY, Run, carry_out
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import SITE_ADDRESS
from umec_platform.demo.vm.image import build, publish
from umec_platform.demo.vm.machine import NODE, buy_tpm

SECONDS = 900.0
"""For each of the waits: a boot takes a minute alone, and several where others work."""
ROUND_SECONDS = 15


def show(run: Run, lock: Path) -> None:
    for arguments in ("link add site type bridge", "link set site up", f"address add {SITE_ADDRESS}/24 dev site"):
        subprocess.run(["ip", *arguments.split()], check=True)
    ek = buy_tpm(run)
    start_site(run, (), ROUND_SECONDS)
    builder = run.folder / "city-builder.json"
    options = ["--kind", "builder", "--tenant", "city", "--scope", "images:push", "--scope", "images:pull"]
    run.operator("client", "add", "city-builder", *options, "--out", str(builder))
    images = {version: build(run, lock, version) for version in (1, 2)}
    names = {version: promoted(run, folder, version, builder) for version, folder in images.items()}
    publish(run, images[1], 1)
    ticket = run.folder / "ticket"
    made = run.operator("node", "ticket", NODE, "--tenant", "city", "--image", "minimal", "--ek-sha256", ek)
    ticket.write_text(str(made["ticket"]))
    image, node = open_folder(images[1]), run.folder / "node"
    install(image, node)

    with switched_on(node, image.firmware, ticket) as until:
        until("trusted with version 1", lambda: standing(run) == "trusted")
        publish_beside(run, images[2])
        run.operator("node", "image", NODE, names[2])
        until("the restart", None)
    tell("restarted")
    with switched_on(node, image.firmware, None) as until:
        until("confirmed", lambda: (reported(run).get("confirmed"), standing(run)) == (2, "trusted"))
        tell("confirmed", report=reported(run))
        run.operator("node", "image", NODE, names[1])
        until("the refusal", lambda: reported(run).get("code") is not None)
        tell("refused", report=reported(run))


def publish_beside(run: Run, folder: Path) -> None:
    """Let version 2 hold beside version 1: the node runs the one until it runs the other."""
    statement = str(run.folder / "reference-2.dsse")
    options = ["--name", "minimal", "--version", "2", "--grace", "1d", "--out", statement]
    options += ["--key", str(run.folder / "reference-signer.key"), "--root", str(folder / "root.img")]
    umec("nodeimage", "predict", str(folder), *options)
    run.operator("nodeimage", "publish", statement)


def promoted(run: Run, folder: Path, version: int, builder: Path) -> str:
    """Push a node image, sign it, promote it to production; returns its exact name."""
    name, own = f"{REGISTRY.removeprefix('https://')}/city/minimal", ("--credential", str(builder))
    digest = umec("nodeimage", "push", str(folder), f"{name}:{version}", *own, seconds=SECONDS)["digest"]
    umec("image", "sign", f"{name}@{digest}", *own)
    for stage in ("staging", "production"):
        run.operator("image", "promote", f"{name}@{digest}", "--stage", stage)
    return f"{name}@{digest}"


@contextlib.contextmanager
def switched_on(
    node: Path, firmware: Path, ticket: Path | None
) -> Iterator[Callable[[str, Callable[[], bool] | None], None]]:
    """Give what waits until something holds, looked at after each round, or (None) until the machine ends."""
    handed = [] if ticket is None else [("ticket", ticket)]
    with Machine(node, firmware, network=True, handed_in=handed) as machine:
        lines = machine.lines(seconds=3 * SECONDS)

        def until(what: str, holds: Callable[[], bool] | None) -> None:
            for line in lines:
                if "umec-node: " in line.text or "BdsDxe" in line.text:
                    tell("console", text=line.text[:300])
                if '"event": "round"' in line.text and holds is not None and holds():
                    return
            if holds is not None:
                raise Broken(f"{what}: the machine ended before")

        yield until
        machine.cut()


def standing(run: Run) -> str:
    return str(run.operator("node", "show", NODE)["standing"]) if known(run) else ""


def known(run: Run) -> bool:
    return bool(run.operator("node", "list")["nodes"])


def reported(run: Run) -> dict[str, Any]:
    return next(iter(run.operator("node", "image", NODE)["nodes"]), {})


def tell(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    folder = prepare()
    sys.exit(carry_out(folder, Timeline(as_json=True, kinds={}), lambda run: show(run, Path(sys.argv[1]))))
