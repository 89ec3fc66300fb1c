"""Folders that appear whole or not at all."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simcore.errors import UserError

__all__ = ["StagedFolder", "check_out", "slug", "staged_folder"]


class StagedFolder:
    """A folder under construction: write into ``staging``; it lies at ``final`` once the ``with`` block has ended."""

    def __init__(self, staging: Path, final: Path) -> None:
        self.staging = staging
        self.final = final


@contextmanager
def staged_folder(out: Path, name: str) -> Iterator[StagedFolder]:
    """A new folder ``out/name``, written aside in ``out`` and renamed when the block ends; if it raises, nothing stays.

    Where ``name`` is taken, it gets a suffix: ``name-2``, ``name-3``. Raises UserError if ``out`` cannot be written.
    """
    check_out(out)
    folder = StagedFolder(out / f".{name}.{secrets.token_hex(4)}.partial", out / name)
    folder.staging.mkdir()
    try:
        yield folder
        folder.final = _rename_to_free(folder.staging, folder.final)
    except BaseException:
        shutil.rmtree(folder.staging)
        raise


def check_out(out: Path) -> None:
    """Make the results folder ``out`` if need be; call it before any work is done. Raises UserError if it cannot be
    written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot write results to {out}: it is, or lies below, a file") from error
    except OSError as error:
        raise UserError(f"cannot write results to {out}: {error.strerror}") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"cannot write results to {out}: permission denied")


def slug(name: str) -> str:
    """``name`` as a part of a file name: letters, digits, dot, underscore and dash, at most 60, no leading dot."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip(".-") or "unnamed"


def _rename_to_free(staging: Path, wanted: Path) -> Path:
    attempt = 1
    while True:
        final = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        if not os.path.lexists(final):
            try:
                staging.rename(final)
            except OSError as error:
                # Another process took the name between the look and the rename.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
            else:
                return final
        attempt += 1
