"""The kernel of an image: whether it measures from its first moment on, and which modules it needs in which order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.nodeimage.errors import KernelUnmeasured, ModuleMissing
from umec_images.nodeimage.tree import check_plain

__all__ = ["BUILT_IN", "LEFT_OUT", "Kernel", "check_configuration", "find_kernel", "module_order"]

BUILT_IN: Final = ("CONFIG_EFI_STUB", "CONFIG_IMA", "CONFIG_TCG_TPM", "CONFIG_TCG_TIS", "CONFIG_TCG_CRB")
"""A TPM that is found late leaves PCR 10 empty: IMA looks once, before any module can be loaded."""

LEFT_OUT: Final = ("CONFIG_IMA_WRITE_POLICY", "CONFIG_IMA_READ_POLICY")
"""The door for policies of IMA would stay when the first program has loaded the one that counts."""

_DEPENDS: Final = re.compile(rb"\0depends=([A-Za-z0-9_,-]*)\0")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel package's files; `modules` maps a module's name to its path below /usr/lib/modules/RELEASE."""

    release: str
    image: Path
    configuration: Path
    folder: Path
    modules: Mapping[str, str]
    built_in: frozenset[str]


def find_kernel(root: Path) -> Kernel:
    """Find the one kernel that was unpacked into a tree. Raises ModuleMissing, ContentRefused."""
    check_plain(root, "boot")
    images = sorted((root / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise ModuleMissing(f"the packages bring {len(images)} kernels, and an image has one")
    release = images[0].name.removeprefix("vmlinuz-")
    check_plain(root, f"usr/lib/modules/{release}")
    folder = root / "usr/lib/modules" / release
    modules = {_name(path.name): path.relative_to(folder).as_posix() for path in folder.rglob("*.ko")}
    listed = folder / "modules.builtin"
    built_in = frozenset(_name(Path(line).name) for line in listed.read_text().splitlines() if line)
    return Kernel(release, images[0], root / f"boot/config-{release}", folder, modules, built_in)


def check_configuration(text: str) -> None:
    """Refuse a kernel (by its `/boot/config-*`) that could not measure what it starts. Raises KernelUnmeasured."""
    lines = set(text.splitlines())
    missing = [option for option in BUILT_IN if f"{option}=y" not in lines]
    if missing:
        said = ", ".join(f"{option} is {_said(option, lines)}" for option in missing)
        raise KernelUnmeasured(
            f"{said}, and has to be built in", advice="take a kernel like that of linux-image-cloud-amd64"
        )
    if open_doors := [option for option in LEFT_OUT if f"{option}=y" in lines]:
        raise KernelUnmeasured(
            f"{', '.join(open_doors)}: what is measured could be changed later",
            advice="take a kernel like that of linux-image-cloud-amd64",
        )


def module_order(wanted: Iterable[str], kernel: Kernel) -> list[str]:
    """Return the paths of modules and of what they depend on, in the order in which they load. Raises ModuleMissing."""
    order: list[str] = []
    for name in wanted:
        _visit(_name(name), kernel, order, ())
    return order


def _visit(name: str, kernel: Kernel, order: list[str], above: Sequence[str]) -> None:
    if name in kernel.built_in:
        return
    path = kernel.modules.get(name)
    if path is None:
        raise ModuleMissing(f"the kernel {kernel.release} has no module {name}")
    if path in order or name in above:
        return
    found = _DEPENDS.search((kernel.folder / path).read_bytes())
    for each in (found.group(1).decode() if found else "").split(","):
        if each:
            _visit(_name(each), kernel, order, (*above, name))
    order.append(path)


def _name(text: str) -> str:
    return text.removesuffix(".ko").replace("-", "_")


def _said(option: str, lines: Iterable[str]) -> str:
    values = [line.partition("=")[2] for line in lines if line.startswith(f"{option}=")]
    return {"m": "a module"}.get(values[0], values[0]) if values else "not set"
