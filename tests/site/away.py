"""Two nodes with an application each, from whom something is taken away; run inside namespaces (`test_away.py`).

    away.py [--stories NAME,NAME] [--seconds 12] [--round-seconds 2]

Prints the lines of the demo's chapter "It comes back by itself". With `--seconds 300 --round-seconds 30` the site is
away for as long as nobody wants to wait in a demo, with the rounds and the leases of a real site.
"""

import argparse
import sys
import traceback

from umec_platform.demo import applications, chain, images, nodes, recovery, recovery_site
from umec_platform.demo.alarms import Alarms
from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.recovery import Scene
from umec_platform.demo.run import Run, begun
from umec_platform.demo.sandbox import prepare
from umec_platform.demo.timeline import Broken, Timeline
from umec_platform.demo.topology import NODES, build_street


def build(run: Run, round_seconds: int) -> Scene:
    """Everything up to packets that flow at both nodes."""
    build_street()
    tpms = {node.name: nodes.start_tpm(run, node.name) for node in NODES}
    chain.ROUND_SECONDS = round_seconds
    chain.start_site(run)
    nodes.publish_reference_set(run)
    for node in NODES:
        nodes.boot(run, node)
        nodes.enrol(run, node, tpms[node.name]["ek_chain"])
        nodes.attest(run, node)
        nodes.get_credentials(run, node)
    images.register_builders(run)
    digest = images.build_example(run)
    for node in NODES:
        images.publish(run, node, digest)
        applications.add_tenant(run, node)
    here, there = (applications.deploy(run, node, digest) for node in NODES)
    return Scene(run, here, there, Holders(run, here.instance), Alarms(run), round_seconds)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--stories", default="quarantine,power,stopped,feed,killed")
    options.add_argument("--seconds", type=float, default=recovery_site.AWAY_SECONDS)
    options.add_argument("--round-seconds", type=int, default=2)
    chosen = options.parse_args()
    tell = {
        "quarantine": recovery.quarantine,
        "power": recovery.power_cut,
        "stopped": lambda scene: recovery_site.site_stopped(scene, chosen.seconds),
        "feed": recovery_site.feed_cut,
        "killed": lambda scene: recovery_site.site_killed(scene, chosen.seconds),
    }
    timeline = Timeline(as_json=True)
    with begun(prepare(), timeline) as run:
        try:
            scene = build(run, chosen.round_seconds)
            for story in chosen.stories.split(","):
                tell[story](scene)
        except Broken as broken:
            timeline.broken.append(f"{broken.code}: {broken.detail}")
        except Exception:  # noqa: BLE001 - the test shows it
            timeline.broken.append(traceback.format_exc())
    sys.exit(timeline.finish())


if __name__ == "__main__":
    main()
