"""Lists of runtime measurements as Linux writes them, from a recipe of files, with what they extend into PCR 10.

It is the source of evidence: it shares no code with the parsing and the judging of lists.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from tpm2_pytss import ESAPI
from tpm2_pytss.types import TPML_PCR_SELECTION

from umec_attest.testing.firmware import extend
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = ["RuntimeList", "measured", "raw_entry", "run", "start", "template_data"]

IMA_PCR: Final = 10
VIOLATION: Final = bytes(20)
AGGREGATED: Final = range(10)


def template_data(*fields: bytes) -> bytes:
    """Return the data of a template with self-describing fields."""
    return b"".join(struct.pack("<I", len(part)) + part for part in fields)


def raw_entry(
    data: bytes, template: str = "ima-ng", *, template_hash: bytes | None = None, pcr: int = IMA_PCR
) -> bytes:
    """Return an entry in binary form, under its SHA-1 where no other hash is given."""
    recorded = hashlib.sha1(data, usedforsecurity=False).digest() if template_hash is None else template_hash
    name = template.encode()
    return struct.pack("<I20sI", pcr, recorded, len(name)) + name + struct.pack("<I", len(data)) + data


def measured(path: bytes | str, digest: bytes, *more: bytes, template: str = "ima-ng", label: str = "sha256") -> bytes:
    """Return the entry of a file: its digest, its path, and the fields that the template has beyond these."""
    name = path.encode() if isinstance(path, str) else path
    return raw_entry(template_data(label.encode() + b":\0" + digest, name + b"\0", *more), template)


@dataclass
class RuntimeList:
    """A growing list; `add` takes entries, and what they extend into a PCR of SHA-256 is in `extends`."""

    entries: list[bytes] = field(default_factory=list)
    extends: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, pcrs: Mapping[int, bytes], files: Iterable[tuple[str, bytes]]) -> Self:
        """Return the list of a boot that gave these PCRs (0 to 9), after which these files were measured."""
        made = cls()
        made.add(measured(b"boot_aggregate", hashlib.sha256(b"".join(pcrs[pcr] for pcr in AGGREGATED)).digest()))
        for path, content in files:
            made.add(measured(path, hashlib.sha256(content).digest()))
        return made

    def add(self, entry: bytes) -> bytes:
        """Append an entry; returns what it extends."""
        (size,) = struct.unpack_from("<I", entry, 24)
        violated = entry[4:24] == VIOLATION
        extended = b"\xff" * 32 if violated else hashlib.sha256(entry[32 + size :]).digest()
        self.entries.append(entry)
        self.extends.append(extended)
        return extended

    @property
    def data(self) -> bytes:
        """The list in binary form."""
        return b"".join(self.entries)

    @property
    def pcr(self) -> bytes:
        """What PCR 10 of the SHA-256 bank is after all of it."""
        value = bytes(32)
        for extended in self.extends:
            value = hashlib.sha256(value + extended).digest()
        return value


def start(tpm: SoftwareTpm | str, root: Path) -> RuntimeList:
    """Let the kernel of a node that just booted measure every file of a root file system, in the order of its names."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    with ESAPI(tpm if isinstance(tpm, str) else tpm.tcti) as esys:
        pcrs = {pcr: bytes(esys.pcr_read(TPML_PCR_SELECTION.parse(f"sha256:{pcr}"))[2][0]) for pcr in AGGREGATED}
        made = RuntimeList.of(pcrs, ((f"/{path.relative_to(root).as_posix()}", path.read_bytes()) for path in files))
        for extended in made.extends:
            extend(esys, IMA_PCR, extended)
    return made


def run(tpm: SoftwareTpm | str, runtime: RuntimeList, entry: bytes) -> None:
    """Measure one more file on a running node: into its list, and into PCR 10."""
    with ESAPI(tpm if isinstance(tpm, str) else tpm.tcti) as esys:
        extend(esys, IMA_PCR, runtime.add(entry))
