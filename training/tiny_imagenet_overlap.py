"""The Tiny ImageNet classes that show what a CIFAR class shows.

An image of one of these is left out of the "Tiny ImageNet" out-of-distribution set: a model that
knows cats and calls a Persian cat known is right. The rule: a person who may answer only with
the ten CIFAR-10 names would describe the object by one of them, or the class is a close relative
whose own name or shape is that of the CIFAR class (a cougar is a "catamount", a gazelle is drawn
like a deer, a school bus like a truck). Names decide nothing on their own: "crane" is the
building machine here, "bullet train" and "freight car" run on rails, the "lesser panda, bear cat"
is no cat; those stay in the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """One class that is left out.

    Attributes:
        words: ImageNet's words for the WordNet id.
        cifar_class: The CIFAR-10 class that it shows.
    """

    words: str
    cifar_class: str


_BY_CIFAR_CLASS: dict[str, dict[str, str]] = {
    "bird": {
        "n01855672": "goose",
        "n02002724": "black stork, Ciconia nigra",
        "n02056570": "king penguin, Aptenodytes patagonica",
        "n02058221": "albatross, mollymawk",
    },
    "cat": {
        "n02123045": "tabby, tabby cat",
        "n02123394": "Persian cat",
        "n02124075": "Egyptian cat",
        "n02125311": "cougar, puma, catamount, mountain lion, painter, panther, Felis concolor",
        "n02129165": "lion, king of beasts, Panthera leo",
    },
    "deer": {
        "n02423022": "gazelle",
    },
    "dog": {
        "n02085620": "Chihuahua",
        "n02094433": "Yorkshire terrier",
        "n02099601": "golden retriever",
        "n02099712": "Labrador retriever",
        "n02106662": "German shepherd, German shepherd dog, German police dog, alsatian",
        "n02113799": "standard poodle",
    },
    "frog": {
        "n01641577": "bullfrog, Rana catesbeiana",
        "n01644900": "tailed frog, bell toad, ribbed toad, tailed toad, Ascaphus trui",
    },
    "automobile": {
        "n02814533": "beach wagon, station wagon, wagon, estate car, beach waggon, "
        "station waggon, waggon",
        "n03100240": "convertible",
        "n03444034": "go-kart",
        "n03670208": "limousine, limo",
        "n03977966": "police van, police wagon, paddy wagon, patrol wagon, wagon, black Maria",
        "n04285008": "sports car, sport car",
    },
    "truck": {
        "n03796401": "moving van",
        "n04146614": "school bus",
        "n04465501": "tractor",
        "n04487081": "trolleybus, trolley coach, trackless trolley",
    },
    "ship": {
        "n03447447": "gondola",
        "n03662601": "lifeboat",
    },
}

CIFAR_OVERLAP: MappingProxyType[str, Overlap] = MappingProxyType(
    {
        wnid: Overlap(words=words, cifar_class=cifar_class)
        for cifar_class, members in _BY_CIFAR_CLASS.items()
        for wnid, words in members.items()
    }
)
"""WordNet id -> what it shows. Tiny ImageNet has no class of airplanes or horses."""
