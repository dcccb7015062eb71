import pytest
from click.testing import CliRunner
from reference.evaluation_files import evaluation, leave

from zerolabel.cli.main import cli


@pytest.fixture
def call():
    return lambda *words: CliRunner().invoke(cli, ["compare", *map(str, words)])


def test_the_table_has_every_number_with_protocol_images_k_c_and_seeds(call, tmp_path):
    runs = [leave(tmp_path, f"a{s}", evaluation(0.3 + s / 50, seed=s)) for s in (0, 1)]
    runs += [
        leave(tmp_path, f"b{s}", evaluation(0.4 + s / 50, seed=s, run={"method": "datus"}))
        for s in (0, 1)
    ]
    found = call(*runs)
    assert found.exit_code == 0, found.output
    words = "protocol full, voc val, label space voc21, 4 images, C = 2"
    assert words in found.output
    assert "one category everywhere: mIoU 5.0, pixel accuracy 50.0" in found.output
    lines = {line.split()[0]: line.split() for line in found.output.splitlines() if line.strip()}
    assert lines["kmeans"][2:9] == "2 2 0,1 31.0 +- 1.4 -".split()
    assert lines["datus"][2:10] == "2 2 0,1 41.0 +- 1.4 +10.0 *".split()
    assert "published, other data" in found.output  # ACSeg on the same rules
    assert "written" not in found.output


def test_several_columns_come_with_one_table_over_all_and_notes(call, tmp_path):
    run = leave(tmp_path, "a", evaluation(0.3))
    leave(tmp_path, "a", evaluation(0.2, rules={"id": "datus"}))
    other = leave(tmp_path, "b", evaluation(0.4, run={"method": "datus"}))
    found = call(run, other, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    table = found.output.split("\n\n")[1].splitlines()
    assert table[0].split("  ")[-1].strip() == "voc val voc21, datus"
    assert table[2].split()[2:] == ["40.0", "(+10.0", "?)", "-"]
    assert "note: voc val voc21, datus cannot be compared with voc val voc21, full" in found.output
    assert (tmp_path / "out" / "index.html").is_file()
    assert found.output.count("written: ") == 3


def test_wrong_usage(call, tmp_path):
    run = leave(tmp_path, "a", evaluation(0.3))
    assert call().exit_code == 2
    assert call(run, "--grid", "0").exit_code == 2
    assert call(run, "--against", "last").exit_code == 2
    assert call(tmp_path / "missing").exit_code == 2
