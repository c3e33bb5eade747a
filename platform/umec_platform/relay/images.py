"""Images of applications on a node: fetched from the site's registry with the node's own token, kept in a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from umec_images.oci.client import Authorize, RegistryClient
from umec_platform.instances.images import RegistryPuller
from umec_platform.relay.doors import AgentSocket, site_client

__all__ = ["fetch_image"]

SCOPE: Final = "images:pull"


async def fetch_image(
    agent: AgentSocket, registry: str, folder: Path, *, repository: str, digest: str, most: int
) -> Path:
    """Return the folder with the files of an image, each checked by its digest; older ones go beyond `most` octets.

    Raises what the registry refuses. netd hashes all of it once more, as a copy of its own.
    """
    async with site_client(agent) as http:
        puller = RegistryPuller(RegistryClient(registry, http, _bearer(agent, registry)), folder, max_folder=most)
        await puller.keep({digest})
        return await puller.pull(repository, digest)


def _bearer(agent: AgentSocket, registry: str) -> Authorize:
    async def authorize(_method: str, _url: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await agent.token(f'{registry}/', SCOPE)}"}

    return authorize
