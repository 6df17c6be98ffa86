"""The numbers of a Parquet column as they lie in the file, where they are one plain page: a view, nothing is decoded.

Parquet writes before each page a header in Thrift's compact encoding: a byte with the distance to the field's number and
the field's type, then the value. The fields read here are whole numbers in zigzag form, 7 bits a byte.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KIND, COMPRESSED_SIZE, CHECKSUM, DATA_PAGE = 1, 3, 4, 5
NUM_VALUES, ENCODING = 1, 2
WHOLE_NUMBER, STRUCT = 5, 12
DATA, PLAIN = 0, 0
LONGEST_HEADER = 256
"""Bytes; one without statistics has about 30."""


class DamagedPage(ValueError):
    """The bytes of a page do not fit its checksum."""


class _Page(NamedTuple):
    """The header of a data page. size: bytes of its content; checksum: CRC32 of them, if the writer took one."""

    num_values: int
    encoding: int
    size: int
    checksum: int | None


def plain_values(file: pq.ParquetFile, buffer: pa.Buffer, path: str, dtype: np.dtype, count: int) -> np.ndarray | None:
    """The `count` numbers of a column without nulls as a view of `buffer`, the file; None if they do not lie there plain.

    They do in a file of one row group whose column is one page, neither compressed nor encoded. Raises DamagedPage.
    """
    if file.metadata.num_row_groups != 1:
        return None
    group = file.metadata.row_group(0)
    number = next((i for i in range(group.num_columns) if group.column(i).path_in_schema == path), None)
    if number is None:
        return None
    column, levels = group.column(number), file.schema.column(number)
    start, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    if column.compression != "UNCOMPRESSED" or column.has_dictionary_page or not 0 < start < end <= buffer.size:
        return None
    content = memoryview(buffer).cast("B")[start:end]  # pyarrow gives signed bytes
    page = _page(content)
    if page is None or page.encoding != PLAIN or not column.num_values == page.num_values == count:
        return None
    body = content[len(content) - page.size :]
    depths = (levels.max_repetition_level, levels.max_definition_level)
    if _levels_size(body, depths) + count * dtype.itemsize != len(body):
        return None
    if page.checksum is not None and zlib.crc32(body) != page.checksum:
        raise DamagedPage("a page's checksum differs")
    return np.frombuffer(body, dtype, count, len(body) - count * dtype.itemsize)


def _levels_size(body: memoryview, depths: tuple[int, int]) -> int:
    """Bytes of the levels before a page's numbers: for each level that a column has, 4 bytes that tell its length."""
    size = 0
    for depth in depths:
        if depth and size + 4 <= len(body):
            size += 4 + int.from_bytes(body[size : size + 4], "little")
    return size


def _page(content: memoryview) -> _Page | None:
    """The first page's header; None if the content does not begin with a data page of the first version."""
    try:
        fields, position = _whole_numbers(content[:LONGEST_HEADER], 0)
        inside, position = _whole_numbers(content[:LONGEST_HEADER], position)
        is_data, size = fields[KIND] == DATA and DATA_PAGE in fields, fields[COMPRESSED_SIZE]
        num_values, encoding = inside[NUM_VALUES], inside[ENCODING]
    except (IndexError, KeyError):
        return None
    if not is_data or not 0 < size <= len(content) - position:
        return None
    checksum = fields.get(CHECKSUM)
    return _Page(num_values, encoding, size, None if checksum is None else checksum & 0xFFFFFFFF)


def _whole_numbers(content: memoryview, position: int) -> tuple[dict[int, int], int]:
    """The fields from `position` up to the first that is no whole number, and where that one's content begins.

    A field that holds others counts as 0.
    """
    fields: dict[int, int] = {}
    number = 0
    while True:
        head = content[position]
        number, position = number + (head >> 4), position + 1
        if head & 15 != WHOLE_NUMBER:
            return fields | ({number: 0} if head & 15 == STRUCT else {}), position
        value = shift = 0
        while True:
            byte = content[position]
            value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
            if byte < 128:
                break
        fields[number] = value >> 1 ^ -(value & 1)
