"""PostgreSQL refuses to run as root; this module finds another user, and a place that this user can reach.

Only root comes here. The programs may lie where no other user may look (a virtual environment below a home of mode
0700), and so may the data folder; both then get a folder of their own below `/var/tmp` (kept across a reboot) or the
temp directory, whose name is kept in the data folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

from orchestration.errors import ServiceUnreachable
from parallelizer.services.processes import UnixUser

#: Users that exist on every common system and own nothing.
CANDIDATES = ("nobody", "daemon")
PREFIX = "celery-parallelizer-"


def user_for_servers() -> UnixUser | None:
    """Whom PostgreSQL runs as: None (ourselves) unless we are root.

    Raises: ServiceUnreachable: we are root and there is no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return UnixUser(name, entry.pw_uid, entry.pw_gid)
    raise ServiceUnreachable(
        f"PostgreSQL refuses to run as root and there is no user {' or '.join(CANDIDATES)} on this machine; "
        "set DATABASE_URL, or start as an ordinary user"
    )


def can_reach(path: Path, user: UnixUser) -> bool:
    """Whether `user` may pass through every folder above `path`."""
    return all(_allows(parent, user, stat.S_IXUSR) for parent in path.resolve().parents)


def can_read(path: Path, user: UnixUser) -> bool:
    """Whether `user` may read this file and reach it."""
    return can_reach(path, user) and _allows(path, user, stat.S_IRUSR)


def place_for(record: Path) -> Path:
    """A folder that any user can pass through, the same one every time: its name is kept in the file `record`."""
    try:
        known = Path(record.read_text().strip())
        found = known.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            return known
    except (FileNotFoundError, ValueError):
        pass
    made = _make_folder()
    record.write_text(f"{made}\n")
    return made


def copy_programs(root: Path, parts: tuple[str, ...], place: Path) -> Path:
    """Copy `parts` (relative paths) of `root` into `place`, readable for everyone; what is there already is kept.

    Returns: the folder that now has the parts, at the same relative paths.
    """
    if place.is_dir():
        return place
    partial = place.with_name(f"{place.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    for part in parts:
        source, target = root / part, partial / part
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for path in (partial, *partial.rglob("*")):
        executable = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
        path.chmod(0o755 if executable else 0o644)
    partial.rename(place)
    return place


def _make_folder() -> Path:
    for parent in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108 - mkdtemp makes it ours alone
        try:
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError:
            continue
        made.chmod(0o711)
        return made
    raise ServiceUnreachable(
        "PostgreSQL refuses to run as root, and no folder can be made that another user can reach; "
        "use --data-dir with a folder below one of mode 755, or set DATABASE_URL"
    )


def _allows(path: Path, user: UnixUser, owner_bit: int) -> bool:
    found = path.stat()
    if found.st_uid == user.uid:
        bit = owner_bit
    elif found.st_gid == user.gid:
        bit = owner_bit >> 3
    else:
        bit = owner_bit >> 6
    return bool(found.st_mode & bit)
