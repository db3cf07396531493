"""What the campaign against hostile inputs has found once stays mended: its corpus, case by case."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))
import campaign

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is told by /proc")


@LINUX
@pytest.mark.parametrize("case", campaign.corpus(), ids=lambda case: f"{case.parent.name}-{case.name}")
def test_what_was_found_once_stays_mended(case):
    assert campaign.replay(case).fault == ""


def test_a_case_is_the_same_whenever_it_is_made(tmp_path):
    attack = campaign.attacks(["nrrd"])["nrrd"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        attack.write(random.Random("nrrd/3/14"), tmp_path / name)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1] != {}


def test_a_fault_is_kept_with_its_files_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "CORPUS", tmp_path)
    toy = campaign.Attack(
        "toy",
        lambda rng, folder: (folder / "a").write_bytes(rng.randbytes(9)) and None,
        lambda folder: campaign.Outcome("bug", f"{len((folder / 'a').read_bytes())} bytes"),
    )
    monkeypatch.setattr(campaign, "attacks", lambda only=None: {"toy": toy})
    name, number, outcome = next(campaign.campaign({"toy": toy}, 5, 60))
    assert (name, number, outcome.fault) == ("toy", 0, "9 bytes")
    [case] = campaign.corpus()
    assert case == tmp_path / "toy" / "5-0" and (case / campaign.FAULT).read_text() == "9 bytes\n"
    assert campaign.replay(case) == outcome
