"""The protocols that judge the masks of a run."""

from __future__ import annotations

from zerolabel.evaluation.protocol import Protocol

MASKS = (
    Protocol(
        "full",
        "Every labelled pixel at the original size of the labels, clusters matched to classes one "
        "to one by pixel counts (Hungarian); a pixel without a matched cluster is a miss; the "
        "default here, and the matching of ACSeg.",
    ),
    Protocol(
        "full-nobg",
        "As full, but pixels whose true class is background are not scored (20 classes on PASCAL "
        "VOC); its numbers are far higher and never comparable with those of full.",
        background="ignored",
    ),
    Protocol(
        "full-train",
        "As full, but clusters are matched to classes on the split train, as the author of IIC "
        "advises where training and test images differ.",
        match_on="train",
    ),
    Protocol(
        "datus",
        "As in the published DatUS2 code: pixels predicted 255 and pixels of unmatched clusters "
        "are removed before scoring, which is optimistic.",
        matching="drop-unmatched",
        ignore="void-and-unlabelled",
    ),
    Protocol(
        "datus-nearest",
        "As the published drawing script of DatUS2: as datus, but a cluster left over gets the "
        "class of the nearest matched centre; needs a run with a model.",
        matching="nearest",
        ignore="void-and-unlabelled",
    ),
    Protocol(
        "datus-majority",
        "As datus, but each cluster gets the class that most of its pixels have, so that none is "
        "left over; scores rise with K, which must be told with them.",
        matching="majority",
        ignore="void-and-unlabelled",
    ),
    Protocol(
        "picie-320",
        "As published by PiCIE: shorter side to 320, the middle 320 x 320 pixels, Hungarian on "
        "counts, no CRF.",
        geometry="picie-320",
        crf="off",
    ),
    Protocol(
        "stego-320",
        "As published by STEGO, without its CRF: shorter side to 320 by nearest neighbours, the "
        "middle 320 x 320 pixels, Hungarian on counts, clusters left over being misses.",
        geometry="stego-320",
        matching="hungarian-extra",
        crf="off",
    ),
    Protocol(
        "stego-320-crf",
        "As stego-320, after a dense CRF, which is how STEGO and those who follow it report.",
        geometry="stego-320",
        matching="hungarian-extra",
        crf="on",
    ),
    Protocol(
        "transfgu",
        "As published by TransFGU: images and labels squashed to 320 x 320 (Cityscapes 320 x 640, "
        "LIP 640 x 320), Hungarian on counts with the background among the classes, no CRF.",
        geometry="transfgu",
        crf="off",
    ),
    Protocol(
        "maskcontrast",
        "As the k-means evaluation of MaskContrast on 21 classes: images squashed to 512 x 512, "
        "masks brought back to the labels' size, Hungarian on IoU, absent classes count 0, no CRF.",
        geometry="maskcontrast-512",
        matching="hungarian-iou",
        absent="zero",
        crf="off",
    ),
    Protocol(
        "classes",
        "Every labelled pixel at the original size of the labels; category k is class k, nothing "
        "is matched; for methods that name their categories: by neighbours with labels, by text, "
        "or supervised.",
        matching="identity",
    ),
    Protocol(
        "maskclip",
        "As MaskCLIP scores classes that are known by name: category k is class k, background not "
        "scored, original size, classes that are neither true nor predicted left out.",
        matching="identity",
        background="ignored",
        crf="off",
    ),
    Protocol(
        "reclip",
        "As ReCLIP and ReCLIP++: category k is class k, background not scored, original size, "
        "absent classes count 0.",
        matching="identity",
        absent="zero",
        background="ignored",
        crf="off",
    ),
    Protocol(
        "reco",
        "As ReCo on COCO-Stuff: category k is class k, the geometry of stego-320, after a dense "
        "CRF.",
        geometry="stego-320",
        matching="identity",
        crf="on",
    ),
    Protocol(
        "over-clustering",
        "As IIC and SCAN with more clusters than classes: each cluster gets the class that most of "
        "its pixels have; scores rise with K, which must be told with them.",
        matching="majority",
    ),
    Protocol(
        "over-clustering-iou",
        "As over-clustering, with the vote of MaskContrast: each cluster gets the class with which "
        "its IoU is highest.",
        matching="majority-iou",
    ),
)
