"""Commands as they are typed."""

import pytest

from zerolabel.cli.main import main


@pytest.fixture
def typed(monkeypatch, capsys):
    """Words behind `zerolabel` -> exit status, stdout and stderr; a traceback fails the test."""

    def typed(*words):
        monkeypatch.setattr("sys.argv", ["zerolabel", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code, out, err

    return typed
