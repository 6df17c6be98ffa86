"""Members of a tar are found as tarfile finds them, whatever wrote the tar."""

from __future__ import annotations

import io
import random
import tarfile
from itertools import islice
from pathlib import Path

import pytest

from aft_ray.datasets.sources.tar_members import members
from aft_ray.recipe.errors import InputError

NAMES = (
    "a.png",
    "b/c.d.txt",
    "./e.cls",
    "f" * 99,
    "g" * 100,
    "h" * 101,
    f"{'i' * 90}/{'j' * 90}",
    "\u00e9.png",
    "k.json",
)


def odd_tar(file: Path, form: int, seed: int = 0) -> Path:
    drawn = random.Random(seed)
    with tarfile.open(
        file, "w", format=form, pax_headers={"comment": "made"} if form == tarfile.PAX_FORMAT else {}
    ) as opened:
        names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or name[-101:] != "h" * 101]
        for number, name in enumerate(drawn.sample(names, len(names))):
            member = tarfile.TarInfo(name)
            member.mtime = drawn.choice((0, 1.5, 1 << 33)) if form == tarfile.PAX_FORMAT else 7
            member.size = drawn.choice((0, 1, 511, 512, 513, 5000))
            opened.addfile(member, io.BytesIO(bytes(member.size)))
            if number % 3 == 0:
                other = tarfile.TarInfo(f"folder{number}")
                other.type, other.linkname = (
                    drawn.choice((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)),
                    name[:50],
                )
                opened.addfile(other)
    return file


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(5))
def test_members_are_those_that_tarfile_finds(tmp_path: Path, form: int, seed: int) -> None:
    file = odd_tar(tmp_path / "a.tar", form, seed)
    with tarfile.open(file) as opened:
        expected = [(m.name, m.offset_data, m.size, m.isfile(), m.isdir()) for m in opened]
    found = [(m.name, m.start, m.size, m.is_file, m.is_folder) for m in members(file)]
    assert found == expected and len(found) >= 11


def test_a_changed_byte_of_any_header_is_found(tmp_path: Path) -> None:
    file = odd_tar(tmp_path / "a.tar", tarfile.USTAR_FORMAT)
    content = file.read_bytes()
    with tarfile.open(file) as opened:
        starts = [member.offset for member in opened]
    for start in starts:
        for at in (start + 3, start + 130, start + 152, start + 300):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(InputError, match="is cut off or damaged at byte|is no plain tar"):
                list(members(file))


def test_a_member_is_read_while_others_are_found(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as opened:
        for number in range(50):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 20_000
            opened.addfile(member, io.BytesIO(bytes([number]) * member.size))
    assert [member.read() for member in members(file)] == [bytes([number]) * 20_000 for number in range(50)]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.AREGTYPE])
@pytest.mark.parametrize("size", [b"-0000001000", b"-0000000005"])
def test_a_size_below_zero_is_refused_and_not_read_without_end(tmp_path: Path, kind: bytes, size: bytes) -> None:
    first, hostile = tarfile.TarInfo("a.txt"), tarfile.TarInfo("b.txt")
    hostile.type = kind
    header = bytearray(hostile.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size + b"\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    file = tmp_path / "a.tar"
    file.write_bytes(first.tobuf(tarfile.USTAR_FORMAT) + header + bytes(1024))
    with pytest.raises(InputError, match=r"member 'b.txt' has -\d+ bytes|is cut off or damaged|is no plain tar"):
        list(islice(members(file), 100))


def test_a_sparse_file_is_no_plain_one_since_its_holes_are_not_in_the_tar(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"00000010000\0"  # the size with holes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(header + bytes(1024))
    assert [(found.name, found.is_file) for found in members(tmp_path / "a.tar")] == [("a.png", False)]
