import os
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from zerolabel.backbones.cache import key
from zerolabel.data.folder import from_arrays
from zerolabel.types import Sample


def sample(name="a.png", grey=0):
    return from_arrays(name, np.full((2, 2, 3), grey, np.uint8))


@dataclass(frozen=True)
class Options:
    size: tuple[int, int] = (224, 224)
    seed: int = 0


def test_a_key_is_a_folder_and_a_file_name():
    assert re.fullmatch(r"tokens/[0-9a-f]{24}", key("tokens", [sample()], "digest", (224, 224)))
    assert re.fullmatch(r"tokens/[0-9a-f]{24}", key("tokens", []))


def test_everything_that_a_result_depends_on_changes_the_key():
    batch = [sample("a.png", 1), sample("b.png", 2)]
    keys = [
        key("tokens", batch, "digest", (224, 224)),
        key("regions", batch, "digest", (224, 224)),
        key("tokens", batch[::-1], "digest", (224, 224)),
        key("tokens", batch[:1], "digest", (224, 224)),
        key("tokens", [sample("a.png", 1), sample("b.png", 3)], "digest", (224, 224)),
        key("tokens", [sample("a.png", 1), sample("c.png", 2)], "digest", (224, 224)),
        key("tokens", batch, "digits", (224, 224)),
        key("tokens", batch, "digest", (224, 448)),
        key("tokens", batch, "digest", 224, 224),
        key("tokens", batch, Options()),
        key("tokens", batch, Options(seed=1)),
        key("tokens", batch, {"k": 1}),
        key("tokens", batch, {"k": "1"}),
        key("tokens", batch, b"mean"),
        key("tokens", batch, 1, "2"),
        key("tokens", batch, "2", 1),
        key("tokens", batch, 1, 2),
        key("tokens", batch),
    ]
    assert len(set(keys)) == len(keys)


def test_names_cannot_be_confused_with_digests_or_with_each_other():
    def named(*pairs):
        return [Sample(name, lambda: None, lambda d=digest: d) for name, digest in pairs]

    keys = {
        key("t", named(("a", "1"), ("b", "2"))),
        key("t", named(("a", "1b 2"))),
        key("t", named(("a' 1'b", "2"))),
        key("t", named(("a 1", ""), ("b", "2"))),
    }
    assert len(keys) == 4


def test_the_same_work_has_the_same_key_in_every_process():
    code = (
        "from zerolabel.backbones.cache import key; from zerolabel.types import Sample;"
        "print(key('tokens', [Sample('ü.png', None, lambda: 'ff')], 'net', (1, 2), {'k': 'x'}))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = key("tokens", [Sample("ü.png", None, lambda: "ff")], "net", (1, 2), {"k": "x"})
    assert keys == {here}
