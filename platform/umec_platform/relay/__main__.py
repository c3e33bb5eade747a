"""`python -m umec_platform.relay`: what `umec host relay` is, without the command line's libraries in its memory."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from umec_core.telemetry import configure_logging
from umec_platform.relay.carrier import Relay, relay_until_told
from umec_platform.relay.doors import AgentSocket

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Relay until SIGTERM, and return the exit status 0."""
    parser = argparse.ArgumentParser(prog="umec-relay", description=__doc__)
    parser.add_argument("--site", required=True, help="URL of the management listener")
    parser.add_argument("--agent", type=Path, required=True, help="state directory of the running agent")
    parser.add_argument("--netd", type=Path, required=True, help="unix socket of netd")
    parser.add_argument("--images", type=Path, required=True, help="folder for images, that netd's user may read")
    parser.add_argument("--images-mebibytes", type=int, default=4096)
    given = parser.parse_args(arguments)
    configure_logging(json=True)
    relay = Relay(
        AgentSocket(given.agent),
        site=given.site,
        netd=given.netd,
        images=given.images,
        images_mebibytes=given.images_mebibytes,
    )
    sys.stdout.write(json.dumps({"event": "relay", "site": given.site}) + "\n")
    sys.stdout.flush()
    asyncio.run(relay_until_told(relay))
    return 0


if __name__ == "__main__":
    sys.exit(main())
