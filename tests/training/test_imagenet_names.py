from training import imagenet_names


def test_every_class_has_a_name_of_its_own_in_the_order_of_the_ids() -> None:
    names, ids = imagenet_names.class_names(), imagenet_names.wordnet_ids()
    assert len(set(names)) == len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    named = dict(zip(ids, names, strict=True))
    assert named["n01440764"] == "tench"
    assert named["n02504013"] == "Indian elephant"
    assert named["n15075141"] == "toilet tissue"


def test_classes_of_one_word_are_told_apart() -> None:
    named = dict(zip(imagenet_names.wordnet_ids(), imagenet_names.class_names(), strict=True))
    assert (named["n02012849"], named["n03126707"]) == ("crane bird", "crane")
    assert (named["n03710637"], named["n03710721"]) == ("maillot", "maillot tank suit")
