import os
from dataclasses import asdict

import pytest
import torch
from small_training import noise_pool, run, small, trainer

from zerolabel.errors import StoreError
from zerolabel.training import checkpoint


def test_what_is_saved_comes_back(tmp_path):
    content = {"a": torch.arange(3), "b": {"c": [1.5, "x", None], "d": (1, 2)}}
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, content)
    found = checkpoint.load(path)
    assert torch.equal(found["a"], content["a"])
    assert found["b"] == content["b"]
    assert os.listdir(tmp_path) == ["checkpoint.pt"]  # no half-written file is left


def test_a_damaged_checkpoint_is_explained(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"a": torch.arange(1000)})
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[:-100], b"\x80\x02]."):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"checkpoint\.pt is damaged \(.+\)\. Delete it"):
            checkpoint.load(path)


@pytest.mark.parametrize("content", [{"format": 0}, {"a": 1}, [1, 2]])
def test_a_checkpoint_of_another_version_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(StoreError, match="no checkpoint of this version. Choose another --out"):
        checkpoint.load(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": checkpoint.FORMAT, "code": os.system}, path)
    with pytest.raises(StoreError, match="is damaged"):
        checkpoint.load(path)


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, trainer(small(lr=0.01)).state())
    state = checkpoint.load(path)
    trainer(small(lr=0.01)).restore(state)
    with pytest.raises(StoreError, match=r"other settings: lr was 0\.01, is 0\.03\. Give the same"):
        trainer(small()).restore(state)
    state["config"] = {**asdict(small()), "forgotten": 1}
    with pytest.raises(StoreError, match="forgotten was 1, is None"):
        trainer(small()).restore(state)


def same(a, b):
    """Whether two states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "dino", "dense": "ibot", "koleo": 0.1, "warmup": 0.4, "freeze": 0.3},
        {"objective": "infonce", "dense": "match", "symmetric": False, "rows": "both"},
    ],
    ids=["dino", "infonce"],
)
def test_a_run_goes_on_exactly(tmp_path, settings):
    config = small(drop_path=0.3, **settings)
    pools = [noise_pool(24), noise_pool(16, seed=1)]
    options = {"pools": pools, "shares": (2, 1)}
    whole = trainer(config)
    seen = run(whole, 6, **options)

    first = trainer(config)
    looks = first.run(pools, shares=[2, 1], steps=6, look_every=1)
    parts = [next(looks) for _ in range(3)]
    checkpoint.save(tmp_path / "checkpoint.pt", first.state())
    next(looks)  # what came after the checkpoint is lost

    torch.manual_seed(99)  # the global state has no say
    second = trainer(config)
    second.restore(checkpoint.load(tmp_path / "checkpoint.pt"))
    assert second.step == 3
    parts += run(second, 6, **options)
    assert [look.values for look in parts] == [look.values for look in seen]
    assert [(look.step, look.images) for look in parts] == [(n, 8 * n) for n in range(1, 7)]
    ends = [made.state() for made in (whole, second)]
    for name in ("student", "teacher", "optimiser", "centres", "step", "total"):
        assert same(ends[0][name], ends[1][name]), name
    assert not same(ends[0]["student"], first.state()["student"])
