"""An organ has one colour, whatever it is called and in whichever order the classes are."""

from __future__ import annotations

import colorsys
import itertools

from hypothesis import given
from hypothesis import strategies as st

from segweave import registry
from segweave.data.specs import (
    _ORGANS,
    _OTHER_NAMES,
    PALETTE,
    TargetSpec,
    class_colours,
    colours_of,
)

HEART = ("right ventricle", "myocardium", "left ventricle")
names = st.lists(
    st.sampled_from([*_ORGANS, *_OTHER_NAMES, "vessel", "edema", "class 1"]),
    max_size=9,
    unique=True,
)


@given(
    st.permutations([("RV", "right ventricle"), ("myo", "myocardium"), ("LV", "left ventricle")])
)
def test_the_heart_has_its_colours_in_every_order_and_by_short_names(
    order: list[tuple[str, str]],
) -> None:
    usual = dict(zip(HEART, colours_of(dict(enumerate(HEART, 1))).values(), strict=True))
    for which in (0, 1):
        found = colours_of({id: pair[which] for id, pair in enumerate(order, 1)})
        assert [*found.values()] == [usual[full] for _, full in order]


@given(names)
def test_classes_of_one_target_differ_in_colour(given_names: list[str]) -> None:
    colours = colours_of(dict(enumerate(given_names, 1)))
    assert list(colours) == list(range(1, len(given_names) + 1))
    assert len({*colours.values()}) == len(given_names)


def test_every_data_set_has_different_colours_that_are_seen_on_grey_images() -> None:
    for card in registry.datasets.cards().values():
        if len(card.classes) < 2:
            continue
        target = TargetSpec(kind=card.kind, names=card.classes)
        colours = list(class_colours(target).values())
        assert len(set(colours)) == len(colours) == len(target.foreground)
        for colour in colours:
            red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
            _, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
            assert saturation > 0.2, "grey is not seen on grey images"
            assert value > 0.5, "dark colours are not seen on dark tissue"


def test_one_class_on_warm_tissue_is_blue_whatever_kind_of_target_it_is() -> None:
    for name, kind in itertools.product(("polyp", "lesion", "x"), ("binary", "exclusive")):
        target = TargetSpec.model_validate({"kind": kind, "names": ("background", name)})
        assert class_colours(target) == {1: PALETTE[2]}
