"""Files that lie about themselves: each is refused in one line, before its voxels cost time or memory."""

import bz2
import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from image_files import ARRAY, nifti, voxels, write_classic, write_enhanced, write_nrrd
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats import header, unpacking
from PedBoneSegLib.formats.dicom import decoder, elements, pixels
from PedBoneSegLib.formats.reading import find_inputs, is_dicom_series, read_volume
from PedBoneSegLib.formats.segments import read_segmentation
from PedBoneSegLib.program.cli import main

COMPRESSED = Path(__file__).parents[1] / "data" / "dicom"
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n" \
       "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\n"  # fmt: skip
MHA = "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"


def refusal(path, fault, **options):
    """Reading it says `fault`, in one line that can be printed."""
    with pytest.raises(BadInput, match=fault) as raised:
        read_volume(path, **options)
    assert raised.value.hint and str(raised.value).isprintable()
    return raised.value


def counted(monkeypatch):
    """The bytes that are unpacked from now on, as they are asked for."""
    sizes = []
    piece = unpacking.Unpacker._piece

    def counting(self, *args, **options):
        data = piece(self, *args, **options)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(unpacking.Unpacker, "_piece", counting)
    return sizes


# ---- which files are opened ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.dcm", "a.nii.gz", "a.nrrd", "a.mha", "a"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refusal(tmp_path / name, "not a regular file")


def test_a_pipe_in_a_folder_is_passed_over(tmp_path):
    os.mkfifo(tmp_path / "x.dcm")
    assert not is_dicom_series(tmp_path) and find_inputs(tmp_path) == []
    folder = write_classic(tmp_path / "exam")
    os.mkfifo(folder / "x.dcm")
    np.testing.assert_array_equal(read_volume(folder).array, ARRAY)


@pytest.mark.parametrize(
    "name",
    [
        "%0200d.raw 1 4 1", "%03d.raw 1 3 1", "%s%n", "LIST", "LIST 2", "-", "/dev/zero", "/etc/passwd",
        "../secret.raw", "sub/../../secret.raw", "link.raw", "pipe.raw", "folder", ".", "a\0b", "x" * 300, "gone.raw",
        "~/a.raw",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["nhdr", "nrrd", "seg.nrrd", "mhd", "mha"])
def test_voxels_elsewhere_than_beside_the_header_are_refused(tmp_path, form, name):
    folder = tmp_path / "images"
    (folder / "folder").mkdir(parents=True)
    for path in (tmp_path / "secret.raw", folder / "sub.raw"):
        path.write_bytes(bytes(64))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    os.mkfifo(folder / "pipe.raw")
    text = f"{NRRD}data file: {name}\n\n" if "n" in form else f"{MHA}ElementDataFile = {name}\n"
    (folder / f"a.{form}").write_text(text)
    refusal(folder / f"a.{form}", "does not name one file|outside its own folder|no such file beside|cannot be read")


def test_voxels_below_the_headers_folder_are_read(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my voxels.raw").write_bytes(bytes(range(64)))
    (tmp_path / "a.nhdr").write_text(f"{NRRD}data file: sub/my voxels.raw\n\n")
    (tmp_path / "a.mhd").write_text(f"{MHA}ElementDataFile = sub/my voxels.raw\n")
    for name in ("a.nhdr", "a.mhd"):
        assert read_volume(tmp_path / name).array.ravel(order="F").tolist() == list(range(64))


@pytest.mark.parametrize("name", ["x" * 300 + ".nii", "a\0b.nii", "loop.nii", "file.nii/deeper.nii"])
def test_a_name_that_cannot_be_is_bad_input(tmp_path, name):
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    (tmp_path / "file.nii").write_bytes(b"x")
    with pytest.raises(BadInput):
        read_volume(tmp_path / name)
    with pytest.raises(BadInput):
        read_segmentation(tmp_path / name, "knee")


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_more_voxels_than_the_limit_are_refused_with_the_option_that_raises_it(tmp_path, monkeypatch):
    write_nrrd(tmp_path / "a.nrrd", voxels((3, 9, 7)), "gzip")
    unpacked = counted(monkeypatch)
    refusal(tmp_path / "a.nrrd", "189 voxels, more than the limit of 188; .* --max-voxels", max_voxels=188)
    assert not unpacked
    assert read_volume(tmp_path / "a.nrrd", max_voxels=189).array.size == 189
    with pytest.raises(BadInput, match="--max-voxels"):
        read_segmentation(tmp_path / "a.nrrd", "knee", max_voxels=188)
    folder = write_classic(tmp_path / "exam")
    refusal(folder, f"{ARRAY.size} voxels, more than the limit of {ARRAY.size - 1}", max_voxels=ARRAY.size - 1)


def test_an_honest_file_beyond_the_limit_is_refused_by_its_header(tmp_path, monkeypatch):
    """Of a stream that may hold 343,000,000 voxels, the header alone is unpacked."""
    head = nifti(voxels((3, 9, 7))).to_bytes()[:352]
    head = head[:40] + struct.pack("<8h", 3, 700, 700, 700, 1, 1, 1, 1) + head[56:]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(head + bytes(1 << 20)))
    unpacked = counted(monkeypatch)
    refusal(tmp_path / "a.nii.gz", "343,000,000 voxels, more than the limit of 268,435,456")
    assert sum(unpacked) <= 544


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_claim_of_more_than_can_be_there_is_not_tried(tmp_path, encoding, monkeypatch):
    write_nrrd(tmp_path / "a.nrrd", voxels((3, 9, 7)), encoding)
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"sizes: 3 9 7", b"sizes: 600 600 600"))
    unpacked = counted(monkeypatch)
    refusal(tmp_path / "a.nrrd", "truncated")
    assert not unpacked


@pytest.mark.parametrize("codec", ["zlib", "gzip", "bzip2"])
def test_what_follows_the_promised_voxels_is_never_unpacked(tmp_path, codec, monkeypatch):
    """A stream of 4 MB for an image of 64 voxels: the image is read, and of the rest a byte."""
    image = bytes(range(64))
    packed = {"zlib": zlib.compress, "gzip": gzip.compress, "bzip2": bz2.compress}[codec](image + bytes(1 << 22))
    if codec == "zlib":
        path = tmp_path / "a.mha"
        path.write_bytes(f"{MHA}CompressedData = True\nElementDataFile = LOCAL\n".encode() + packed)
    else:
        path = tmp_path / "a.nrrd"
        path.write_bytes(NRRD.replace("raw", codec).encode() + b"\n" + packed)
    unpacked = counted(monkeypatch)
    assert read_volume(path).array.ravel(order="F").tolist() == list(image)
    assert sum(unpacked) <= 65


@pytest.mark.parametrize("codec", ["zlib", "gzip", "bzip2"])
@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_packed_stream_without_its_end_is_refused(tmp_path, codec, cut):
    pack = {"zlib": zlib.compress, "gzip": gzip.compress, "bzip2": bz2.compress}[codec]
    packed = pack(bytes(range(64)))[:-cut]
    if codec == "zlib":
        (tmp_path / "a.mha").write_bytes(f"{MHA}CompressedData = True\nElementDataFile = LOCAL\n".encode() + packed)
        refusal(tmp_path / "a.mha", "truncated")
    else:
        (tmp_path / "a.nrrd").write_bytes(NRRD.replace("raw", codec).encode() + b"\n" + packed)
        refusal(tmp_path / "a.nrrd", "truncated")


def test_a_large_packed_file_is_unpacked_to_its_end_before_any_of_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "_CHECKED_FIRST", 10)
    array = voxels((3, 9, 7))
    write_nrrd(tmp_path / "a.nrrd", array, "gzip")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, array)
    monkeypatch.setattr(unpacking.Unpacker, "read_into", lambda *args: pytest.fail("voxels were kept"))
    content = (tmp_path / "a.nrrd").read_bytes()
    for damaged in (content[:-9], content[:-3], content[:-6] + b"\1\2" + content[-4:]):
        (tmp_path / "a.nrrd").write_bytes(damaged)
        refusal(tmp_path / "a.nrrd", "truncated")


def test_voxels_far_behind_the_header_are_refused(tmp_path, monkeypatch):
    packed = bz2.compress(bytes(1 << 20))
    (tmp_path / "a.nrrd").write_bytes(NRRD.replace("raw", f"bzip2\nbyte skip: {10**15}").encode() + b"\n" + packed)
    unpacked = counted(monkeypatch)
    refusal(tmp_path / "a.nrrd", "begin after 1000000000000000 bytes")
    assert not unpacked


def test_voxels_within_the_header_are_refused(tmp_path):
    raw = bytearray(nifti(voxels((3, 9, 7))).to_bytes())
    for start in (0, 4, 348, -352, float("nan"), float("inf")):
        raw[108:112] = struct.pack("<f", start)
        (tmp_path / "a.nii").write_bytes(raw)
        refusal(tmp_path / "a.nii", "damaged header")


def test_many_key_value_pairs_take_one_pass(tmp_path):
    """Each line is read once: twice the pairs are twice the calls, where ITK's time grows with the square."""
    pairs = "".join(f"key{number}:=value\n" for number in range(30_000))
    (tmp_path / "a.nrrd").write_bytes(NRRD.encode() + pairs.encode() + b"\n" + bytes(64))
    assert read_volume(tmp_path / "a.nrrd").array.shape == (4, 4, 4)
    (tmp_path / "b.nrrd").write_bytes(NRRD.encode() + pairs.encode() * 4 + b"\n" + bytes(64))
    refusal(tmp_path / "b.nrrd", "too long")


@pytest.mark.parametrize(
    "line, fault",
    [
        (b"sizes: 4 4 4", "stands there twice"),
        (b"\xff\xfe", "no field"),
        (b"byte skip: -2", "byte skip is -2"),
        (b"line skip: -1", "line skip is -1"),
        (b"kinds: domain domain", "kinds has 2 entries for 3 axes"),
    ],
)
def test_a_damaged_line_is_told(tmp_path, line, fault):
    (tmp_path / "a.nrrd").write_bytes(NRRD.encode() + line + b"\n\n" + bytes(64))
    refusal(tmp_path / "a.nrrd", fault)


def test_keys_that_are_not_utf8_are_no_obstacle(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(NRRD.encode() + b"\xff\xfe:=\xe9\n\n" + bytes(64))
    assert read_volume(tmp_path / "a.nrrd").array.shape == (4, 4, 4)


def test_more_segments_than_labels_are_refused(tmp_path):
    pairs = "".join(f"Segment{number}_ID:=s\nSegment{number}_Name:=n{number}\n" for number in range(256))
    (tmp_path / "a.seg.nrrd").write_bytes(NRRD.encode() + pairs.encode() + b"\n" + bytes(64))
    with pytest.raises(BadInput, match="256 segments; leave at most 255"):
        read_segmentation(tmp_path / "a.seg.nrrd")


@pytest.mark.parametrize("color", ["inf 0 0", "nan 0 0", "1e999 0 0"])
def test_a_color_that_is_not_a_number_is_bad_input(tmp_path, color):
    pairs = f"Segment0_ID:=femur\nSegment0_Name:=femur\nSegment0_Color:={color}\n"
    (tmp_path / "a.seg.nrrd").write_bytes(NRRD.encode() + pairs.encode() + b"\n" + bytes(64))
    with pytest.raises(BadInput, match="damaged header"):
        read_segmentation(tmp_path / "a.seg.nrrd")


def test_a_segmentation_is_held_to_the_same_bounds(tmp_path, capsys):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.replace("(1,0,0)", "(1e-6,0,0)").encode() + b"\n" + bytes(64))
    assert main(["measure", str(path), "--joint", "knee"]) == 2
    assert "impossible voxel spacing" in capsys.readouterr().err
    path.write_bytes(NRRD.encode() + b"\n" + bytes(64))
    assert main(["measure", str(path), "--joint", "knee", "--max-voxels", "63"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["measure", str(path), "--joint", "knee", "--max-voxels", "64"]) == 0


# ---- DICOM -----------------------------------------------------------------------------------------------------------


def changed(folder, **values):
    """A series of one slice with some elements changed after its pixels were stored."""
    write_classic(folder, ARRAY[:, :, :1])
    made = pydicom.dcmread(folder / "IM0")
    for key, value in values.items():
        setattr(made, key, value)
    made.save_as(folder / "IM0")
    return folder


@pytest.mark.parametrize("rows", [512, 30000, 8, 7, 1])
def test_pixels_that_do_not_fill_the_claimed_size_are_refused(tmp_path, rows):
    """More of them would have been memory that was never written; fewer are no image either."""
    claimed = changed(tmp_path / "exam", Rows=rows, Columns=5 if rows < 9 else rows)
    if rows == ARRAY.shape[1]:
        read_volume(claimed)
    else:
        refusal(claimed, "bytes long where")


def test_a_claim_of_many_frames_is_not_believed(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(elements.DicomFile, "frame", lambda self, index: read.append(index) or self.elements)
    refusal(changed(tmp_path / "exam", NumberOfFrames=100_000), "bytes long where")
    assert not read


def nested(depth):
    """Private sequences in one another, none with a length."""
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        block = outer.private_block(0x0009, "OURS", create=True)
        block.add_new(0x10, "SQ", Sequence([inner]))
        outer[block.get_tag(0x10)].is_undefined_length = True
        inner.is_undefined_length_sequence_item = True
        inner = outer
    return inner


@pytest.mark.parametrize("depth, is_read", [(20, True), (40, False), (200, False)])
def test_nested_private_sequences_are_walked_once_and_not_too_deep(tmp_path, depth, is_read, monkeypatch):
    folder = write_classic(tmp_path / "exam", ARRAY[:, :, :1])
    made = pydicom.dcmread(folder / "IM0")
    made.update(nested(depth))
    made.save_as(folder / "IM0")
    heads = []
    head = elements._Walk._head
    monkeypatch.setattr(elements._Walk, "_head", lambda *args: heads.append(1) or head(*args))
    if is_read:
        np.testing.assert_array_equal(read_volume(folder).array, ARRAY[:, :, :1])
    else:
        refusal(folder, "nested too deep")
    assert len(heads) < 100 + 10 * depth


def test_the_number_of_elements_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(elements, "_MOST_ELEMENTS", 20)
    refusal(write_classic(tmp_path / "exam"), "too many elements")


@pytest.mark.parametrize("key, value", [("SamplesPerPixel", b"\1"), ("Rows", b"\5\0\5\0")])
def test_an_element_of_the_wrong_length_is_damage(tmp_path, key, value):
    folder = write_classic(tmp_path / "exam", ARRAY[:, :, :1])
    path, tag = folder / "IM0", pydicom.datadict.tag_for_keyword(key)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, b"US")
    content = path.read_bytes()
    at = content.index(head)
    path.write_bytes(content[:at] + head + struct.pack("<H", len(value)) + value + content[at + 10 :])
    refusal(folder, "damaged DICOM file")


def test_an_element_that_stands_there_twice_is_damage(tmp_path):
    folder = write_classic(tmp_path / "exam", ARRAY[:, :, :1])
    content = (folder / "IM0").read_bytes()
    at = content.index(struct.pack("<HH2s", 0x28, 0x10, b"US"))
    (folder / "IM0").write_bytes(content[: at + 10] + content[at:])
    refusal(folder, "rows stands there twice")


@pytest.mark.parametrize("allocated, stored, high", [(12, 12, 11), (16, 17, 16), (16, 12, 20), (0, 0, 0), (64, 64, 63)])
def test_bits_that_do_not_fit_are_refused(tmp_path, allocated, stored, high):
    refusal(changed(tmp_path / "exam", BitsAllocated=allocated, BitsStored=stored, HighBit=high), "bits in")


def compressed(tmp_path, name, change):
    """One of the compressed images with its first frame changed."""
    file = elements.read_elements(COMPRESSED / name)
    at, length = file.pieces[0]
    content = (COMPRESSED / name).read_bytes()
    frame = change(content[at : at + length])
    path = tmp_path / name
    path.write_bytes(content[: at - 4] + struct.pack("<I", len(frame)) + frame + content[at + length :])
    return path


@pytest.mark.parametrize("name", ["jpeg-lossless.dcm", "jpeg-ls.dcm", "jpeg-2000.dcm"])
@pytest.mark.parametrize(
    "change",
    [lambda frame: frame[: len(frame) // 4 * 2], lambda frame: frame[2:], lambda frame: b"", lambda frame: bytes(500)],
    ids=["half", "no start", "empty", "zeros"],
)
def test_a_damaged_compressed_frame_is_refused_before_it_is_decoded(tmp_path, name, change, monkeypatch):
    monkeypatch.setattr(decoder, "decode", lambda *args: pytest.fail("it was decoded"))
    refusal(compressed(tmp_path, name, change), "damaged DICOM file|cut off")


@pytest.mark.parametrize("name, marker, at", [("jpeg-lossless.dcm", b"\xff\xc3", 5), ("jpeg-ls.dcm", b"\xff\xf7", 5),
                                              ("jpeg-2000.dcm", b"\xff\x51", 8)])  # fmt: skip
def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path, name, marker, at, monkeypatch):
    def larger(frame):
        place = frame.index(marker) + at
        return frame[:place] + b"\x7f" + frame[place + 1 :]

    monkeypatch.setattr(decoder, "decode", lambda *args: pytest.fail("it was decoded"))
    refusal(compressed(tmp_path, name, larger), "compressed pixels are")


def test_a_compressed_frame_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(pixels, "_MOST_COMPRESSED", 96 * 80 - 1)
    refusal(COMPRESSED / "jpeg-2000.dcm", "more than 7,679 pixels")


def test_a_decoder_that_dies_or_hangs_costs_one_file(monkeypatch):
    file = COMPRESSED / "jpeg-lossless.dcm"
    expected = read_volume(file).array
    first = decoder._Process.current()
    monkeypatch.setattr(first._child.stdin, "write", lambda data: first._child.kill())
    refusal(file, "cannot be decoded")
    np.testing.assert_array_equal(read_volume(file).array, expected)
    second = decoder._Process.current()
    assert second is not first and not Path(first._folder.name).exists()
    monkeypatch.setattr(decoder, "SECONDS", 0.0)  # the guard fires at once
    refusal(file, "cannot be decoded")
    monkeypatch.undo()
    np.testing.assert_array_equal(read_volume(file).array, expected)


def test_an_answer_that_comes_too_late_is_never_the_next_frames(monkeypatch):
    expected = read_volume(COMPRESSED / "jpeg-ls.dcm").array
    process = decoder._Process.current()

    def interrupted(count):
        raise KeyboardInterrupt

    monkeypatch.setattr(process._child.stdout, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_volume(COMPRESSED / "jpeg-2000.dcm")
    assert process._child.poll() is not None
    np.testing.assert_array_equal(read_volume(COMPRESSED / "jpeg-ls.dcm").array, expected)


def test_the_decoder_is_kept_and_leaves_no_file(tmp_path):
    read_volume(COMPRESSED / "jpeg-ls.dcm")
    process = decoder._Process.current()
    read_volume(COMPRESSED / "jpeg-2000.dcm")
    assert decoder._Process.current() is process
    folder = Path(process._folder.name)
    assert list(folder.iterdir()) == [] and folder.stat().st_mode & 0o77 == 0
    process.end()
    assert not folder.exists() and process._child.poll() is not None


# ---- memory that was never written to --------------------------------------------------------------------------------


@pytest.fixture(params=[0x00, 0x5A, 0xC3])
def poison(request, monkeypatch):
    """Fresh arrays are filled with one value; so is the decoder's memory."""
    empty = np.empty

    def filled(*args, **options):
        array = empty(*args, **options)
        array.T.reshape(-1).view("u1")[:] = request.param
        return array

    monkeypatch.setattr(np, "empty", filled)
    monkeypatch.setattr(decoder, "_SCRIBBLE", {"MALLOC_PERTURB_": str(request.param or 1)})
    monkeypatch.setattr(decoder._Process, "_current", None)
    yield
    decoder._Process.current().end()


def test_no_voxel_is_memory_that_was_never_written_to(tmp_path, poison):
    """Every way of reading, with memory that is full of something: what is read is what was stored."""
    array = voxels((3, 9, 7))
    for encoding in ("raw", "gzip"):
        write_nrrd(tmp_path / "a.nrrd", array, encoding)
        np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, array)
    frames = voxels((5, 3, 9, 7))
    fields = {"kinds": "list domain domain domain", "space": "LPS"}
    write_nrrd(tmp_path / "b.nrrd", frames, "gzip", **fields, **{"space directions": "none (1,0,0) (0,2,0) (0,0,3)"})
    for frame in range(5):
        np.testing.assert_array_equal(read_volume(tmp_path / "b.nrrd", frame=frame).array, frames[frame])
    np.testing.assert_array_equal(read_volume(write_classic(tmp_path / "exam")).array, ARRAY)
    np.testing.assert_array_equal(read_volume(write_enhanced(tmp_path / "many" / "IM")).array, ARRAY)
    rle = write_enhanced(tmp_path / "rle" / "IM", syntax=RLELossless)
    np.testing.assert_array_equal(read_volume(rle).array, ARRAY)
    for name in ("jpeg-lossless", "jpeg-ls", "jpeg-2000"):
        np.testing.assert_array_equal(read_volume(COMPRESSED / f"{name}.dcm").array, compressed_image())


def test_a_damaged_frame_gives_the_same_pixels_or_none_whatever_was_in_memory(tmp_path):
    """GDCM goes on after some kinds of damage; what it makes of them must not come from elsewhere."""
    rng, cases = np.random.default_rng(0), []
    for name in ("jpeg-lossless", "jpeg-2000"):
        file = elements.read_elements(COMPRESSED / f"{name}.dcm")
        at, length = file.pieces[0]
        frame = (COMPRESSED / f"{name}.dcm").read_bytes()[at : at + length]
        for _ in range(6):
            damaged = bytearray(frame)
            damaged[rng.integers(200, length - 9)] ^= 0x10
            cases.append((file.syntax, bytes(damaged), pixels.pixel_form(file)))
    answers = []
    for fill in ("90", "195"):
        decoder._Process.current().end()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoder, "_SCRIBBLE", {"MALLOC_PERTURB_": fill})
            answers.append([decoded(*case) for case in cases])
        decoder._Process.current().end()
    assert answers[0] == answers[1] and any(answers[0])


def decoded(*case):
    try:
        return decoder.decode(*case).tobytes()
    except ValueError:
        return b""


def compressed_image():
    """What the files in Testing/data/dicom hold, [i, j, k]."""
    i, j, k = np.indices((96, 80, 2))
    return ((37 * i + 11 * j + 500 * k + (i * j) % 17) % 4096).astype(np.uint16)
