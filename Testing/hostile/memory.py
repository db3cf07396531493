"""Measures the peak of memory while files are read: honest ones of every kind, and claims of more than is there.

python Testing/hostile/memory.py          a table, in Markdown; the peak is what Linux tells of the reading process
"""

import bz2
import gzip
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import numpy as np  # noqa: E402
from image_files import nifti, write_classic  # noqa: E402
from reader import Reader  # noqa: E402

SHAPE = (256, 256, 128)
NRRD = "NRRD0004\ntype: {type}\ndimension: {axes}\nsizes: {sizes}\nendian: little\nencoding: {codec}\n{more}\n"


def nrrd(path: Path, data: bytes, kind: str, sizes: tuple[int, ...], codec: str, more: str = "") -> Path:
    pack = {"raw": bytes, "gzip": lambda data: gzip.compress(data, 1), "bzip2": bz2.compress}[codec]
    sizes_ = " ".join(map(str, sizes))
    path.write_bytes(
        NRRD.format(type=kind, axes=len(sizes), sizes=sizes_, codec=codec, more=more).encode() + pack(data)
    )
    return path


def honest(folder: Path) -> Iterator[tuple[str, Path]]:
    array = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    (folder / "a.nii.gz").write_bytes(gzip.compress(nifti(array).to_bytes(), 1))
    yield "NIfTI, int16, gzip", folder / "a.nii.gz"
    scaled = bytearray(nifti(array).to_bytes())
    scaled[112:120] = struct.pack("<2f", 0.5, 1)
    (folder / "b.nii").write_bytes(scaled)
    yield "NIfTI, int16, scaled", folder / "b.nii"
    doubles = array.astype(np.float64)
    doubles[0, 0, 0] = np.nan
    (folder / "c.nii").write_bytes(nifti(doubles, scl_slope=2, scl_inter=0).to_bytes())
    yield "NIfTI, float64, scaled, with a NaN", folder / "c.nii"
    yield "NRRD, int16, raw", nrrd(folder / "d.nrrd", array.tobytes("F"), "short", SHAPE, "raw")
    yield "NRRD, int16, gzip", nrrd(folder / "e.nrrd", array.tobytes("F"), "short", SHAPE, "gzip")
    data = zlib.compress(array.tobytes("F"), 1)
    text = f"NDims = 3\nDimSize = {' '.join(map(str, SHAPE))}\nElementType = MET_SHORT\nCompressedData = True\n"
    (folder / "f.mha").write_bytes(text.encode() + b"ElementDataFile = LOCAL\n" + data)
    yield "MetaImage, int16, zlib", folder / "f.mha"
    yield "DICOM, a file a slice", write_classic(folder / "g", array.astype(np.uint16))
    yield "DICOM, rescaled", write_classic(folder / "h", array.astype(np.uint16), RescaleSlope="0.5")


def claims(folder: Path) -> Iterator[tuple[str, Path]]:
    yield "NRRD, 1000 × 1000 × 3000 in 200 bytes", nrrd(folder / "a.nrrd", b"", "short", (1000, 1000, 3000), "raw")
    yield "NRRD, 600 × 600 × 600 in 200 bytes", nrrd(folder / "b.nrrd", b"", "double", (600, 600, 600), "raw")
    zeros = zlib.compress(bytes(1 << 31), 1)
    text = "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\n"
    (folder / "c.mha").write_bytes(text.encode() + zeros)
    yield "MetaImage, 4 × 4 × 4 with 2 GiB behind it", folder / "c.mha"
    header = nifti(np.zeros((1, 1, 1), np.int16)).to_bytes()[:352]
    header = header[:40] + struct.pack("<8h", 3, 900, 900, 900, 1, 1, 1, 1) + header[56:]
    (folder / "d.nii.gz").write_bytes(gzip.compress(header + bytes(2 * 900**3), 1))
    yield "NIfTI, an honest 900 × 900 × 900 of zeros", folder / "d.nii.gz"
    header = header[:40] + struct.pack("<8h", 3, 640, 640, 640, 1, 1, 1, 1) + header[56:]
    (folder / "e.nii.gz").write_bytes(gzip.compress(header + bytes(2 * 640**3 - 2), 1))
    yield "NIfTI, 640 × 640 × 640 of zeros, a voxel too few", folder / "e.nii.gz"
    exam = write_classic(folder / "f", np.zeros((5, 5, 1), np.uint16))
    path = next(exam.iterdir())
    content = path.read_bytes()
    for tag in (0x10, 0x11):
        head = struct.pack("<HH2sH", 0x28, tag, b"US", 2)
        content = content.replace(head + struct.pack("<H", 5), head + struct.pack("<H", 30000))
    path.write_bytes(content)
    yield "DICOM, 30000 × 30000 in 1 kB", exam


def main() -> None:
    print("| file | | peak, MB | bytes a voxel |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for number, cases in enumerate((honest, claims)):
            folder = Path(place) / str(number)
            folder.mkdir()
            for name, path in cases(folder):
                reader = Reader()  # a new process for each: what the last one left must not count
                reader(Path("/nothing.nii"))
                answer = reader(path)
                share = f"{answer['peak'] / answer['voxels']:.1f}" if answer.get("voxels") else ""
                print(f"| {name} | {answer['label']} | {answer.get('peak', 0) / 1e6:.0f} | {share} |{answer['fault']}")


if __name__ == "__main__":
    main()
