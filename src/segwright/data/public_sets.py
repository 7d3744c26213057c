"""Data sets that are known by name: what they are, and where they are to be had.

Some can be downloaded by `segwright.data.fetching`. Others are handed out by a course or a competition to those who
take part; of these we know what the file is called and how it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segwright.errors import DataError, nearest


@dataclass(frozen=True)
class PublicSet:
    """A data set.

    Attributes:
        what: in a line.
        place: of what is trained on, below the folder of data.
        page: where it is described, or who hands it out.
        how: what to do, as an imperative sentence with `{place}`, where it cannot be downloaded; empty where it can.
        options: of `segwright train`, beside the place.
    """

    what: str
    place: str
    page: str
    how: str = ""
    options: str = ""


PUBLIC_SETS: dict[str, PublicSet] = {
    "voc2007": PublicSet(
        "PASCAL VOC 2007: photos, 20 kinds of things and background; 422 images to train on, 210 to test",
        "VOCdevkit/VOC2007",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
    ),
    "voc2012": PublicSet(
        "PASCAL VOC 2012: the same classes; 2,913 images to train on",
        "VOCdevkit/VOC2012",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    ),
    "oxford-pets": PublicSet(
        "Oxford-IIIT Pet: cats and dogs, told from background and border; 3,680 images to train on, 3,669 to test",
        "oxford-iiit-pet/data.yaml",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    "mars": PublicSet(
        "Mars terrain: gray pictures of 64x128 pixels, 5 classes; one file of 2,615 labelled pictures and a test set",
        "mars_for_students.npz",
        "the second homework of Artificial Neural Networks and Deep Learning, Politecnico di Milano",
        how="take mars_for_students.npz from the platform of that course and put it there as {place}",
        options="--classes background,soil,bedrock,sand,big_rock --ignore-in-score background",
    ),
    "drone": PublicSet(
        "Semantic Drone Dataset of TU Graz with its classes grouped to 2 or 5; 400 photos from above",
        "drone",
        "Kaggle, 'Semantic Segmentation Drone Dataset' (santurini)",
        how="download it with an account there and put original_images/ and label_images_semantic/ into {place}",
    ),
    "flood": PublicSet(
        "Houston after hurricane Harvey: photos of small drones, 25 classes; 261 images to train on, 112 to test",
        "flood",
        "a competition of CentraleSupelec on GeoEngine",
        how="ask those who hold it for the files; put the photos into {place}/images, the labels (NAME_lab.png) into "
        "{place}/masks and the test photos into {place}/test",
    ),
}


def known_set(name: str) -> PublicSet:
    """The set of that name.

    Raises:
        DataError: there is none.
    """
    if name not in PUBLIC_SETS:
        raise DataError(f"no data set is called '{name}'", mend=nearest(name, PUBLIC_SETS))
    return PUBLIC_SETS[name]


def require_downloadable(name: str, folder: Path) -> None:
    """Tell where a set is to be had that no program may download.

    Raises:
        DataError: it is one of these.
    """
    one = known_set(name)
    if one.how:
        raise DataError(
            f"is missing: '{name}' cannot be downloaded, it is of {one.page}",
            mend=one.how.format(place=folder / one.place),
            file=folder / one.place,
        )
