"""Images of applications on a node: fetched from the site's registry with the node's own token, kept in a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from umec_images.oci.client import Authorize, RegistryClient
from umec_platform.instances.images import RegistryPuller
from umec_platform.relay.doors import AgentSocket, site_client

__all__ = ["ImageFolder"]

SCOPE: Final = "images:pull"


class ImageFolder:
    """The images of one node. Of several who want the same file at once, one fetches it.

    A connection serves one request: one that is kept may show a certificate that has a successor.
    """

    def __init__(self, agent: AgentSocket, folder: Path, *, most: int) -> None:
        """`most` is how many octets of images stay, beside those that are wanted or were just used."""
        self._agent = agent
        self._folder = folder
        self._most = most
        self._http = site_client(agent, kept=0)
        self._pullers: dict[str, RegistryPuller] = {}

    async def fetch(self, registry: str, repository: str, digest: str) -> Path:
        """Return the folder with the files of an image, each checked by its digest; older ones go for want of room.

        Raises what the registry refuses. netd hashes all of it once more, as a copy of its own.
        """
        if registry not in self._pullers:
            client = RegistryClient(registry, self._http, _bearer(self._agent, registry))
            self._pullers = {registry: RegistryPuller(client, self._folder, max_folder=self._most)}
        puller = self._pullers[registry]
        await puller.keep({digest})
        return await puller.pull(repository, digest)

    async def close(self) -> None:
        """Close all connections; nothing can be fetched after that."""
        await self._http.aclose()


def _bearer(agent: AgentSocket, registry: str) -> Authorize:
    async def authorize(_method: str, _url: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await agent.token(f'{registry}/', SCOPE)}"}

    return authorize
