"""One colour an arm, whatever shows it."""

from itertools import combinations

from study.config import spaces
from study.config.space_changes.narrowing import narrow
from study.reporting.svg import SHAPES
from study.trials.colours import COLOURS, arm_colours, arm_numbers, terminal_styles


def test_an_arm_keeps_its_colour_whatever_the_order_and_most_of_the_others() -> None:
    both = arm_numbers(["lora", "layernorm"])
    assert [*both] == ["lora", "layernorm"] and both == arm_numbers(["layernorm", "lora"])
    more = arm_numbers(["lora", "layernorm", "ffn", "dora"])
    assert {name: more[name] for name in both} == both


def test_an_arm_keeps_its_colour_in_a_narrowed_space() -> None:
    for name in ("mile", "intrinsic"):
        space = spaces.load(name)
        whole = arm_colours(space.declared)
        assert [*whole] == [*space.arms]
        for arm in space.arms:
            narrowed = narrow(space, arm, ["lr=0.001"])
            assert [*narrowed.arms] == [arm] and arm_colours(narrowed.declared)[arm] == whole[arm]


def test_many_arms_have_as_many_numbers() -> None:
    names = [f"arm {n}" for n in range(30)]
    assert sorted(arm_numbers(names).values()) == [*range(30)]
    assert len(set(arm_colours(names[: len(COLOURS)]).values())) == len(COLOURS)


def test_the_largest_space_has_an_own_colour_for_each_arm() -> None:
    arms = spaces.load("mile").declared
    assert len({*arm_colours(arms).values()}) == len({*terminal_styles(arms).values()}) == 23


def linear(colour: str) -> tuple[float, ...]:
    """Red, green and blue as amounts of light."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)


def times(matrix: str, vector: tuple[float, ...]) -> tuple[float, ...]:
    rows = [[float(number) for number in row.split()] for row in matrix.split(",")]
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows)


def seen(light: tuple[float, ...]) -> tuple[float, ...]:
    """A colour in Oklab, in which distances are those that are seen; 2 can just be told."""
    cones = times(
        "0.41222 0.53633 0.05145, 0.21190 0.68070 0.10740, 0.08830 0.28172 0.62998", light
    )
    roots = tuple(max(cone, 0.0) ** (1 / 3) * 100 for cone in cones)
    return times(
        "0.21045 0.79362 -0.00407, 1.97800 -2.42859 0.45059, 0.02590 0.78277 -0.80868", roots
    )


def without_green(light: tuple[float, ...]) -> tuple[float, ...]:
    """Colours as most of the colour-blind see them (deuteranopia, after Machado and others)."""
    return times(
        "0.36732 0.86065 -0.22797, 0.28009 0.67250 0.04741, -0.01182 0.04294 0.96888", light
    )


def apart(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)


def test_colours_are_told_apart_and_those_of_one_shape_by_the_colour_blind_too() -> None:
    light = [linear(colour) for colour in COLOURS]
    for first, second in combinations(range(len(COLOURS)), 2):
        a, b = light[first], light[second]
        assert apart(seen(a), seen(b)) > 12, (first, second)
        if (first - second) % len(SHAPES) == 0:
            assert apart(seen(without_green(a)), seen(without_green(b))) > 12, (first, second)
