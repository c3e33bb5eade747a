"""The OCI runtime specification of an instance, made here and nowhere else. Pure: values in, a JSON object out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_platform.netd.errors import ImageInvalid
from umec_platform.netd.image import ImageConfig
from umec_platform.netd.messages import InstanceSpec
from umec_platform.netd.seccomp import profile

__all__ = ["HOST_USERS", "SECRETS", "Process", "process", "runtime_spec"]

SECRETS: Final = "/run/umec"
"""Where an instance finds its credential."""

HOST_USERS: Final = range(900, 906)
"""Users of node images (`umec_images.nodeimage.content`): what they start, the kernel measures, and tells from what
applications start by these numbers alone (`guest/ima-policy`)."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED: Final = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
]
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_OPEN_FILES: Final = 1024


@dataclass(frozen=True, slots=True)
class Process:
    """The one process of an instance."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int


def process(spec: InstanceSpec, image: ImageConfig, *, default_user: int, only_user: int | None) -> Process:
    """Return the process that the image and the specification describe; raises `ImageInvalid` without a command.

    An image that asks for root, for one of the host's own users, or for nobody in particular, gets `default_user`;
    `only_user` (in a user namespace with one user) overrides everything.
    """
    args = image.args if spec.args is None else tuple(spec.args)
    if not args:
        raise ImageInvalid("neither the image nor the request names a command")
    env = {"PATH": _PATH, **dict(text.split("=", 1) for text in image.env), **spec.env}
    asked = image.user
    uid, gid = (default_user, default_user) if asked is None or asked[0] in HOST_USERS else asked
    if only_user is not None:
        uid = gid = only_user
    return Process(args, env, image.cwd, uid, gid)


def runtime_spec(
    spec: InstanceSpec, what: Process, *, root: Path, secrets: Path, resolv_conf: Path, cgroup: str | None
) -> dict[str, Any]:
    """Return config.json: read-only root, no capability, no new privileges, own namespaces, limits where possible."""
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": _MASKED,
        "readonlyPaths": _READ_ONLY,
        "seccomp": profile(),
        # Inside its own network an unprivileged process may listen on any port.
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
    }
    if cgroup is not None:
        linux["cgroupsPath"] = cgroup
        linux["resources"] = {
            "memory": {"limit": spec.limits.memory_mib * 1024 * 1024},
            "pids": {"limit": spec.limits.pids},
            "devices": [{"allow": False, "access": "rwm"}],
        }
    return {
        "ociVersion": "1.0.2",
        "hostname": spec.instance,
        "root": {"path": str(root), "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": what.uid, "gid": what.gid},
            "args": list(what.args),
            "env": [f"{name}={value}" for name, value in what.env.items()],
            "cwd": what.cwd,
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES, "soft": _OPEN_FILES},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            ],
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            _tmpfs("/dev", "64k", "mode=755", "strictatime", devices=True),
            _tmpfs("/dev/shm", "16m", "mode=1777"),  # noqa: S108 - in the container
            _tmpfs("/tmp", "64m", "mode=1777"),  # noqa: S108 - in the container
            _tmpfs("/run", "1m", "mode=755"),
            _bind(SECRETS, secrets),
            _bind("/etc/resolv.conf", resolv_conf),
        ],
        "linux": linux,
    }


def _tmpfs(destination: str, size: str, *options: str, devices: bool = False) -> dict[str, Any]:
    flags = ["nosuid", "noexec", *options, f"size={size}"]
    # runc makes the devices of /dev itself.
    flags = flags if devices else ["nodev", *flags]
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": flags}


def _bind(destination: str, source: Path) -> dict[str, Any]:
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}
