"""`image.toml`: what goes into an image and how it starts.

    version = "1.4.0"                      its semantic version, which promotion and admission keep from going back
    packages = ["python3"]                 Debian packages, with what they depend on
    distributions = ["httpx"]              Python distributions of this environment, with what they require
    entrypoint = ["/usr/bin/python3", "-m", "app"]
    [[folders]]                            folders beside the description
    source = "src"
    target = "/app"

Also `cmd`, `env`, `user`, `workdir`, `labels`, `exclude` (packages that are left out, with what only they need).
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from umec_images.build.errors import SpecInvalid
from umec_images.oci.errors import VersionInvalid
from umec_images.oci.version import parse_version

__all__ = ["Folder", "ImageSpec", "load_spec"]

FILE: Final = "image.toml"
MAX_SPEC: Final = 64 * 1024
"""Bytes; a description has some dozens of lines."""
NOBODY: Final = "65534:65534"
"""Images run as nobody unless they say otherwise."""


def _semantic(text: str) -> str:
    try:
        return parse_version(text).text
    except VersionInvalid as error:
        raise ValueError(error.detail) from error


_Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]{1,100}$")]
_Distribution = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$")]
_Absolute = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/+@-]*$")]


class Folder(BaseModel):
    """A folder that becomes a layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    """Relative to the description."""
    target: _Absolute


class ImageSpec(BaseModel):
    """A whole description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[str, AfterValidator(_semantic)] | None = None
    packages: list[_Package] = []
    exclude: list[_Package] = []
    distributions: list[_Distribution] = []
    folders: list[Folder] = []
    entrypoint: list[str] = Field(min_length=1)
    cmd: list[str] = []
    env: dict[str, str] = {}
    user: str = NOBODY
    workdir: _Absolute = "/"
    labels: dict[str, str] = {}


def load_spec(path: Path) -> tuple[ImageSpec, Path]:
    """Read a description, or the `image.toml` of a folder; return it with the folder that its paths start from.

    Raises SpecInvalid, naming all faults.
    """
    file = path / FILE if path.is_dir() else path
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SpecInvalid(f"{file} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_SPEC:
        raise SpecInvalid(f"{file} has more than {MAX_SPEC} bytes")
    try:
        return ImageSpec.model_validate(tomllib.loads(raw.decode())), file.parent
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise SpecInvalid(f"{file}: {_faults(error)}") from error


def _faults(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
