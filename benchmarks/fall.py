"""How long it takes from a verdict that a node has fallen to each of its effects, on real parts.

    python benchmarks/fall.py [--json] [--repeats 3]

A street in namespaces of its own: a site, two nodes with an application each, a camera beside each node. One node boots
with another kernel command line; the moments are those of its agent's verdict and of the first call, packet and name
that fail. Looks are 20 ms apart, so a figure of less says only that it was at once. Then the node boots the good image
again, which is timed too, and falls again.
"""

import os
from collections import defaultdict
from pathlib import Path
from statistics import median

from measuring import Row, at_most, options, publish
from sandbox import enter
from street import Effects, attest_nodes, deploy, running

from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.fall import fall, recover
from umec_platform.demo.topology import NODES

__all__ = ["main"]


def measure(folder: Path, repeats: int) -> list[Row]:
    """Let a node fall and come back several times."""
    spent: defaultdict[str, list[float]] = defaultdict(list)
    last, back = [], []
    with running(folder) as run:
        timeline = run.timeline
        assert isinstance(timeline, Effects)  # noqa: S101 - `running` made it
        attest_nodes(run, len(NODES))
        falling, standing = deploy(run)
        holders = Holders(run, falling.instance)
        for _ in range(repeats):
            timeline.arrived.clear()
            os.truncate(run.processes.log(f"agent-{falling.node.name}"), 0)  # a verdict is found by its line there
            fall(run, falling, standing, holders)
            last.append(max(ms for _, ms in timeline.arrived))
            for name, ms in timeline.arrived:
                spent[name].append(ms)
            timeline.arrived.clear()
            recover(run, falling)
            back.append(timeline.arrived[0][1])
    return [
        *(Row(f"verdict until {name}", median(values), "ms") for name, values in spent.items()),
        at_most("verdict until its last effect", median(last), "ms", 2000),
        at_most("verdict until its last effect, slowest of all", max(last), "ms", 2000),
        Row("good image booted until packets and name are back", median(back), "ms"),
    ]


def main() -> None:
    """Measure and print."""
    given = options(__doc__, repeats=3).parse_args()
    folder = enter()
    publish(measure(folder, given.repeats), as_json=given.json)


if __name__ == "__main__":
    main()
