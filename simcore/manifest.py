"""Where a run comes from: what made it, when, from which versions and inputs."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from simcore.records import RunResult
from simcore.summary import json_safe

__all__ = ["MANIFEST_SCHEMA_VERSION", "Manifest", "make_manifest"]

MANIFEST_SCHEMA_VERSION: Final = 1

_PACKAGES: Final = ("numpy", "scipy", "pandas", "pyarrow", "simpy", "pydantic", "matplotlib", "aiohttp")
"""Those whose version can change a number or a byte of the results."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.json``: times are ISO 8601 in UTC; ``profiles`` the SHA-256 of each service profile by its name.

    ``simroute_version`` is None when it runs from a checkout that is not installed, ``git_commit`` None when it does
    not run from one; it ends in "-dirty" where the checkout had changes.
    """

    scenario: str
    policy: str
    seed: int
    kind: str
    interrupted: bool
    command: tuple[str, ...]
    started_at: str
    finished_at: str
    duration_s: float
    wall_s: float
    requests: int
    profiles: dict[str, str]
    simroute_version: str | None
    git_commit: str | None
    python: str
    platform: str
    packages: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        safe = json_safe({"schema_version": MANIFEST_SCHEMA_VERSION, **asdict(self)})
        assert isinstance(safe, dict)
        return safe


def make_manifest(
    result: RunResult,
    *,
    command: Sequence[str],
    profiles: Mapping[str, str],
    started_at: datetime,
    finished_at: datetime,
) -> Manifest:
    """``command`` is the command line that repeats the run, as words; both times are aware datetimes."""
    return Manifest(
        scenario=result.scenario,
        policy=result.policy,
        seed=result.seed,
        kind=result.kind,
        interrupted=result.interrupted,
        command=tuple(command),
        started_at=started_at.astimezone(UTC).isoformat(timespec="seconds"),
        finished_at=finished_at.astimezone(UTC).isoformat(timespec="seconds"),
        duration_s=result.duration_s,
        wall_s=result.wall_s,
        requests=len(result.requests),
        profiles=dict(profiles),
        simroute_version=_version("simroute"),
        git_commit=_git_commit(Path(__file__)),
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: version for name in _PACKAGES if (version := _version(name)) is not None},
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit(source: Path) -> str | None:
    """The commit of the checkout that tracks ``source``: a virtual environment may lie inside a foreign repository."""
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return _git(source.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
