import pytest
import torch
from small_training import small

from zerolabel.training.optimiser import clip, groups
from zerolabel.training.twin import follow, make_twins


def parameters(*gradients):
    found = []
    for gradient in gradients:
        found.append(torch.nn.Parameter(torch.zeros(2)))
        found[-1].grad = None if gradient is None else torch.tensor(gradient)
    return found


def test_every_gradient_is_shortened_by_itself():
    values = parameters([3.0, 4.0], [0.3, 0.4], None, [0.0, 0.0])
    clip(values, 1.0)
    torch.testing.assert_close(values[0].grad, torch.tensor([0.6, 0.8]))
    assert values[1].grad.tolist() == pytest.approx([0.3, 0.4])  # not shortened with the others
    assert values[2].grad is None
    assert values[3].grad.tolist() == [0, 0]


def test_a_limit_of_zero_leaves_gradients_alone():
    values = parameters([30.0, 40.0])
    clip(values, 0.0)
    assert values[0].grad.tolist() == [30, 40]
    clip([], 1.0)


def test_matrices_decay_and_nothing_else():
    student, _ = make_twins(small(dense="ibot"))
    names = {id(value): name for name, value in student.named_parameters()}
    decayed, plain = ({names[id(value)] for value in part} for part in groups(student))
    assert not decayed & plain
    assert decayed | plain == set(names.values())
    assert all(name.endswith(".weight") for name in decayed)
    assert {"backbone.cls_token", "backbone.pos_embed", "mask_token"} <= plain
    assert {"head.prototypes", "dense_head.prototypes"} <= plain
    assert {name for name in names.values() if "norm" in name or name.endswith("bias")} <= plain
    assert {"backbone.blocks.0.attn.qkv.weight", "head.mlp.0.weight"} <= decayed
    assert {"backbone.patch_embed.stages.0.conv.weight"} <= decayed


def test_the_teacher_starts_as_a_copy_that_needs_no_gradient():
    student, teacher = make_twins(small(drop_path=0.2))
    for (name, mine), other in zip(student.named_parameters(), teacher.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.data_ptr() != other.data_ptr(), name
        assert mine.requires_grad
        assert not other.requires_grad
    assert student.training
    assert not teacher.training
    rates = [block.drop_path.rate for block in student.backbone.blocks]
    assert rates == pytest.approx([0.2 * i / 3 for i in range(4)])


@pytest.mark.parametrize("momentum", [1.0, 0.9, 0.0])
def test_the_teacher_follows(momentum):
    student, teacher = make_twins(small())
    with torch.no_grad():
        for value in student.parameters():
            value.add_(1)
    before = [value.clone() for value in teacher.parameters()]
    follow(teacher, student, momentum=momentum)
    for old, new, mine in zip(before, teacher.parameters(), student.parameters(), strict=True):
        expected = momentum * old + (1 - momentum) * mine
        torch.testing.assert_close(new, expected, atol=1e-6, rtol=0)
        if momentum in (0, 1):
            assert torch.equal(new, expected)


def test_weights_follow_the_seed_alone():
    first, again, other = (make_twins(small(seed=s))[0].state_dict() for s in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.mlp.0.weight"], other["head.mlp.0.weight"])
    assert not torch.equal(first["head.prototypes"], other["head.prototypes"])
