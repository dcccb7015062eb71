import numpy as np
import pytest
from PIL import Image
from test_packs import encoded, write

from zerolabel.data.classified import central, open_classified
from zerolabel.errors import DataError


def picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.mark.parametrize("size", [(300, 400), (512, 256), (256, 300), (280, 260)])
def test_the_middle_is_that_of_dino(size):
    """Against Pillow: short side to 256, middle 224."""
    image = picture(*size)
    H, W = size
    h, w = 256 * H // min(size), 256 * W // min(size)
    whole = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
    top, left = (h - 224) // 2, (w - 224) // 2
    expected = whole[top : top + 224, left : left + 224].astype(int)
    found = central(image, 224).permute(1, 2, 0).numpy()
    assert found.shape == (224, 224, 3)
    assert np.abs(found - expected).max() <= 2


def test_an_image_is_not_enlarged_beyond_the_size():
    image = picture(64, 64)
    np.testing.assert_array_equal(central(image, 64).permute(1, 2, 0).numpy(), image)
    image = picture(70, 90)  # below 256/224 of 64, which is 73: cut only
    found = central(image, 64).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, image[3:67, 13:77])
    small = central(picture(20, 30), 64)
    assert small.shape == (3, 64, 64)


def test_classes_are_folders(tmp_path):
    for i, name in enumerate(["cat/b.png", "cat/deep/a.png", "dog/a.png"]):
        save(tmp_path / name, picture(8, 9, i))
    found = open_classified(tmp_path)
    assert [sample.id for sample in found.samples] == ["cat/b.png", "cat/deep/a.png", "dog/a.png"]
    assert found.classes == ("cat", "cat", "dog")
    assert found.name == tmp_path.name
    save(tmp_path / "lost.png", picture(8, 9))
    with pytest.raises(DataError, match=r"1 of the 4 images .* such as lost\.png"):
        open_classified(tmp_path)


def test_classes_are_labels_of_a_pack(tmp_path):
    images = [picture(8, 9, i) for i in range(3)]
    path = write(tmp_path / "a.npz", [encoded(image) for image in images], labels=[4, 0, 4])
    found = open_classified(path)
    assert found.classes == ("4", "0", "4")
    assert [sample.id for sample in found.samples] == ["a.npz/0", "a.npz/1", "a.npz/2"]
    assert len({sample.digest() for sample in found.samples}) == 3
    for sample, image in zip(found.samples, images, strict=True):
        np.testing.assert_array_equal(sample.load(), image)
    other = write(tmp_path / "b.npz", [encoded(image) for image in images[:2]], labels=[4, 0])
    assert open_classified(other).samples[0].digest() != found.samples[0].digest()


def test_what_has_no_classes_is_refused(tmp_path):
    path = write(tmp_path / "a.npz", [encoded(picture(8, 9))])
    with pytest.raises(DataError, match="holds no labels"):
        open_classified(path)
    with pytest.raises(DataError, match="does not exist"):
        open_classified(tmp_path / "nowhere")
