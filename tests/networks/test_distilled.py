import pytest
import torch
import torch.nn.functional as F
from reference.distil import WORDS, D, P, images_of, positions, teacher, texts

from zerolabel.errors import UsageError
from zerolabel.networks.deeplab import DeepLabConfig, random_deeplab
from zerolabel.networks.distilled import HEADS, Distilled, StudentHead, student_head
from zerolabel.networks.resnet import ResNetConfig

BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8)
QUERIES, REFERENCES = texts()


def vectors(h=6, w=8, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(count, h, w, P, generator=generator)


def made(kind, rectifier=None, **settings):
    rectifier = teacher(passes=False) if rectifier is None else rectifier
    return student_head(
        kind, QUERIES, references=REFERENCES, rectifier=rectifier, **settings
    ).eval()


def student(**settings):
    return random_deeplab(DeepLabConfig(resnet=BODY, out=P, **settings), seed=0)


def test_on_clips_own_grid_the_inherited_head_is_rectified_clip():
    rectifier = teacher(passes=False).eval()
    rectifier.decoder.norm.running_mean.uniform_(-1, 1)
    head, z, places = made("inherited", rectifier), vectors(3, 4), positions((48, 64))
    head.rectifier.decoder.norm.load_state_dict(rectifier.decoder.norm.state_dict())
    expected = rectifier(F.normalize(z, dim=3), QUERIES, references=REFERENCES, positions=places)
    torch.testing.assert_close(head(z, places), expected)
    assert expected.std() > 0.01


@pytest.mark.parametrize("kind", ["independent", "joint"])
@pytest.mark.parametrize("combine", ["subtract", "add"])
def test_the_bias_map_is_resized_to_the_students_grid(kind, combine):
    rectifier = teacher(kind=kind, combine=combine, hidden=(5, 4)).eval()
    z, places = vectors(), positions((48, 64))
    x = F.normalize(z, dim=3)
    with torch.no_grad():
        nothing = torch.zeros(1, 3, 4, P)
        bias = rectifier.bias(places, REFERENCES, dense=nothing)
        bias = F.interpolate(bias, size=(6, 8), mode="bilinear")
        if kind == "joint":  # its class bias is the student's own
            bias = bias + (x @ REFERENCES.T).permute(0, 3, 1, 2)
        scores = (x @ QUERIES.T).permute(0, 3, 1, 2)
        expected = scores - bias if combine == "subtract" else scores + bias
        found = made("query+bias", rectifier)(z, places)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, scores, atol=1e-3)


def test_the_decoder_sees_unit_vectors_beside_the_scores():
    head, z, places = made("inherited"), vectors(), positions((48, 64))
    plain = made("query+bias")(z, places)
    decoder = head.rectifier.decoder
    both = torch.cat([F.normalize(z, dim=3).permute(0, 3, 1, 2), plain], 1)
    z0 = F.conv2d(both, decoder.conv.weight, decoder.conv.bias, padding=2)
    torch.testing.assert_close(head(z, places), decoder.norm(z0), rtol=1e-4, atol=1e-5)


def test_queries_alone_see_directions_or_lengths_too():
    z = vectors()
    scores = torch.einsum("bhwp,qp->bqhw", z, QUERIES)
    torch.testing.assert_close(made("query", unit=False)(z), scores)
    lengths = z.norm(dim=3)[:, None]
    torch.testing.assert_close(made("query")(z), scores / lengths)


def test_an_own_head_is_a_convolution_of_the_seed():
    head, z = made("own", seed=3), vectors()
    weight = head.own.weight[:, :, 0, 0]
    torch.testing.assert_close(head(z), torch.einsum("bhwp,qp->bqhw", z, weight))
    assert torch.equal(weight, made("own", seed=3).own.weight[:, :, 0, 0])
    assert not torch.equal(weight, made("own", seed=4).own.weight[:, :, 0, 0])
    assert weight.std().item() == pytest.approx(0.01, rel=0.5)


@pytest.mark.parametrize("kind", HEADS)
def test_what_is_inherited_does_not_learn_but_sees_anew(kind):
    rectifier = teacher(passes=False)
    rectifier.decoder.norm.running_mean.fill_(7.0)
    rectifier.decoder.norm.weight.data.fill_(3.0)
    before = {name: value.clone() for name, value in rectifier.state_dict().items()}
    head = made(kind, rectifier).train()
    z = vectors().requires_grad_(True)
    head(z, positions((48, 64))).square().mean().backward()
    assert z.grad.any()
    learning = {name for name, value in head.named_parameters() if value.requires_grad}
    assert learning == ({"own.weight", "own.bias"} if kind == "own" else set())
    assert all(torch.equal(v, before[k]) for k, v in rectifier.state_dict().items())
    if kind == "inherited":
        norm = head.rectifier.decoder.norm
        assert norm.weight.eq(3).all()
        assert norm.running_mean.abs().max() < 1  # a tenth of the batch's mean, nothing of 7
        assert norm.running_mean.any()
        assert norm.num_batches_tracked == 1


def test_only_the_decoders_norm_ever_trains():
    head = made("query+bias", teacher(kind="joint", hidden=(4,))).train()
    assert not any(m.training for m in head.rectifier.modules())
    head = made("inherited", teacher(kind="joint", hidden=(4,))).train()
    assert head.rectifier.decoder.norm.training
    assert not head.rectifier.space.training
    assert not head.eval().rectifier.decoder.norm.training


# --- with a student ------------------------------------------------------------------------------


def test_predictions_do_not_depend_on_the_batch_and_change_nothing():
    net = Distilled(student(), made("inherited")).train()
    x, places = images_of(2, (40, 56)), positions((40, 56))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    both = net.predict(x, places)
    assert net.training
    assert both.shape == (2, WORDS, 5, 7)
    torch.testing.assert_close(net.predict(x[1:], places), both[1:], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not both.requires_grad
    seen = net.eval()(x, places)
    assert seen.embedding.shape == (2, 5, 7, P)
    assert torch.equal(seen.logits.detach(), both)


def test_names():
    net = Distilled(student(), made("inherited"))
    assert {name.split(".")[0] for name in net.state_dict()} == {"student", "head"}
    names = {n for n in net.state_dict() if n.startswith("head.") and "rectifier" not in n}
    assert names == {"head.queries", "head.references"}
    assert "head.rectifier.decoder.conv.weight" in net.state_dict()
    plain = {n for n in Distilled(student(), made("query")).state_dict() if n.startswith("head.")}
    assert plain == {"head.queries"}


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(UsageError, match="Did you mean 'query'"):
        made("querry")
    with pytest.raises(UsageError, match="there is none"):
        StudentHead("inherited", QUERIES)
    with pytest.raises(UsageError, match="there is none"):
        StudentHead("query+bias", QUERIES, references=REFERENCES)
    with pytest.raises(UsageError, match=r"queries \(Q, P\)"):
        StudentHead("query", QUERIES[0])
    head = made("inherited")
    with pytest.raises(UsageError, match=f"positions \\(h, w, {D}\\), found None"):
        head(vectors())
    with pytest.raises(UsageError, match=r"found \(3, 4, 9\)"):
        head(vectors(), torch.ones(3, 4, D + 1))
    with pytest.raises(UsageError, match=f"Expected vectors \\(B, h, w, {P}\\)"):
        head(vectors()[..., 1:], positions((48, 64)))
    with pytest.raises(UsageError, match=f"gives 9 channels, the queries have {P}"):
        Distilled(random_deeplab(DeepLabConfig(resnet=BODY, out=9), seed=0), head)
