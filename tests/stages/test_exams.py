"""Students judged by labels: patches' classes, and a score that the evaluation would give too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planted import broken

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.confusion import scores
from zerolabel.ops.regions import patch_labels
from zerolabel.stages import exams
from zerolabel.store import Store
from zerolabel.types import Sample


class Said(torch.nn.Module):
    """Says what it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def decode(self, x):
        assert not self.training
        return x * self.weight, None


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_patches_get_the_class_that_evaluation_gives_them(seed):
    generator = np.random.default_rng(seed)
    size, grid = generator.integers(3, 12, 2), generator.integers(1, 8, 2)
    label = generator.choice(np.array([0, 1, 2, 7, 255], np.uint8), tuple(size))
    expected = patch_labels(label, tuple(grid), 8)
    assume((expected < 255).any())
    sample = Sample("a", lambda: None, lambda: "", lambda: label)
    found = exams.prepare(lambda shard: None, [sample], tuple(grid), store=Store()).labels["a"]
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_score_is_that_of_the_evaluation(seed, C, K):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 20, (C, K + 1)) * generator.integers(0, 2, (C, K + 1))
    counts[0, 0] += 1
    counts[:, -1] = 0
    found = scores(counts, matching="hungarian")
    assert exams.score(counts) == pytest.approx(found.miou + found.pixel_accuracy)


def labelled(*labels):
    image = np.zeros((4, 4, 3), np.uint8)
    return [from_arrays(f"{i}.png", image, label) for i, label in enumerate(labels)]


def torn():
    raise DataError("cannot be read")


def prepared(samples, logits, *, per=2):
    """An exam over shards of so many images, whose student is shown its own answers."""
    shards = [range(i, min(i + per, len(samples))) for i in range(0, len(samples), per)]
    exam = exams.prepare(
        lambda i: (logits[list(shards[i])], [samples[j] for j in shards[i]]),
        samples,
        (2, 2),
        store=Store(),
    )
    return exam, len(shards)


def test_a_student_that_knows_all_has_both_scores_whatever_it_calls_the_classes():
    halves = np.repeat([[0, 0, 1, 1]], 4, 0)
    samples = labelled(halves, None, halves[:, ::-1])
    logits = torch.zeros(3, 2, 2, 2)
    logits[0, 1, :, 0] = logits[0, 0, :, 1] = 1  # class 0 is its category 1
    logits[2, 0, :, 0] = logits[2, 1, :, 1] = 1
    logits[1, 1] = 9  # has no label
    exam, shards = prepared(samples, logits)
    assert set(exam.labels) == {samples[0].id, samples[2].id}
    assert exam.classes == 2
    assert exams.judge(Said(), exam, shards=shards) == pytest.approx(2)
    logits[2] = logits[0]  # half of the patches are wrong, of either class
    assert exams.judge(Said(), exam, shards=shards) == pytest.approx(1 / 3 + 1 / 2)


def test_classes_that_do_not_occur_count_if_something_is_taken_for_them():
    samples = [replace(s, classes=("a", "b", "c")) for s in labelled(np.zeros((4, 4), int))]
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0] = 1  # one half
    exam, shards = prepared(samples, logits)
    assert exam.classes == 3
    # class 0: one half found; the other category is matched to a class that no patch has
    assert exams.judge(Said(), exam, shards=shards) == pytest.approx(0.5 / 2 + 0.5)


def test_labels_that_cannot_be_read_are_left_out_and_without_any_there_is_no_exam():
    ok, empty, other = labelled(*(np.full((4, 4), value) for value in (1, 255, 1)))
    samples = [ok, empty, replace(other, load_label=torn), broken("b.png")]
    exam, _ = prepared(samples, torch.zeros(4, 2, 2, 2))
    assert set(exam.labels) == {ok.id}
    with pytest.raises(UsageError, match="select=last"):
        prepared(samples[1:], torch.zeros(3, 2, 2, 2))


def test_the_digest_is_that_of_the_labels():
    samples = world(3, images=3, size=(32, 32))
    one, same = (exams.prepare(lambda i: None, samples, (4, 4), store=Store()) for _ in range(2))
    other = exams.prepare(lambda i: None, samples[1:], (4, 4), store=Store())
    assert one.digest == same.digest != other.digest
