"""Why a node image is not pushed, or not taken from a registry.

    UmecError
    ├── ArtifactInvalid   node-image-artifact-invalid   the manifest in the registry is none of a node image
    ├── PapersInvalid     node-image-manifest-invalid   manifest.json is none
    └── FilesDiffer       node-image-files-differ       files are not those that manifest.json names

What a registry sends instead of what was asked for has the codes of `umec_images.oci.errors`.
"""

from umec_core.errors import Invalid, Refused

__all__ = ["ArtifactInvalid", "FilesDiffer", "PapersInvalid"]


class ArtifactInvalid(Invalid):
    """The manifest in the registry is none of a node image."""

    code = "node-image-artifact-invalid"


class PapersInvalid(Invalid):
    """The manifest.json of a node image is missing or malformed."""

    code = "node-image-manifest-invalid"


class FilesDiffer(Refused):
    """Files of a node image are not those that its manifest.json names."""

    code = "node-image-files-differ"
