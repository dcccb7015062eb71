"""The two commands for newcomers, run as they are typed."""

import json

import pytest
from click.testing import CliRunner

from zerolabel.cli.demo import demo
from zerolabel.cli.doctor import doctor


@pytest.mark.slow
def test_demo_segments_a_planted_world_and_says_which_images_are_real(tmp_path):
    result = CliRunner().invoke(demo, ["--out", str(tmp_path / "demo")])
    assert result.exception is None, result.output
    assert "PLANTED" in result.output
    assert "REAL" in result.output
    for run in ("world", "photos"):
        assert (tmp_path / "demo" / run / "report" / "index.html").is_file()
    found = json.loads((tmp_path / "demo" / "world" / "evaluation-full.json").read_text())
    assert found["miou"] > 0.9


@pytest.mark.slow
def test_doctor_finds_this_environment_usable():
    result = CliRunner().invoke(doctor, [], standalone_mode=False)
    assert result.exception is None, result.output
    assert not result.return_value
    for part in ("environment", "devices", "weights", "torch"):
        assert part in result.output
