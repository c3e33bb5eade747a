"""A node without hardware: a software TPM, a node image, and a firmware that is a program."""

import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from umec_core.errors import Invalid
from umec_platform.cli.node.parameters import Json, Tcti
from umec_platform.cli.output import emit, refusals

__all__ = ["sample_image", "simulate_boot", "software_tpm"]


@refusals
def simulate_boot(
    tcti: Tcti,
    image: Annotated[Path, typer.Option(help="The node image folder.")],
    log: Annotated[Path, typer.Option(help="Where to write the boot log.")],
    tamper: Annotated[
        str | None, typer.Option(help="Change one stage: cmdline, kernel, initrd, firmware or secure-boot.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Let the kernel measure the files of this folder, as if all of them ran.")
    ] = None,
    runtime_list: Annotated[Path | None, typer.Option(help="Where to write the list of what ran.")] = None,
    power_cycle: Annotated[
        bool, typer.Option("--power-cycle", help="Switch the software TPM off and on first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Boot a node image as a firmware would: measure it into the TPM and write the boot log."""
    from umec_attest.testing import firmware, runtime, swtpm
    from umec_attest.testing.image import Tamper

    stages = {stage.value: stage for stage in Tamper}
    if tamper is not None and tamper not in stages:
        raise Invalid(f"no stage {tamper!r}", advice=f"one of {', '.join(stages)}")
    if (root is None) != (runtime_list is None):
        raise Invalid("--root and --runtime-list go together")
    if power_cycle:
        swtpm.power_cycle(tcti)
    written = firmware.boot(tcti, image, tamper=None if tamper is None else stages[tamper])
    if root is not None and runtime_list is not None:
        runtime_list.write_bytes(runtime.start(tcti, root).data)
    log.write_bytes(written)
    emit(
        {"log": str(log), "bytes": len(written), "tampered": tamper},
        as_json=as_json,
        human=f"booted {image}; {len(written)} bytes of boot log in {log}",
    )


@refusals
def sample_image(
    directory: Annotated[Path, typer.Argument(help="The folder to write.")],
    cmdline: Annotated[str, typer.Option(help="The kernel's command line.")] = "root=/dev/mapper/root ro panic=-1",
    as_json: Json = False,
) -> None:
    """Write a small node image folder that `simulate-boot` can boot."""
    from umec_attest.testing.image import make_image

    make_image(directory, cmdline=cmdline)
    emit({"image": str(directory)}, as_json=as_json, human=f"a node image in {directory}")


@refusals
def software_tpm(
    directory: Annotated[Path, typer.Argument(help="Where the TPM keeps its state; made at the first start.")],
    as_json: Json = False,
) -> None:
    """Run a software TPM with an endorsement key certificate of its own authority, until SIGTERM."""
    from umec_attest.testing.swtpm import SoftwareTpm

    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    with SoftwareTpm(directory) as tpm:
        root, chain = directory / "ek-root.pem", directory / "ek-chain.pem"
        root.write_text(tpm.authority.root_pem)
        chain.write_text(tpm.authority.chain_pem)
        emit({"tcti": tpm.tcti, "ek_root": str(root), "ek_chain": str(chain)}, as_json=as_json)
        while True:
            signal.pause()


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
