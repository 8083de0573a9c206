import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from mobjrec.data import download
from mobjrec.data.download import Recipe, cache_folder, get
from mobjrec.data.unpack import unpack
from mobjrec.errors import UserError


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def recipes(monkeypatch, tmp_path):
    """Two made-up recipes, and a cache folder of the test's own."""
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    layouts = ({"a.txt": sha(b"A"), "sub/a.txt": sha(b"B")}, {"lines.gz": 2})
    made = {"made": Recipe("things/made", "free for all", "https://example.org/made.zip", layouts)}
    monkeypatch.setattr(download, "RECIPES", made)
    return tmp_path


def zipped(path: Path, members: dict[str, bytes], mode: int = 0, **settings) -> Path:
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, settings.get("compression"))
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def itself(name: str) -> str:
    return name


def assert_refused(archive: Path, folder: Path, why: str, **settings) -> None:
    outside = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError, match=why):
        unpack(archive, folder, itself, **settings)
    assert sorted(folder.parent.rglob("*")) == outside


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/abs", "..\\evil", "C:\\evil", "C:/evil", "\\\\host\\evil"]
)
def test_a_zip_with_a_path_out_of_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    archive = zipped(tmp_path / "x.zip", {"good.txt": b"good", name: b"evil"})
    assert_refused(archive, tmp_path / "out", "refused, nothing was written: .* leaves the folder")


def test_a_zip_with_a_member_without_a_name_is_refused(tmp_path):
    assert_refused(zipped(tmp_path / "x.zip", {"a.txt": b"A", "": b"B"}), tmp_path / "out", "a member has no name")


def test_a_zip_with_a_nul_in_a_name_is_refused(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"good.txt": b"", "nulXname": b""})
    archive.write_bytes(archive.read_bytes().replace(b"nulXname", b"nul\0name"))
    assert_refused(archive, tmp_path / "out", "holds a NUL")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_a_link_or_device_is_refused(tmp_path, kind):
    archive = zipped(tmp_path / "x.zip", {"link": b"/etc/passwd"}, mode=kind | 0o777)
    assert_refused(archive, tmp_path / "out", "'link' is a link or device")


def test_a_zip_bomb_is_refused_by_ratio_total_and_number(tmp_path):
    dense = zipped(tmp_path / "x.zip", {"zeros": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    assert_refused(dense, tmp_path / "out", "packed more than 100-fold")
    large = zipped(tmp_path / "y.zip", {"a": os.urandom(600), "b": os.urandom(600)})
    assert_refused(large, tmp_path / "out", "unpacks to 1,200 bytes; at most 1,000 are taken", total=1000)
    many = zipped(tmp_path / "z.zip", {f"f{n}": b"" for n in range(10_001)})
    assert_refused(many, tmp_path / "out", "more than 10,000 members")


def test_an_encrypted_or_damaged_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"a.txt": b"content of a"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert_refused(archive, tmp_path / "out", "'a.txt' is encrypted")
    archive = zipped(tmp_path / "y.zip", {"a.txt": b"content of a"})
    archive.write_bytes(archive.read_bytes().replace(b"content", b"contend"))
    with pytest.raises(UserError, match="is damaged or cannot be unpacked: Bad CRC-32"):
        unpack(archive, tmp_path / "out", itself)
    (tmp_path / "z.zip").write_text("no archive")
    assert_refused(tmp_path / "z.zip", tmp_path / "out", "is not a zip, wheel or tar archive")


@pytest.mark.parametrize(
    "bad, why",
    [
        (member("../evil"), "leaves the folder"),
        (member("/abs/evil"), "leaves the folder|absolute"),
        (member("link", tarfile.SYMTYPE, "/etc"), "'link' is a link or device"),
        (member("hard", tarfile.LNKTYPE, "good"), "'hard' is a link or device"),
        (member("dev", tarfile.CHRTYPE), "'dev' is a link or device"),
        (member("disk", tarfile.BLKTYPE), "'disk' is a link or device"),
        (member("a\\..\\..\\evil"), "leaves the folder"),
        (member("C:/evil"), "leaves the folder"),
        (member("pipe", tarfile.FIFOTYPE), "'pipe' is a link or device"),
    ],
)
def test_a_tar_that_is_not_plain_is_refused_before_anything_is_written(tmp_path, bad, why):
    archive = tarred(tmp_path / "x.tar.gz", [(member("good"), b"good"), (bad, b"")])
    assert_refused(archive, tmp_path / "out", why)


@pytest.mark.slow
def test_a_tar_bomb_is_refused(tmp_path):
    archive = tarred(tmp_path / "x.tar.gz", [(member("zeros"), bytes(1 << 24))])
    assert_refused(archive, tmp_path / "out", "packed more than 100-fold")
    archive = tarred(tmp_path / "y.tar.gz", [(member("a"), os.urandom(1200))])
    assert_refused(archive, tmp_path / "out", "unpacks to 1,200 bytes", total=1000)
    archive = tarred(tmp_path / "z.tar.gz", [(member(f"f{n}"), b"") for n in range(10_001)])
    assert_refused(archive, tmp_path / "out", "more than 10,000 members")


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    content = {"a.txt": os.urandom(3000), "b.txt": os.urandom(3000)}
    for archive in (
        zipped(tmp_path / "x.zip", content),
        tarred(tmp_path / "x.tgz", [(member(name), text) for name, text in content.items()]),
    ):
        archive.write_bytes(archive.read_bytes()[: int(cut * archive.stat().st_size)])
        with pytest.raises(UserError, match=r"is not a zip, wheel or tar archive|is damaged"):
            unpack(archive, tmp_path / "out", itself)


@pytest.mark.parametrize("form", ["stored", "deflated", "lzma", "tar"])
def test_an_archive_with_any_byte_gone_or_flipped_is_read_or_refused(form, tmp_path):
    kinds = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}
    archive, refused = tmp_path / "x", 0
    if form == "tar":
        tarred(archive, [(member("a.txt"), b"A" * 9)])
    else:
        zipped(archive, {"a.txt": b"A" * 9}, compression=kinds[form])
    content = archive.read_bytes()
    for place in range(len(content)):
        for new in (b"", bytes([content[place] ^ 255])):
            archive.write_bytes(content[:place] + new + content[place + 1 :])
            try:
                unpack(archive, tmp_path / "out", itself)
            except UserError as error:
                refused += str(archive) in str(error)
    # A byte of a name, of a time or of a comment's length may be another one.
    assert refused > len(content)


def test_plain_archives_are_unpacked_where_they_are_placed(tmp_path):
    def placed(name: str) -> str:
        return name.removeprefix("top/") if name.endswith(".txt") else ""

    content = {"top/a.txt": b"A", "top/sub/b.txt": b"B", "top/c.py": b"C"}
    one = zipped(tmp_path / "x.zip", content, mode=stat.S_IFREG | 0o644)
    two = tarred(tmp_path / "x.tgz", [(member(name), text) for name, text in content.items()])
    for number, archive in enumerate((one, two)):
        out = tmp_path / f"out{number}"
        assert sorted(unpack(archive, out, placed)) == [out / "a.txt", out / "sub/b.txt"]
        assert (out / "sub/b.txt").read_bytes() == b"B"
        assert not (out / "c.py").exists()


def test_two_members_for_one_place_are_refused(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"a/x": b"1", "b/x": b"2"})
    with pytest.raises(UserError, match="two members go to"):
        unpack(archive, tmp_path / "out", lambda name: name[-1])
    assert not (tmp_path / "out").exists()


def test_the_cache_folder_is_the_one_named_or_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("MOBJREC_CACHE", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")
    monkeypatch.setenv("MOBJREC_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "mobjrec"


@pytest.mark.parametrize("form", ["folder", "zip", "tgz"])
def test_files_are_checked_placed_and_licensed(recipes, capsys, form):
    source = recipes / "source"
    if form == "folder":
        (source / "sub").mkdir(parents=True)
        (source / "a.txt").write_bytes(b"A")
        (source / "sub" / "a.txt").write_bytes(b"B")
    elif form == "zip":
        zipped(source, {"deep/a.txt": b"A", "deep/sub/a.txt": b"B", "deep/other": b"?"})
    else:
        tarred(source, [(member("deep/a.txt"), b"A"), (member("deep/sub/a.txt"), b"B")])
    place = get("made", source)
    assert place == recipes / "cache" / "things" / "made"
    assert sorted(x.relative_to(place).as_posix() for x in place.rglob("*.txt")) == ["a.txt", "sub/a.txt"]
    assert (place / "sub/a.txt").read_bytes() == b"B"
    assert "licence: free for all" in capsys.readouterr().out
    assert [x.name for x in place.parent.iterdir()] == ["made"]


def test_what_is_there_is_checked_and_kept(recipes, capsys):
    source = zipped(recipes / "x.zip", {"a.txt": b"A", "sub/a.txt": b"B"})
    place = get("made", source)
    assert get("made") == place
    assert "not read" not in capsys.readouterr().out
    assert get("made", recipes / "junk.zip") == place
    assert f"already there, {recipes / 'junk.zip'} not read; remove {place} first" in capsys.readouterr().out
    (place / "a.txt").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"exists already, but a.txt has sha256 .*, expected"):
        get("made", source)
    assert (place / "a.txt").read_bytes() == b"changed"


def test_a_single_file_is_a_layout_and_its_lines_are_counted(recipes):
    file = recipes / "lines.gz"
    file.write_bytes(gzip.compress(b"one\n\ntwo\nthree\n"))
    with pytest.raises(UserError, match=r"lines.gz has number of lines 3, expected 2; get it again"):
        get("made", file)
    file.write_bytes(gzip.compress(b"one\n\ntwo\n"))
    assert (get("made", file, recipes / "mine") / "lines.gz").read_bytes() == file.read_bytes()
    assert not (recipes / "cache").exists() or not list((recipes / "cache").rglob("*.gz"))


def test_a_wrong_source_leaves_nothing_behind(recipes):
    wrong = zipped(recipes / "x.zip", {"a.txt": b"A", "sub/a.txt": b"not B"})
    with pytest.raises(UserError, match=r"x.zip: sub/a.txt has sha256 .*, expected"):
        get("made", wrong)
    half = zipped(recipes / "y.zip", {"a.txt": b"A"})
    with pytest.raises(UserError, match=r"not all files are there; expected a.txt, sub/a.txt, or lines.gz"):
        get("made", half)
    evil = zipped(recipes / "z.zip", {"a.txt": b"A", "sub/a.txt": b"B", "../evil": b"E"})
    with pytest.raises(UserError, match="leaves the folder"):
        get("made", evil)
    assert list((recipes / "cache" / "things").iterdir()) == []


def test_without_a_source_it_says_where_to_get_one(recipes):
    with pytest.raises(
        UserError, match=r"get the files by hand from https://example.org/made.zip and name them with --from"
    ):
        get("made")
    with pytest.raises(UserError, match=r"nothing is not a file or folder"):
        get("made", recipes / "nothing")
    with pytest.raises(UserError, match="'other' cannot be got; there are made"):
        get("other")


def test_the_real_compact_folder_is_what_the_recipe_says(monkeypatch, tmp_path, shared):
    if not (shared / "data" / "ranklens").is_dir():
        pytest.skip("no data in the shared folder")
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path))
    assert get("ranklens", shared / "data" / "ranklens") == tmp_path / "ranklens"
    assert {x.name for x in (tmp_path / "ranklens").iterdir()} == {"rankings.csv.gz", "items.jsonl.gz"}
