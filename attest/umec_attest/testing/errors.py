"""Errors of the harness.

HarnessError
├── HarnessFailed        harness-failed          a program of the harness did not do its part
└── ImageInvalid         node-image-invalid      a node image folder misses a part, or a part has not its form
"""

from umec_core.errors import Invalid, Kind, UmecError

__all__ = ["HarnessError", "HarnessFailed", "ImageInvalid"]


class HarnessError(UmecError):
    """The root of this package's errors."""

    code = "harness-error"


class HarnessFailed(HarnessError):
    """A program of the harness did not do its part."""

    code = "harness-failed"
    kind = Kind.UNAVAILABLE


class ImageInvalid(HarnessError, Invalid):
    """A node image folder misses a part, or a part has not its form."""

    code = "node-image-invalid"
    kind = Kind.INVALID
