"""Damaged, forged and oversized files of every format: an honest file is made, and some of its parts are changed.

The changes know the format's grammar, so that most files get past the first look: a header's field gets another
value, a line is doubled, a length is stated wrong, a sequence is nested.
"""

import bz2
import gzip
import os
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from campaign import Attack, Outcome
from reader import Reader

SHAPE = (4, 5, 6)
COUNT = 4 * 5 * 6
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    255,
    256,
    32767,
    -32768,
    65535,
    65536,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63,
)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-6, 1e-3, 0.01, 5000.0, 1e6, 1e30, -1e30, 1e308, float("nan"), float("inf"), 5e-324)
NAMES = (
    "/etc/passwd", "../secret.raw", "/dev/zero", "/dev/stdin", "-", "LIST", "LIST 2", "fifo", "folder", "link", "gone",
    "%0200d.raw 1 4 1", "%s%s%n", "%03d.raw 1 3 1", "a\0b", "x" * 300, ".", "", "voxels.raw", "sub/voxels.raw",
    "~root/x",
)  # fmt: skip
WORDS = (
    "", "x", "none", "???", "list", "vector", "RGB-color", "domain", "time", "(1,0,0)", "(nan,0,0)", "1e999", "0x7",
    "raw", "gzip", "bzip2", "ascii", "hex", "zlib", "big", "little", "float", "block", "int16", "uint64", "true",
    "MET_SHORT", "MET_DOUBLE", "\u202e", "\ud83d\ude00", "\x1b[31m", "9" * 400, "-0", "1 2 3", "(1,0,0) (0,1,0)",
)  # fmt: skip

COMPRESSED = Path(__file__).resolve().parents[2] / "data" / "dicom"

reader = Reader()


def run(folder: Path) -> Outcome:
    """Reads the case's file, or the folder as a DICOM series."""
    special(folder)
    target = next((path for path in sorted(folder.iterdir()) if path.name.startswith("case")), folder)
    answer = reader(target, "segmentation" if target.name.endswith(".seg.nrrd") else "read")
    return Outcome(answer["label"], answer["fault"])


def special(folder: Path) -> None:
    """What a header may point to and a corpus cannot hold: a pipe, a folder, a link that leads out."""
    if any(path.suffix in (".nhdr", ".mhd", ".nrrd", ".mha") for path in folder.iterdir()):
        os.mkfifo(folder / "fifo")
        (folder / "folder").mkdir()
        (folder / "link").symlink_to("/etc/passwd")
    if (folder / "with-fifo").exists():
        os.mkfifo(folder / "case.dcm")


def integer(rng: random.Random) -> int:
    return rng.choice((rng.choice(INTEGERS), rng.randrange(-9, 40), rng.getrandbits(rng.randrange(1, 65))))


def real(rng: random.Random) -> float:
    return rng.choice((rng.choice(REALS), rng.uniform(-4, 4), float(integer(rng))))


def bytes_changed(rng: random.Random, data: bytes, most: int = 4) -> bytes:
    """A few bytes flipped, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, most)):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 40))
        elif kind == 3:
            changed[at:at] = changed[max(0, at - 64) : at] * rng.choice((1, 1, 2, 50))
        else:
            del changed[at : at + rng.randrange(1, 30)]
    return bytes(changed)


def packed(rng: random.Random, data: bytes, codec: str) -> bytes:
    """The voxels packed, sometimes cut off, sometimes far more of them than the header says."""
    kind = rng.randrange(9)
    if kind == 0:
        data = data[: rng.randrange(len(data))]
    elif kind == 1:
        data += bytes(rng.choice((1, 7, 1000, 1 << 22, 1 << 26)))
    if codec == "gzip":
        parts = [data] if kind != 2 else [data[at : at + 9] for at in range(0, len(data), 9)]
        data = b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    elif codec == "zlib":
        data = zlib.compress(data)
    elif codec == "bzip2":
        data = bz2.compress(data)
    return bytes_changed(rng, data) if kind in (3, 4) else data


# ---- NIfTI -----------------------------------------------------------------------------------------------------------

NIFTI_1 = {"dim": ("8h", 40), "intent": ("h", 68), "type": ("h", 70), "bits": ("h", 72), "pixdim": ("8f", 76),
           "scale": ("3f", 108), "codes": ("2h", 252), "quaternion": ("6f", 256), "rows": ("12f", 280)}  # fmt: skip
NIFTI_2 = {"dim": ("8q", 16), "type": ("h", 12), "bits": ("h", 14), "pixdim": ("8d", 104), "scale": ("q2d", 168),
           "codes": ("2i", 344), "quaternion": ("6d", 352), "rows": ("12d", 400), "intent": ("i", 504)}  # fmt: skip
NIFTI_TYPES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 128: 3, 32: 8, 1536: 16}


def write_nifti(rng: random.Random, folder: Path) -> None:
    order, second = rng.choice("<>"), rng.random() < 0.3
    fields, length = (NIFTI_2, 544) if second else (NIFTI_1, 352)
    kind = rng.choice(list(NIFTI_TYPES))
    values: dict[str, list] = {
        "dim": [3, *SHAPE, 1, 1, 1, 1], "intent": [0], "type": [kind], "bits": [8 * NIFTI_TYPES[kind]],
        "pixdim": [1, 0.5, 0.75, 3, 1, 1, 1, 1], "scale": [length, rng.choice((0, 1, 2.5)), 0], "codes": [1, 1],
        "quaternion": [0, 0, 0, -9, -9, 5], "rows": [0.5, 0, 0, -9, 0, 0.75, 0, -9, 0, 0, 3, 5],
    }  # fmt: skip
    if rng.random() < 0.2:
        values["dim"][0], values["dim"][4] = 4, rng.choice((1, 2, 3))
    for _ in range(rng.randrange(4)):
        name = rng.choice(list(values))
        at, form = rng.randrange(len(values[name])), fields[name][0]
        values[name][at] = real(rng) if form[-1] in "fd" and not (name == "scale" and at == 0) else integer(rng)
    header = bytearray(length)
    struct.pack_into(order + "i", header, 0, 540 if second else 348)
    place, magic = (4, b"n+2\0\r\n\x1a\n") if second else (344, b"n+1\0")
    header[place : place + len(magic)] = magic
    for name, (form, at) in fields.items():
        header[at : at + struct.calcsize(order + form)] = _fitting(order + form, values[name])
    data = bytes(header) + rng.randbytes(COUNT * NIFTI_TYPES[kind] * max(1, rng.choice((values["dim"][4], 1)) % 4))
    codec = rng.choice(("raw", "gzip"))
    (folder / ("case.nii" + ".gz" * (codec == "gzip"))).write_bytes(packed(rng, data, codec))


def _fitting(form: str, values: list) -> bytes:
    """The values in this form, cut to what it can hold."""
    limits, content = {"h": 16, "i": 32, "q": 64}, b""
    kinds = [letter for count, letter in re.findall(r"(\d*)([a-z])", form) for _ in range(int(count or 1))]
    for kind, value in zip(kinds, values, strict=True):
        if kind in limits:
            bits = limits[kind]
            value = (int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
        try:
            content += struct.pack(form[0] + kind, value)
        except OverflowError:  # beyond single precision
            content += struct.pack(form[0] + kind, float("inf"))
    return content


# ---- headers of lines: NRRD, .seg.nrrd, MetaImage --------------------------------------------------------------------


def lines_changed(rng: random.Random, lines: list[str], separator: str) -> list[str]:
    """Some lines with another value, doubled, left out, out of order, or new."""
    lines = list(lines)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(1, len(lines))
        kind = rng.randrange(12)
        key, found, value = lines[at].partition(separator)
        parts = value.split(" ")
        if kind < 6 and found:
            parts[rng.randrange(len(parts))] = rng.choice((str(integer(rng)), repr(real(rng)), rng.choice(WORDS)))
            lines[at] = key + separator + " ".join(parts)
        elif kind == 6:
            lines[at] = key + separator + rng.choice(WORDS)
        elif kind == 7:
            lines.insert(rng.randrange(1, len(lines)), lines[at])
        elif kind == 8 and len(lines) > 2:
            del lines[at]
        elif kind == 9:
            lines.insert(at, lines.pop(rng.randrange(1, len(lines))))
        elif kind == 10:
            lines[at:at] = [f"key{number}:={rng.choice(WORDS)}" for number in range(rng.choice((1, 3, 2000)))]
        else:
            lines.insert(at, rng.choice(WORDS) + separator + rng.choice(WORDS))
    return lines


def finish(rng: random.Random, lines: list[str], ending: str) -> bytes:
    text = ("\r\n" if rng.random() < 0.1 else "\n").join(lines) + ending
    data = text.encode("utf-8", "surrogatepass")
    return bytes_changed(rng, data, 3) if rng.random() < 0.2 else data


NRRD_TYPES = {"uchar": 1, "int8": 1, "short": 2, "uint16": 2, "int": 4, "float": 4, "double": 8, "int64": 8}
SEGMENTS = [
    "Segmentation_ContainedRepresentationNames:=Binary labelmap|", "Segment0_ID:=femur", "Segment0_LabelValue:=1",
    "Segment0_Layer:=0", "Segment0_Name:=Right femur", "Segment0_Color:=1 0 0.5", "Segment0_Extent:=0 1 0 1 0 1",
    "Segment0_Tags:=PedBoneSeg.Bone:femur|TerminologyEntry:x~SCT^123037004^Anatomical Structure~SCT^71341001^Femur"
    "~SCT^24028007^Right~~^^~^^|", "Segment1_ID:=tibia", "Segment1_LabelValue:=2", "Segment1_Layer:=0",
    "Segment1_Name:=Right tibia", "Segment1_Color:=0 1 0.5", "Segment1_Tags:=PedBoneSeg.Bone:tibia|",
]  # fmt: skip


def nrrd_writer(segments: bool) -> Callable[[random.Random, Path], None]:
    def write(rng: random.Random, folder: Path) -> None:
        kind, codec = rng.choice(list(NRRD_TYPES)), rng.choice(("raw", "gzip", "bzip2"))
        frames = rng.choice((0, 0, 0, 1, 3))
        lines = [
            "NRRD0004", f"type: {kind}", f"dimension: {3 + bool(frames)}", "space: left-posterior-superior",
            "sizes: " + " ".join(map(str, [frames] * bool(frames) + list(SHAPE))),
            "space directions: " + "none " * bool(frames) + "(0.5,0,0) (0,0.75,0) (0,0,3)",
            "kinds: " + "list " * bool(frames) + "domain domain domain", "endian: little", f"encoding: {codec}",
            "space origin: (9,9,5)",
        ]  # fmt: skip
        detached = not segments and rng.random() < 0.4
        if detached:
            lines.append(f"data file: {rng.choice(NAMES) if rng.random() < 0.6 else 'voxels.raw'}")
            if rng.random() < 0.3:
                lines.append(f"{rng.choice(('byte skip', 'line skip'))}: {integer(rng)}")
        lines = lines_changed(rng, lines + SEGMENTS * segments, ":=" if segments and rng.random() < 0.7 else ": ")
        values = bytes(rng.randrange(3) for _ in range(COUNT * max(1, frames)))
        data = b"".join(bytes([value]) + bytes(NRRD_TYPES[kind] - 1) for value in values)
        header, data = finish(rng, lines, "\n\n"), packed(rng, data, codec)
        if detached:
            (folder / "voxels.raw").write_bytes(data)
            (folder / "case.nhdr").write_bytes(header)
        else:
            (folder / ("case.seg.nrrd" if segments else "case.nrrd")).write_bytes(header + data)

    return write


META_TYPES = {"MET_UCHAR": 1, "MET_CHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_FLOAT": 4,
              "MET_DOUBLE": 8, "MET_LONG_LONG": 8}  # fmt: skip


def write_metaimage(rng: random.Random, folder: Path) -> None:
    kind, detached, compressed = rng.choice(list(META_TYPES)), rng.random() < 0.4, rng.random() < 0.5
    name = "LOCAL" if not detached else rng.choice(NAMES) if rng.random() < 0.6 else "voxels.raw"
    data = packed(rng, rng.randbytes(COUNT * META_TYPES[kind]), "zlib" if compressed else "raw")
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", f"BinaryDataByteOrderMSB = {rng.random() < 0.3}",
        f"CompressedData = {compressed}", f"CompressedDataSize = {len(data)}", "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = 9 9 5", "ElementSpacing = 0.5 0.75 3", "DimSize = 4 5 6", f"ElementType = {kind}",
    ]  # fmt: skip
    if rng.random() < 0.2:
        lines.append(f"HeaderSize = {integer(rng)}")
    if rng.random() < 0.2:
        lines.append(f"ElementNumberOfChannels = {integer(rng)}")
    lines = [*lines_changed(rng, lines, " = "), f"ElementDataFile = {name}"]
    if detached:
        (folder / "voxels.raw").write_bytes(data)
    header = finish(rng, lines, "\n")
    (folder / f"case.{'mhd' if detached else 'mha'}").write_bytes(header + (b"" if detached else data))


# ---- DICOM -----------------------------------------------------------------------------------------------------------

LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF"}
SYNTAXES = {
    "1.2.840.10008.1.2": "implicit", "1.2.840.10008.1.2.1": "explicit", "1.2.840.10008.1.2.2": "big",
    "1.2.840.10008.1.2.5": "rle", "1.2.840.10008.1.2.4.70": "jpeg", "1.2.840.10008.1.2.4.90": "j2k",
    "1.2.840.10008.1.2.4.80": "jpegls", "1.2.840.10008.1.2.4.50": "jpeg", "1.2.840.10008.1.2.1.99": "deflated",
}  # fmt: skip
ITEM, END_OF_ITEM, END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF


def element(tag: int, kind: bytes, value: bytes, implicit: bool, order: str, length: int | None = None) -> bytes:
    value += b"\0" * (len(value) % 2)
    length = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if implicit or tag >> 16 == 0xFFFE:
        return head + struct.pack(order + "I", length & UNDEFINED) + value
    if kind in LONG:
        return head + kind + b"\0\0" + struct.pack(order + "I", length & UNDEFINED) + value
    return head + kind + struct.pack(order + "H", length & 0xFFFF) + value


def nested(rng: random.Random, implicit: bool, order: str, depth: int) -> bytes:
    """Private sequences in one another, mostly of undefined length, sometimes with several items a level."""
    content = b""
    for _ in range(depth):
        item = element(ITEM, b"", content, True, order, rng.choice((UNDEFINED, UNDEFINED, None)))
        item += element(END_OF_ITEM, b"", b"", True, order) * rng.choice((1, 1, 1, 0))
        kind = rng.choice((b"SQ", b"SQ", b"UN"))
        content = element(0x00091010, kind, item, implicit, order, rng.choice((UNDEFINED, UNDEFINED, None)))
        content += element(END_OF_SEQUENCE, b"", b"", True, order) * rng.choice((1, 1, 1, 0))
    return content


def rle(data: bytes) -> bytes:
    """One frame of 16-bit pixels: the high bytes, then the low ones, as literal runs."""
    segments = []
    for plane in (data[1::2], data[::2]):
        runs = [plane[at : at + 128] for at in range(0, len(plane), 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)


def pixel_element(rng: random.Random, data: bytes, way: str, implicit: bool, order: str) -> bytes:
    if way not in ("rle", "jpeg", "j2k", "jpegls"):
        length = rng.choice((None, None, None, None, UNDEFINED, integer(rng), len(data) // 2))
        return element(0x7FE00010, b"OW", data, implicit, order, length)
    if way == "rle":
        fragments = [rle(data)]
    else:
        start = {
            "jpeg": b"\xff\xd8\xff\xc3\0\x0b\x10",
            "j2k": b"\xff\x4f\xff\x51",
            "jpegls": b"\xff\xd8\xff\xf7\0\x0b\x10",
        }
        fragments = [start[way] + struct.pack(">HH", integer(rng) & 65535, 6) + data[:40] + b"\xff\xd9"]
    fragments = [bytes_changed(rng, part) if rng.random() < 0.5 else part for part in fragments] * rng.choice((1, 1, 2))
    content = b"".join(element(ITEM, b"", part, True, order) for part in [b"", *fragments])
    return element(
        0x7FE00010, b"OB", content + element(END_OF_SEQUENCE, b"", b"", True, order), False, order, UNDEFINED
    )


def write_dicom(rng: random.Random, folder: Path) -> None:
    syntax = rng.choice(list(SYNTAXES)) if rng.random() < 0.6 else "1.2.840.10008.1.2.1"
    way, order = SYNTAXES[syntax], ">" if SYNTAXES[syntax] == "big" else "<"
    implicit, slices = way == "implicit", rng.choice((1, 3))
    damaged = rng.randrange(slices)
    for number in range(slices):
        short = lambda value: struct.pack(order + "H", value & 65535)  # noqa: E731
        values: dict[int, tuple[bytes, bytes]] = {
            0x00080060: (b"CS", b"MR"), 0x0020000E: (b"UI", b"1.2.3\0"), 0x00180050: (b"DS", b"3 "),
            0x00200013: (b"IS", b"%d" % number), 0x00200032: (b"DS", b"0\\0\\%d" % (3 * number)),
            0x00200037: (b"DS", rb"1\0\0\0\1\0"), 0x00280002: (b"US", short(1)), 0x00280004: (b"CS", b"MONOCHROME2"),
            0x00280010: (b"US", short(5)), 0x00280011: (b"US", short(4)), 0x00280030: (b"DS", rb"0.75\0.5"),
            0x00280100: (b"US", short(16)), 0x00280101: (b"US", short(12)), 0x00280102: (b"US", short(11)),
            0x00280103: (b"US", short(0)),
        }  # fmt: skip
        extra: list[tuple[int, bytes]] = []
        if number == damaged:
            for _ in range(rng.choice((0, 0, 1, 2))):
                tag = rng.choice(list(values))
                kind, value = values[tag]
                values[tag] = (rng.choice((kind, kind, kind, b"UN", b"SQ")), changed_value(rng, kind, value, short))
            if rng.random() < 0.3:
                depth = rng.choice((1, 2, 8, 33, 40, 300))
                extra.append((0x00091010, nested(rng, implicit, order, depth)))
            if rng.random() < 0.2:
                extra.append((0x00280008, element(0x00280008, b"IS", str(integer(rng)).encode(), implicit, order)))
            if rng.random() < 0.1:
                tag = rng.choice(list(values))
                extra.append((tag, element(tag, *values[tag], implicit, order)))
        parts = [(tag, element(tag, kind, value, implicit, order)) for tag, (kind, value) in values.items()] + extra
        data = b"".join(part for _, part in sorted(parts, key=lambda part: part[0]))
        pixels = rng.randbytes(rng.choice((40, 40, 40, 40, 38, 42, 0)))
        data += pixel_element(rng, pixels, way, implicit, order)
        meta = element(0x00020010, b"UI", syntax.encode(), False, "<")
        meta = element(0x00020000, b"UL", struct.pack("<I", len(meta)), False, "<") + meta
        content = bytes(128) + b"DICM" + meta + data
        if number == damaged and rng.random() < 0.3:
            content = content[:132] + bytes_changed(rng, content[132:])
        (folder / f"IM{number}").write_bytes(content)
    if rng.random() < 0.02:
        (folder / "with-fifo").write_bytes(b"")


def changed_value(rng: random.Random, kind: bytes, value: bytes, short: Callable[[int], bytes]) -> bytes:
    if kind == b"US":
        return rng.choice((short(integer(rng)), short(rng.choice((512, 30000, 65535))), b"", value + value, value[:1]))
    parts = value.split(b"\\")
    parts[rng.randrange(len(parts))] = rng.choice((str(integer(rng)), repr(real(rng)), "", "x", "\x1b[2J")).encode()
    return rng.choice((b"\\".join(parts), value * 2, b"", rng.randbytes(6)))


def write_compressed(rng: random.Random, folder: Path) -> None:
    """An enhanced MR image, compressed by another program, with damage among its pixels, or anywhere."""
    content = rng.choice([path.read_bytes() for path in sorted(COMPRESSED.glob("*.dcm"))])
    head = content.index(struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, UNDEFINED)) + 12
    if rng.random() < 0.3:
        content = content[:132] + bytes_changed(rng, content[132:])
    else:  # within the frames, their number and length left as they are
        changed = bytearray(content)
        for _ in range(rng.randrange(5)):
            changed[rng.randrange(head, len(content))] = rng.randrange(256)
        content = bytes(changed)
    (folder / "IM0").write_bytes(content)


ATTACKS = [
    Attack("nifti", write_nifti, run),
    Attack("nrrd", nrrd_writer(segments=False), run),
    Attack("segmentation", nrrd_writer(segments=True), run),
    Attack("metaimage", write_metaimage, run),
    Attack("dicom", write_dicom, run),
    Attack("compressed", write_compressed, run),
]
