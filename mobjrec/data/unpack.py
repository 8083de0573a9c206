"""Archives opened safely: refused as a whole before anything is written, if one member is not plain.

Python's zipfile quietly strips `..` and writes inside the folder; a member that asks to leave it says that the archive
is not what it claims to be, so nothing of it is used.
"""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path, PurePosixPath

from mobjrec.errors import UserError

MEMBERS = 10_000
RATIO = 100
TOTAL = 4 << 30
# A member below this size may be as dense as it likes: a short file of zeros is no bomb.
SMALL = 1 << 20
# What zipfile and tarfile let through of a damaged archive; a seek before its beginning is an OSError.
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, OverflowError, RuntimeError),  # NotImplementedError is one of the last
)


def unpack(archive: Path, folder: Path, placed: Callable[[str], str], total: int = TOTAL) -> list[Path]:
    """The files of a zip (or wheel) or tar archive, written below `folder`; the paths written.

    placed: a member's name -> where it goes below `folder`, "" = nowhere. UserError if the file is no archive, or holds
    a path that leaves the folder, a link, a device, an encrypted member, more than 10,000 members, more than `total`
    bytes, or a member of over 1 MiB packed more than a hundredfold.
    """
    try:
        if zipfile.is_zipfile(archive):
            return _zip(archive, folder, placed, total)
        if archive.is_file() and tarfile.is_tarfile(archive):
            return _tar(archive, folder, placed, total)
    except BROKEN as error:
        raise UserError(f"{archive} is damaged or cannot be unpacked: {error}; fetch it again") from error
    raise UserError(f"{archive} is not a zip, wheel or tar archive; fetch it again")


def _zip(archive: Path, folder: Path, placed: Callable[[str], str], total: int) -> list[Path]:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        _refuse(archive, _zip_problem(members) or _size_problem([m.file_size for m in members], total))
        files = {m: folder / placed(m.filename) for m in members if not m.is_dir() and placed(m.filename)}
        _refuse(archive, _clash(files.values()))
        for member, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.read(member))
    return list(files.values())


def _zip_problem(members: list[zipfile.ZipInfo]) -> str:
    for member in members:
        # A zip made on Unix keeps the file's mode in the upper half; 0 where there is none.
        mode = stat.S_IFMT(member.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            return f"{member.filename!r} is a link or device"
        if member.flag_bits & 1:
            return f"{member.filename!r} is encrypted"
        # The name as it stands in the archive: zipfile cuts it at a NUL.
        if problem := path_problem(member.orig_filename):
            return problem
        if member.file_size > max(SMALL, RATIO * member.compress_size):
            return f"{member.filename!r} is packed more than {RATIO}-fold"
    return ""


def _tar(archive: Path, folder: Path, placed: Callable[[str], str], total: int) -> list[Path]:
    with tarfile.open(archive) as opened:
        members = list(islice(opened, MEMBERS + 1))
        _refuse(archive, next(filter(None, (_tar_problem(m, folder) for m in members)), ""))
        _refuse(archive, _size_problem([m.size for m in members], total))
        packed = RATIO * archive.stat().st_size
        size = sum(m.size for m in members)
        _refuse(archive, f"it is packed more than {RATIO}-fold" if size > max(SMALL, packed) else "")
        files = {m: folder / placed(m.name) for m in members if m.isfile() and placed(m.name)}
        _refuse(archive, _clash(files.values()))
        for member, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.extractfile(member).read())
    return list(files.values())


def _tar_problem(member: tarfile.TarInfo, folder: Path) -> str:
    if not (member.isfile() or member.isdir()):
        return f"{member.name!r} is a link or device"
    if problem := path_problem(member.name):
        return problem
    try:
        # Python 3.11 has it from 3.11.4 on; what it refuses beyond the lines above, no file or folder has.
        getattr(tarfile, "data_filter", lambda *_: None)(member, str(folder))
    except tarfile.TarError as error:
        return str(error)
    return ""


def path_problem(name: str) -> str:
    """What is wrong with a member's name, "" if nothing is."""
    # zipfile asks for the last letter of a name.
    if not name:
        return "a member has no name"
    path = PurePosixPath(name.replace("\\", "/"))
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or drive or ".." in path.parts:
        return f"{name!r} leaves the folder"
    return f"{name!r} holds a NUL" if "\0" in name else ""


def _size_problem(sizes: list[int], total: int) -> str:
    if len(sizes) > MEMBERS:
        return f"it holds more than {MEMBERS:,} members"
    return f"it unpacks to {sum(sizes):,} bytes; at most {total:,} are taken" if sum(sizes) > total else ""


def _clash(paths: Iterable[Path]) -> str:
    seen: set[str] = set()
    for path in map(str, paths):
        if path in seen:
            return f"two members go to {path}"
        seen.add(path)
    return ""


def _refuse(archive: Path, problem: str) -> None:
    if problem:
        raise UserError(f"{archive} is refused, nothing was written: {problem}")
