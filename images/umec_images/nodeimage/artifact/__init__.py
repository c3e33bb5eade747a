"""A node image in a registry: an OCI 1.1 artifact whose layers are the files of the folder that was built.

errors      why it is not pushed, or not taken
contents    manifest.json and the artifact's manifest, each read and held against the other
transfer    push and fetch, file by file
references  the reference sets that are attached to it
"""

from umec_images.nodeimage.artifact.contents import ARTIFACT, NodeImage
from umec_images.nodeimage.artifact.references import REFERENCE_SET, fetch_references
from umec_images.nodeimage.artifact.transfer import Heard, Pushed, fetch_image, push_image

__all__ = [
    "ARTIFACT",
    "REFERENCE_SET",
    "Heard",
    "NodeImage",
    "Pushed",
    "fetch_image",
    "fetch_references",
    "push_image",
]
