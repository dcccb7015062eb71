"""Random numbers for one thing alone."""

import torch

from zerolabel.ops.draws import generator


def test_the_same_words_give_the_same_numbers_and_others_other_ones():
    seeds = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    drawn = [torch.rand(4, generator=generator(*words)) for words in seeds]
    again = [torch.rand(4, generator=generator(*words)) for words in seeds]
    assert all(map(torch.equal, drawn, again))
    assert len({tuple(x.tolist()) for x in drawn}) == len(seeds)


def test_torch_itself_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(5))
    assert torch.equal(before, torch.get_rng_state())
