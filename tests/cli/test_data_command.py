import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from zerolabel.cli.data import data
from zerolabel.data.layouts import LAYOUTS
from zerolabel.data.planted import plant
from zerolabel.data.spaces import SPACES, space
from zerolabel.errors import DataError


def run(*args):
    return CliRunner().invoke(data, [str(arg) for arg in args], standalone_mode=False)


def test_listing_names_every_data_set_and_label_space():
    lines = run("list").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*LAYOUTS, "folder"]
    for name, owner in SPACES.items():
        (line,) = [line for line in lines if line.startswith(f"{owner} ")]
        assert f"{name} ({len(space(name).classes)})" in line


def test_a_whole_data_set(tmp_path):
    base = plant("voc", tmp_path, images=2, size=(12, 16))
    result = run("check", tmp_path)
    assert result.return_value == 0
    lines = result.output.splitlines()
    assert f"voc: PASCAL VOC 2012 in {base}" in lines
    assert "label space voc21, 21 classes" in lines
    assert "val         2      2      2       2" in lines
    assert any(" of 21 classes never occur: " in line for line in lines)
    assert lines[-1] == "all is well"


def test_findings_are_printed_and_written(tmp_path):
    base = plant("camvid", tmp_path, images=5, size=(12, 16), splits=["val"])
    for path in (base / "valannot").iterdir():
        Image.fromarray(np.full((12, 16), 77, np.uint8)).save(path)
    out = tmp_path / "found.json"
    result = run("check", base, "--split", "val", "--space", "camvid11", "--json", out)
    assert result.return_value == 3
    assert (
        "val: FOUND 5 masks with a value that the label space lacks (77): planted_000000.png, "
        "planted_000001.png, planted_000002.png and 2 more\n1 finding\n"
    ) in result.output
    written = json.loads(out.read_text())
    assert written["findings"] == 1
    assert len(written["splits"]["val"]["findings"][0]["items"]) == 5


def test_regions_have_no_label_space(tmp_path):
    plant("bsds500", tmp_path, images=1, size=(12, 16))
    result = run("check", tmp_path)
    assert result.return_value == 0
    assert "regions of several annotators, no classes" in result.output


def test_no_data_set(tmp_path):
    assert isinstance(run("check", tmp_path).exception, DataError)


@pytest.mark.slow
def test_exit_codes_and_no_torch(tmp_path):
    plant("camvid", tmp_path, images=1, size=(12, 16))
    script = (
        "import sys\nfrom zerolabel.cli.main import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    next((tmp_path / "CamVid/val").iterdir()).write_bytes(b"torn")
    for root, code in ((tmp_path / "CamVid", 3), (empty, 1), (tmp_path / "nowhere", 2)):
        arguments = [sys.executable, "-c", script, "data", "check", str(root)]
        assert subprocess.run(arguments, check=False, capture_output=True).returncode == code
