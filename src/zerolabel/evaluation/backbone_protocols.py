"""The protocols that judge a backbone, not the masks of a run."""

from __future__ import annotations

from zerolabel.evaluation.protocol import Protocol

BACKBONES = (
    Protocol(
        "jaccard",
        "For every object the Jaccard index of that head of the CLS attention, cut to 60 % of its "
        "mass, which fits it best; mean over the objects of an image, then over images.",
        matching="best-head",
        background="ignored",
        judges="attention",
    ),
    Protocol(
        "linear-probe",
        "A linear layer is trained on frozen patch tokens and the labels of one split, and scored "
        "on another, logits and labels at 64 x 64 pixels; mean over seeds.",
        geometry="64x64",
        matching="trained",
        absent="gt-only",
        judges="features",
    ),
    Protocol(
        "knn",
        "An image gets the class that its nearest neighbours by cosine, in a bank of images with "
        "known class, vote for with weight exp(cosine / 0.07).",
        geometry="image",
        matching="neighbours",
        absent="gt-only",
        judges="features",
    ),
    Protocol(
        "maskcontrast-linear",
        "As published by MaskContrast: a linear layer is trained through the frozen backbone on "
        "augmented images of 512 x 512, 60 epochs of SGD; the epoch that is best on the scored "
        "split, scored at the original size.",
        geometry="maskcontrast-512",
        matching="trained",
        absent="zero",
        crf="off",
        judges="features",
    ),
    Protocol(
        "stego-linear",
        "As the linear probe of STEGO, without its CRF: a linear layer on frozen tokens, 5000 "
        "steps of Adam, scored in the middle 320 x 320 pixels, no matching.",
        geometry="stego-320",
        matching="trained",
        crf="off",
        judges="features",
    ),
    Protocol(
        "stego-cluster",
        "As the cluster probe of STEGO, without its CRF: one prototype per class, 5000 steps of "
        "Adam without labels, Hungarian on counts in the middle 320 x 320 pixels.",
        geometry="stego-320",
        crf="off",
        judges="features",
    ),
    Protocol(
        "dense-knn",
        "A patch gets the classes that its 20 nearest patches by cosine, of 64 drawn from every "
        "training image, vote for with weight exp(cosine / 0.07); scored at the original size.",
        matching="neighbours",
        judges="features",
    ),
    Protocol(
        "retrieval",
        "As published by MaskContrast: the salient part of an image gets the class of the training "
        "image whose salient part is nearest by cosine, the rest is background.",
        geometry="maskcontrast-512",
        matching="neighbours",
        absent="zero",
        crf="off",
        judges="features",
    ),
    Protocol(
        "maskcontrast-kmeans",
        "As published by MaskContrast: the salient parts of the scored images are clustered by "
        "k-means, the rest is one more cluster; Hungarian on IoU, mean over 5 seeds.",
        geometry="maskcontrast-512",
        matching="hungarian-iou",
        absent="zero",
        crf="off",
        judges="features",
    ),
)
