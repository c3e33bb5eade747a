"""What operators deny: digests, and versions below a repository's minimum. No policy permits it anyway."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from umec_images.errors import ImageDenied, ImageRollback
from umec_images.oci.version import Version

__all__ = ["DenyList"]


@dataclass(frozen=True, slots=True)
class DenyList:
    """Digests that nobody may run, and the lowest version of repositories. `version` only ever grows."""

    version: int = 0
    digests: frozenset[str] = frozenset()
    minimums: Mapping[str, Version] = field(default_factory=dict)
    """By repository; one that is not named may run any version, and what has none."""

    def denies(self, digest: str) -> bool:
        """Say whether a digest is denied."""
        return digest in self.digests

    def rolled_back(self, repository: str, version: Version | None) -> bool:
        """Say whether a version (None: the image states none) is below the minimum of its repository."""
        minimum = self.minimums.get(repository)
        return minimum is not None and (version is None or version < minimum)

    def require(self, repository: str, digest: str, version: Version | None, policies: tuple[str, ...] = ()) -> None:
        """Return unless an image is denied; raises ImageDenied or ImageRollback, naming the policies that agree."""
        if self.denies(digest):
            raise ImageDenied(f"{digest} is on the deny list", policies=policies)
        if self.rolled_back(repository, version):
            found = "states no semantic version" if version is None else f"has the version {version}"
            raise ImageRollback(
                f"{digest} {found}, and the minimum of {repository} is {self.minimums[repository]}",
                policies=policies,
                advice="Start a later version; `umec image minimum` shows who raised the minimum, and lowers it.",
            )
