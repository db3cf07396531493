"""A new format is one object that is registered; nothing else has to know of it. The toy here is such a one."""

import struct

import numpy as np
import pytest
from grids import make_grid

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats import registry
from PedBoneSegLib.formats.header import Header
from PedBoneSegLib.formats.names import check_output, split_name
from PedBoneSegLib.formats.reading import find_inputs, read_volume
from PedBoneSegLib.formats.registry import register
from PedBoneSegLib.formats.segments import read_segmentation
from PedBoneSegLib.formats.writing import write_labels
from PedBoneSegLib.volume import Grid


class Toy:
    """Three sizes of 16 bits each, then 8-bit voxels of 1 mm."""

    name = "toy image"
    reads = (".toy", ".toyz")
    writes = (".toy",)

    def read_header(self, path, stream):
        size = struct.unpack("<3H", stream.read(6))
        return Header(Grid.from_affine(size, np.eye(4)), np.dtype("u1"), data=path, start=6)

    def write(self, stream, content, suffix):
        stream.write(struct.pack("<3H", *content.grid.size))
        stream.write(content.components[0].tobytes("F"))


@pytest.fixture
def toy():
    register(Toy())
    yield
    registry._formats.pop()


def test_a_format_from_outside_is_read_and_written_like_any_other(tmp_path, toy):
    labels, grid = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 5, make_grid((2, 3, 4), (1, 1, 1), (0, 0, 0))
    path = tmp_path / "knee.toy"
    check_output(path)
    write_labels(path, labels, grid, joint_table("knee"))
    assert split_name(path) == ("knee", ".toy") and find_inputs(tmp_path) == [path]
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, labels)
    assert volume.grid == grid and volume.name == "knee"
    np.testing.assert_array_equal(read_segmentation(path, "knee")[0], labels)
    path.write_bytes(path.read_bytes()[:-1])  # what every format is refused for is not the format's to check
    with pytest.raises(BadInput, match="knee.toy is truncated"):
        read_volume(path)
    path.write_bytes(b"\0")
    with pytest.raises(BadInput, match="knee.toy has a damaged header"):
        read_volume(path)
    with pytest.raises(BadInput, match="cannot be written|none that can be written; use one of .*, .toy"):
        check_output(tmp_path / "knee.toyz")


def test_an_ending_that_is_taken_is_a_bug(toy):
    with pytest.raises(ValueError, match=r"toy image: .*\.toy"):
        register(Toy())


def test_the_formats_of_the_package_are_found_by_their_files():
    assert [known.name for known in registry.formats()] == ["MetaImage", "NIfTI", "NRRD"]
    assert registry.written_suffixes() == (".nii.gz", ".nii", ".seg.nrrd", ".nrrd")
