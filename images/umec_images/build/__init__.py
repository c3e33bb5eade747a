"""Images from what is installed here: Debian packages, Python distributions and folders, one deterministic layer each.

The same inputs give the same digest; nothing is downloaded, nothing is run.
"""

from umec_images.build.image import BuildReport, build_image
from umec_images.build.spec import ImageSpec, load_spec

__all__ = ["BuildReport", "ImageSpec", "build_image", "load_spec"]
