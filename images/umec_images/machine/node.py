"""The folder of a machine that stands for one node: its disk, what its firmware keeps, and its TPM.

disk.img   the image's disk; the partition `data` is the node's own and stays when another image is put on it
vars.fd    the firmware's variables
tpm/state  the TPM (swtpm), manufactured by somebody else
"""

import shutil
import subprocess
from pathlib import Path

from umec_images.machine.errors import MachineFailed
from umec_images.machine.folder import NodeImageFolder
from umec_images.machine.partitions import Span, copy_span, spans

__all__ = ["install"]

DATA = "data"


def install(image: NodeImageFolder, folder: Path) -> None:
    """Put an image on a node, as a technician does: disk and variables; data of the node stay.

    Raises DiskUnreadable, MachineFailed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = folder / "disk.img"
    shutil.copyfile(image.variables, folder / "vars.fd")
    wanted = spans(image.disk)
    if disk.exists() and spans(disk) == wanted:
        first = min(span.start for span in wanted.values())
        pieces = [Span(0, first), *(span for name, span in wanted.items() if name != DATA)]
        for piece in pieces:
            copy_span(image.disk, disk, piece)
        return
    _copy_sparse(image.disk, disk)


def _copy_sparse(source: Path, target: Path) -> None:
    done = subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", "--", str(source), str(target)], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise MachineFailed(f"{source} cannot be copied: {done.stderr.decode(errors='replace').strip()}")
