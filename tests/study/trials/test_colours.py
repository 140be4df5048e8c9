"""One colour an arm, whatever shows it."""

from study.trials.colours import COLOURS, arm_colours, arm_numbers


def test_an_arm_keeps_its_colour_whatever_the_order_and_most_of_the_others() -> None:
    both = arm_numbers(["lora", "layernorm"])
    assert [*both] == ["lora", "layernorm"] and both == arm_numbers(["layernorm", "lora"])
    more = arm_numbers(["lora", "layernorm", "ffn", "dora"])
    assert {name: more[name] for name in both} == both


def test_many_arms_have_as_many_numbers() -> None:
    names = [f"arm {n}" for n in range(30)]
    assert sorted(arm_numbers(names).values()) == [*range(30)]
    assert len(set(arm_colours(names[: len(COLOURS)]).values())) == len(COLOURS)
