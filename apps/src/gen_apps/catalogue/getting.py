"""`gen data get`: install the packages of a set by the system's own clients."""

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

from gen_apps.catalogue.config import GetData
from gen_apps.catalogue.entries import find
from gen_core.datasets.packages import Package


def get_data(config: GetData) -> None:
    """Install what is not here yet.

    Raises:
        ValueError: where no client can be run, or one fails, with the command to run by hand.
    """
    for package in find(config.name).packages:
        if package.root is not None:
            print(f"{config.name}: {package.name} is here: {package.root}")
        elif config.dry_run:
            print(package.command)
        else:
            install(package)
            print(f"{config.name}: {package.name} is here now: {package.root}")


def install(package: Package) -> None:
    """Run the client of a package, and see that its data came."""
    command = client(package)
    if command is None:
        why = "apt-get runs as root on Debian and Ubuntu" if package.client == "apt" else "there is no pip and no uv"
        raise ValueError(f"{package.name} is not installed, for {why}; run: {by_hand(package)}")
    print(shlex.join(command), flush=True)
    if code := subprocess.run(command).returncode:
        raise ValueError(f"{shlex.join(command)} ended with exit code {code}; run it by hand: {by_hand(package)}")
    importlib.invalidate_caches()
    if package.root is None:
        raise ValueError(
            f"{package.name} was installed, and its data are not in {package.folder}; it has another version"
        )


def client(package: Package) -> list[str] | None:
    """The command that installs a package into this environment; None where there is none that may."""
    wanted = shlex.split(package.given) or [package.name]
    if package.client == "apt":
        may = os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get")
        return ["apt-get", "install", "--yes", "--no-install-recommends", *wanted] if may else None
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", *wanted]
    return ["uv", "pip", "install", "--python", sys.executable, *wanted] if shutil.which("uv") else None


def by_hand(package: Package) -> str:
    """The command for a user who is not root."""
    return f"sudo {package.command}" if package.client == "apt" else package.command
