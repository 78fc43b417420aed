"""Names of the 1000 ImageNet classes, as the installed libraries have them.

torchvision's list has readable names that are all different ("crane bird" and "crane", "maillot"
and "maillot tank suit"); timm's has the WordNet ids, which folders of images are called by. Both
are in the order of the classes of ILSVRC 2012, which sorts the ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ibinn.errors import ConfigError

COUNT = 1000
_WORDNET_ID = re.compile(r"n\d{8}")


def class_names() -> tuple[str, ...]:
    """Name of every class in index order, each once.

    Raises:
        ConfigError: The installed torchvision has another list.
    """
    from torchvision.models import ResNet50_Weights

    names = tuple(str(name) for name in ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return _checked(names, "torchvision")


def wordnet_ids() -> tuple[str, ...]:
    """WordNet id of every class in index order, such as n01440764.

    Raises:
        ConfigError: The installed timm has another list.
    """
    from timm.data.imagenet_info import ImageNetInfo

    ids = tuple(str(name) for name in ImageNetInfo("imagenet-1k").label_names())
    return _checked(ids, "timm")


def readable(folders: Sequence[str]) -> tuple[str, ...]:
    """Class names of folders that are called by WordNet ids; other folders keep their names.

    Only where all of them are ids: one that ImageNet's 1000 classes do not have stays an id.

    Args:
        folders: Names of class folders.

    Raises:
        ConfigError: An installed library has another list.
    """
    if not folders or not all(_WORDNET_ID.fullmatch(folder) for folder in folders):
        return tuple(folders)
    names = dict(zip(wordnet_ids(), class_names(), strict=True))
    return tuple(names.get(folder, folder) for folder in folders)


def _checked(names: tuple[str, ...], library: str) -> tuple[str, ...]:
    if len(names) != COUNT or len(set(names)) != COUNT:
        raise ConfigError(
            f"the installed {library} lists {len(set(names))} different ImageNet classes; expected "
            f"{COUNT}; give --class-names, or install the version that constraints.txt names"
        )
    return names
