"""Why a node image is not pushed, or not taken from a registry.

    UmecError
    ├── ArtifactInvalid   node-image-artifact-invalid   the manifest in the registry is none of a node image
    ├── PapersInvalid     node-image-manifest-invalid   manifest.json is none
    └── FilesDiffer       node-image-files-differ       files are not those that manifest.json names

What a registry sends instead of what was asked for has the codes of `umec_images.oci.errors`.
"""

from umec_core.errors import Invalid, Refused
from umec_images.nodeimage.errors import PapersInvalid

__all__ = ["ArtifactInvalid", "FilesDiffer", "PapersInvalid"]


class ArtifactInvalid(Invalid):
    """The manifest in the registry is none of a node image."""

    code = "node-image-artifact-invalid"


class FilesDiffer(Refused):
    """Files of a node image are not those that its manifest.json names."""

    code = "node-image-files-differ"
