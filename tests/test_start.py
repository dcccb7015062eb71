"""The entry of a fresh clone: when it installs, what it refuses, what it runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start.py in a clone of its own, with every program it would call written down instead."""
    clone = tmp_path / "a clone"  # with a space: pip cuts PIP_CONSTRAINT at spaces
    clone.mkdir()
    for name in ("start.py", "pyproject.toml", "constraints.txt"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    spec = importlib.util.spec_from_file_location("start_of_a_clone", clone / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    calls = []

    def call(command, **options):
        calls.append((command, options))
        if "venv" in command:
            place = module.python_of(Path(command[-1]))
            place.parent.mkdir(parents=True)
            place.touch()
            (place.parent.parent / "pyvenv.cfg").touch()
        return 0

    monkeypatch.delenv("ZEROLABEL_VENV", raising=False)
    monkeypatch.setattr(module.subprocess, "call", call)
    monkeypatch.setattr(
        module, "hand_over", lambda command, folder: calls.append((command, folder))
    )
    module.calls, module.clone = calls, clone
    return module


def installed(start):
    """What pip was asked to install since the last look."""
    found = [command[-1] for command, _ in start.calls if "install" in command]
    start.calls.clear()
    return found


def test_torch_comes_first_and_pinned_and_the_second_call_installs_nothing(start):
    start.main(["segment", "x", "--out", "y"])
    pip = [(command, options) for command, options in start.calls if "install" in command]
    for _, options in pip:
        assert options["cwd"] == start.clone
        assert options["env"]["PIP_CONSTRAINT"] == "constraints.txt"
    first, second = installed(start)
    assert first.startswith("torch==")
    assert second == "."
    start.main(["doctor"])
    assert not installed(start)


def test_tests_need_more_than_use_and_use_is_content_with_it(start):
    start.main(["segment"])
    installed(start)
    start.main(["test"])
    assert installed(start)[-1] == ".[dev]"
    start.main(["segment"])
    assert not installed(start)


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_list_of_packages_is_installed_with_what_was_there(start, name):
    start.main(["setup"])
    installed(start)
    with open(start.clone / name, "a") as file:
        file.write("\n# changed\n")
    start.main(["segment"])
    assert installed(start)[-1] == ".[dev]"


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_stamp_counts_as_none(start, damage):
    start.main(["segment"])
    installed(start)
    (start.clone / ".venv" / start.STAMP).write_text(damage)
    start.main(["segment"])
    assert len(installed(start)) == 2


def test_an_interrupted_installation_is_gone_on_with(start, monkeypatch, capsys):
    good = start.subprocess.call
    monkeypatch.setattr(start.subprocess, "call", lambda c, **o: "install" in c or good(c, **o))
    assert start.main(["segment"]) == 1
    assert "pip could not install torch==" in capsys.readouterr().err
    monkeypatch.setattr(start.subprocess, "call", good)
    start.main(["segment"])
    assert len(installed(start)) == 2


def test_an_environment_whose_python_is_gone_is_made_again(start):
    start.main(["segment"])
    start.python_of(start.clone / ".venv").unlink()
    start.python_of(start.clone / ".venv").parent.rmdir()
    start.calls.clear()
    start.main(["segment"])
    assert ["venv" in command for command, _ in start.calls][0]


def test_a_folder_that_is_no_environment_is_left_alone(start, monkeypatch, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    monkeypatch.setenv("ZEROLABEL_VENV", str(tmp_path / "mine"))
    assert start.main(["segment"]) == 1
    assert "is no virtual environment" in capsys.readouterr().err
    assert not start.calls


def test_the_environment_can_be_elsewhere(start, monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROLABEL_VENV", str(tmp_path / "there"))
    start.main(["doctor"])
    stamp = json.loads((tmp_path / "there" / start.STAMP).read_text())
    assert stamp["development"] is False
    assert not (start.clone / ".venv").exists()


def test_commands_run_where_the_user_is_and_work_runs_in_the_clone(start, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    start.main(["segment", "photos", "--out", "run"])
    command, folder = start.calls[-1]
    assert command[1:] == ["-m", "zerolabel", "segment", "photos", "--out", "run"]
    assert folder == tmp_path
    start.main(["test", "-k", "ops"])
    command, folder = start.calls[-1]
    assert command[1:3] == ["-m", "pytest"]
    assert command[-2:] == ["-k", "ops"]
    assert folder == start.clone


def test_results_are_a_recipe_and_the_page_it_writes(start):
    start.main(["results", "data"])
    command, folder = start.calls[-1]
    page = "docs/results.md"
    assert command[1:] == ["-m", "zerolabel", "reproduce", "results", "--page", page, "data"]
    assert folder == start.clone


def test_the_first_failing_step_of_a_check_ends_it(start, monkeypatch):
    start.main(["setup"])
    monkeypatch.setattr(start.subprocess, "call", lambda command, **options: 7)
    start.calls.clear()
    assert start.main(["check"]) == 7
    assert not start.calls


def test_an_old_python_is_told_so(start, monkeypatch, capsys):
    monkeypatch.setattr(start.sys, "version_info", (3, 9))
    assert start.main(["segment"]) == 1
    assert "needs Python 3.10 or newer" in capsys.readouterr().err


def test_without_words_it_explains_itself_and_installs_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "start.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "segment PHOTOS" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_exit_code_is_that_of_the_command(tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; import start; "
        "start.hand_over([sys.executable, '-c', 'raise SystemExit(3)'], Path('.'))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path).returncode == 3
