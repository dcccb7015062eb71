"""Where every data set keeps its files, as it is distributed.

A data set may have several forms (its own folders, those of a well-known repository). The first
form whose images, list and marks are all there is taken, split by split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

WHOLE = "all"  # the split of a data set that is not divided
SPLITS = {"train": "train", "val": "val", "test": "test"}
COCO = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class Form:
    """One arrangement of folders; `{split}` stands for the word of the split.

    Attributes:
        images: folder of the images.
        masks: folder of the labels, which have the names of the images; it may be missing.
        splits: name of a split -> the word for it in paths.
        listing: text file that names the images of a split; None: all in the folder.
        shipped: such a list in `lists/` of this package; images may be missing from it.
        marks: files, folders or patterns, one of which must be there; none: the images suffice.
    """

    images: str
    masks: str
    splits: Mapping[str, str]
    listing: str | None = None
    shipped: str | None = None
    marks: tuple[str, ...] = ()

    def folders(self, base: Path, split: str) -> tuple[Path, Path]:
        """The folders of the images and of the masks of a split."""
        word = self.splits[split]
        return base / self.images.format(split=word), base / self.masks.format(split=word)

    def list_path(self, base: Path, split: str) -> Path | None:
        """The list of a split in the data set, if it has one."""
        return base / self.listing.format(split=self.splits[split]) if self.listing else None

    def holds(self, base: Path, split: str) -> bool:
        """Say whether a split is there."""
        listing = self.list_path(base, split)
        if not self.folders(base, split)[0].is_dir() or (listing and not listing.is_file()):
            return False
        marks = [mark.format(split=self.splits[split]) for mark in self.marks]
        return not marks or any(next(base.glob(mark), None) is not None for mark in marks)


@dataclass(frozen=True)
class Layout:
    """A data set as it is distributed.

    Attributes:
        title: its name in words.
        homes: folders that it unpacks to; the user may name one, any part of it, or what holds it.
        forms: arrangements, the first that fits wins.
        suffix: of the images as they are distributed; any other is taken as well.
        naming: what images are called, where their names matter.
        image_end: what follows the shared name of image and mask in the image's name.
        mask_end: what follows it in the mask's name.
        skip: masks whose path matches this regular expression are copies in another coding.
        reader: how masks are written, a key of `labels.READERS`, or "regions" for `.mat` files.
        fitted: masks may differ from their image in size and are then resized.
    """

    title: str
    homes: tuple[str, ...]
    forms: tuple[Form, ...]
    suffix: str = ".jpg"
    naming: str = "planted_{:06d}"
    image_end: str = ""
    mask_end: str = ".png"
    skip: str | None = None
    reader: str = "ids"
    fitted: bool = False

    @property
    def places(self) -> tuple[str, ...]:
        """Folders below the user's root where the data set may begin."""
        tails = [
            PurePosixPath(*PurePosixPath(home).parts[i:])
            for home in self.homes
            for i in range(len(PurePosixPath(home).parts), -1, -1)
        ]
        return tuple(dict.fromkeys(tail.as_posix() for tail in tails))


def _voc(images: str, masks: str, listing: str, *splits: str) -> Form:
    return Form(images, masks, {name: name for name in splits}, listing=listing)


VOC = "ImageSets/Segmentation/{split}.txt"
CONTEXT = "ImageSets/SegmentationContext/{split}.txt"
LAYOUTS: dict[str, Layout] = {
    # Before VOC: its year's folder holds VOC's own few masks and lists as well.
    "context": Layout(
        title="PASCAL Context",
        homes=("VOCdevkit/VOC2010",),
        forms=(_voc("JPEGImages", "SegmentationClassContext", CONTEXT, "train", "val"),),
    ),
    "voc": Layout(
        title="PASCAL VOC 2012",
        homes=("VOCdevkit/VOC2012", "PascalVOC"),
        forms=(
            _voc("JPEGImages", "SegmentationClass", VOC, "train", "val", "trainval"),
            _voc("JPEGImages", "SegmentationClassAug", VOC, "trainaug"),
            # the archive of MaskContrast
            _voc("images", "SegmentationClass", "sets/{split}.txt", "train", "val"),
            _voc("images", "SegmentationClassAug", "sets/{split}.txt", "trainaug"),
        ),
    ),
    "ade20k": Layout(
        title="ADE20K (scene parsing challenge)",
        homes=("ADEChallengeData2016",),
        forms=(
            Form(
                "images/{split}",
                "annotations/{split}",
                {"train": "training", "val": "validation"},
                marks=("images/{split}/ADE_*",),  # others have such folders too
            ),
        ),
        naming="ADE_planted_{:08d}",
    ),
    "cityscapes": Layout(
        title="Cityscapes (fine)",
        homes=("cityscapes",),
        forms=(
            Form("leftImg8bit/{split}", "gtFine/{split}", SPLITS | {"train_extra": "train_extra"}),
        ),
        suffix=".png",
        naming="aachen/aachen_{:06d}_000019",
        image_end="_leftImg8bit",
        mask_end="_gtFine_labelIds.png",
    ),
    "cocostuff": Layout(
        title="COCO-Stuff 164k",
        homes=("MSCOCO", "cocostuff", "coco_stuff164k"),
        forms=(
            Form("images/{split}", "annotations/{split}", COCO),
            Form(
                "images/{split}",
                "annotations/{split}",
                {f"curated-{name}": word for name, word in COCO.items()},
                shipped="cocostuff-curated-{split}.txt.gz",
            ),
        ),
        skip="labelTrainIds",  # as other repositories generate them beside the originals
    ),
    "lip": Layout(
        title="LIP (Look Into Person), single person",
        homes=("LIP",),
        forms=(
            Form(
                "{split}_images",
                "{split}_segmentations",
                {"train": "train", "val": "val"},
                listing="{split}_id.txt",
            ),
            Form(
                "{split}_images",
                "{split}_segmentations",
                {"train": "train", "val": "val"},
                marks=("{split}_segmentations",),
            ),
        ),
    ),
    "suim": Layout(
        title="SUIM",
        homes=("SUIM",),
        forms=(
            Form(
                "{split}/images",
                "{split}/masks",
                {"test": "TEST", "train": "train_val"},
                marks=("{split}/masks/*.bmp",),
            ),
            Form(
                "{split}/images",
                "{split}/masks",
                {"test": "test"},
                marks=("{split}/masks/*.bmp",),
            ),
        ),
        mask_end=".bmp",
        skip="/",  # a folder of binary masks for every class
        reader="colours",
        fitted=True,
    ),
    "bsds500": Layout(
        title="BSDS500",
        homes=("BSDS500/data",),
        forms=(
            Form("images/{split}", "groundTruth/{split}", SPLITS, marks=("groundTruth/{split}",)),
        ),
        mask_end=".mat",
        reader="regions",
    ),
    "stanford": Layout(
        title="Stanford Background",
        homes=("iccv09Data",),
        forms=(Form("images", "labels", {WHOLE: WHOLE}, marks=("labels/*.regions.txt",)),),
        mask_end=".regions.txt",
        reader="text",
    ),
    "camvid": Layout(
        title="CamVid",
        homes=("CamVid",),
        forms=(Form("{split}", "{split}annot", SPLITS, marks=("{split}annot",)),),
        suffix=".png",
    ),
}
FOLDER = Layout(  # anybody's own data, tried last
    title="images + masks",
    homes=(".",),
    forms=tuple(
        Form("images", masks, {WHOLE: WHOLE}, marks=(masks,)) for masks in ("masks", "labels")
    ),
)
