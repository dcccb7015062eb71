from __future__ import annotations

import re
from dataclasses import dataclass, fields

import pytest

from zerolabel.errors import UsageError
from zerolabel.methods import METHODS, find
from zerolabel.methods.configs import configure


@dataclass(frozen=True, kw_only=True)
class Config:
    k: int | str = "auto"
    steps: int = 3
    rate: float = 0.5
    name: str = "a"
    loops: bool = True
    size: tuple[int, int] = (224, 224)


KINDS = {field.name: field.type for field in fields(Config)}
PRESETS = {"default": Config(), "quick": Config(steps=1)}


def changed(**changes):
    return configure(PRESETS, "default", changes)


def test_a_preset_is_the_start_and_none_changes_nothing():
    assert configure(PRESETS, "quick", {}) is not None
    assert configure(PRESETS, "quick", {"rate": None, "steps": None}) == Config(steps=1)
    assert configure(PRESETS, "quick", {"rate": 2}) == Config(steps=1, rate=2.0)
    assert PRESETS["quick"] == Config(steps=1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("k", "auto", "auto"),
        ("k", "12", 12),
        ("k", 12, 12),
        ("k", "twelve", "twelve"),
        ("steps", "7", 7),
        ("steps", 7.0, 7),
        ("steps", "-2", -2),
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("name", "b", "b"),
        ("name", "7", "7"),
        ("loops", False, False),
        ("loops", "no", False),
        ("loops", "False", False),
        ("loops", "0", False),
        ("loops", 0, False),
        ("loops", "Yes", True),
        ("loops", "true", True),
        ("loops", 1, True),
        ("size", 96, (96, 96)),
        ("size", "96", (96, 96)),
        ("size", "96x128", (96, 128)),
        ("size", "96X128", (96, 128)),
        ("size", [96, 128], (96, 128)),
        ("size", (96, 128), (96, 128)),
        ("size", [96], (96, 96)),
    ],
)
def test_values_as_typed_on_a_command_line_or_in_yaml(name, value, expected):
    found = getattr(changed(**{name: value}), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("k", value) for value in (True, 2.5, [3])],
        *[("steps", value) for value in ("many", "2.5", 2.5, True, [1], "", float("inf"), "nan")],
        *[("rate", value) for value in ("fast", True, "nan", float("inf"), [0.5])],
        *[("name", value) for value in (3, True, ["a"])],
        *[("loops", value) for value in ("maybe", 2, "", [True])],
        *[("size", value) for value in ("96x", "axb", "1x2x3", [], [1, 2, 3], 0, "0x8", "8x-8")],
        *[("size", value) for value in (96.5, [96.5, 96], True, [True, True], "wide")],
    ],
)
def test_values_of_another_type_are_explained(name, value):
    with pytest.raises(UsageError, match=re.escape(f"{name} must be of type {KINDS[name]}, got ")):
        changed(**{name: value})


def test_unknown_names_are_explained():
    with pytest.raises(UsageError, match="Unknown preset 'defualt'.*Did you mean 'default'"):
        configure(PRESETS, "defualt", {})
    with pytest.raises(UsageError, match="Unknown setting 'step'.*Did you mean 'steps'"):
        changed(step=3)
    with pytest.raises(UsageError, match="Unknown method 'datsu'.*Did you mean 'datus'"):
        find("datsu")


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_can_be_typed_and_is_documented(name):
    presets = find(name).PRESETS
    for preset, config in presets.items():
        typed = {}
        for field in fields(config):
            value = getattr(config, field.name)
            between = "x" if field.type == "tuple[int, int]" else ","
            typed[field.name] = (
                between.join(map(str, value)) if isinstance(value, tuple) else str(value)
            )
        assert configure(presets, preset, typed) == config
    documented = " ".join(kind.__doc__ for kind in type(config).__mro__[:-1])
    assert [field.name for field in fields(config) if field.name not in documented] == []
