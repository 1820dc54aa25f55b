"""Programs and a root file system from Debian's packages."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testcluster.linux.processes import run

# A file of each package, to check without dpkg whether it is installed.
PACKAGES = {
    "buildah": "/usr/bin/buildah",
    "conntrack": "/usr/sbin/conntrack",
    "containerd": "/usr/bin/containerd",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iproute2": "/sbin/ip",
    "iptables": "/usr/sbin/iptables",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "openssl": "/usr/bin/openssl",
    "procps": "/sbin/sysctl",
    "prometheus": "/usr/bin/prometheus",
    "runc": "/usr/sbin/runc",
    "strace": "/usr/bin/strace",
    "util-linux": "/usr/bin/nsenter",
}
BROWSER = "chromium-headless-shell"
"""The package of the browser in which tests open report.html: 100 MB to download, 306 MB installed."""
BROWSERS = (BROWSER, "chromium", "google-chrome", "chromium-browser")
"""Programs on the PATH that will do."""
# Packages of a Python image; the wheels of torch, torchvision and headless OpenCV contain the rest.
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_UNREAD = ("doc", "info", "locale", "man")
ROOT_FILE_SYSTEM = (
    "--variant=minbase",
    f"--include={','.join(BASE_PACKAGES)}",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _UNREAD),
    # Nothing is installed into the image later, and apt's lists are a third of its size.
    "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/*",
    # getpass, and so torch, fails for a user ID without a name.
    "--customize-hook=echo distill:x:65532:65532::/tmp:/usr/sbin/nologin >> $1/etc/passwd",
    "--customize-hook=echo distill:x:65532: >> $1/etc/group",
)
"""mmdebstrap options for the root file system."""


def missing_packages() -> list[str]:
    return [package for package, file in PACKAGES.items() if not Path(file).exists()]


def missing_browser() -> list[str]:
    """The package of a browser, unless there is one of any kind."""
    return [] if any(shutil.which(program) for program in BROWSERS) else [BROWSER]


def install_packages(packages: Sequence[str]) -> None:
    """Install packages without starting their services."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0:
        raise RuntimeError(f"Debian packages are missing; run as root: {' '.join(command)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    with _no_services():
        run("apt-get", "update", "--quiet", timeout=300)
        run(*command, timeout=900)


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian runs this script before it starts a service on installation; exit code 101 forbids it."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def suite() -> str:
    """The host's Debian release, whose python3 created the virtual environment."""
    lines = Path("/etc/os-release").read_text().splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    if release.get("ID") != "debian":
        raise RuntimeError("the one-machine cluster needs a Debian host; set DISTILL_KUBECONFIG to use another cluster")
    return release["VERSION_CODENAME"].strip('"')


def make_root_file_system(archive: Path) -> None:
    """Write a tar archive of a minimal Debian with Python, for ``buildah add``."""
    if shutil.which("mmdebstrap") is None:
        raise RuntimeError("mmdebstrap is not installed; run `python -m testcluster binaries`")
    command = ["nice", "mmdebstrap", *ROOT_FILE_SYSTEM, suite(), str(archive)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mmdebstrap failed:\n{done.stderr[-3000:]}")
