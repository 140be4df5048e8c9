"""Options are made from fields: read with the field's type, shown with its default."""

from dataclasses import dataclass

import pytest

from trainables.errors import BadInput
from trainables.options import Parser, add_options, given_options, option, parse, same_option


@dataclass(frozen=True, kw_only=True)
class Drink:
    """What a guest may ask for."""

    kind: str = option(group="what", metavar="NAME", help="tea or coffee")
    cups_wanted: int | None = option(None, group="how much", help="of 0.2 l", default="as needed")
    sugar: float = option(0.0, group="how much", help="by weight, at most 100%")
    milk: bool = option(False, flag="--with-milk", group="what", help="5% of it")
    served: int = 0


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="serve", add_help=False)
    add_options(parser, Drink, groups=("what", "how much"))
    return parser


def test_only_what_was_given_is_there_with_its_type(parser: Parser) -> None:
    assert given_options(parser.parse_args([]), Drink) == {}
    parsed = parser.parse_args(["--kind", "tea", "--cups-wanted", "2", "--sugar", "3"])
    assert given_options(parsed, Drink) == {"kind": "tea", "cups_wanted": 2, "sugar": 3.0}
    assert isinstance(parsed.sugar, float)
    assert given_options(parser.parse_args(["--with-milk"]), Drink) == {"milk": True}


def test_help_has_groups_metavars_and_defaults(parser: Parser) -> None:
    usage, what, how_much = parser.format_help().split("\n\n")
    assert "--served" not in usage
    assert what.splitlines() == [
        "what:",
        "  --kind NAME      tea or coffee",
        "  --with-milk      5% of it",
    ]
    assert how_much.splitlines() == [
        "how much:",
        "  --cups-wanted N  of 0.2 l [as needed]",
        "  --sugar X        by weight, at most 100% [0]",
    ]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for several times."""

    sort: list[str] | None = option(None, help="one at a time")
    with_: list[str] | None = option(None, flag="--with", help="all that follow", several=True)


def test_a_list_takes_one_value_or_all_that_follow() -> None:
    parser = Parser()
    asked = parse(parser, ["--sort", "tea", "--with", "milk", "ice", "--with", "rum"], Order)
    assert asked == Order(sort=["tea"], with_=["milk", "ice", "rum"])
    with pytest.raises(BadInput):
        parse(Parser(), ["--sort", "tea", "coffee"], Order)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cups-wanted", "two", "a whole number, got 'two'"),
        ("--cups-wanted", "1.5", "a whole number, got '1.5'"),
        ("--cups-wanted", "9" * 40, "at most 1e\\+12, got 999"),
        ("--sugar", "much", "a number, got 'much'"),
        ("--sugar", "nan", "a number, got 'nan'"),
        ("--sugar", "inf", "a number, got 'inf'"),
    ],
)
def test_a_value_of_another_type_is_refused(
    parser: Parser, option: str, value: str, said: str
) -> None:
    with pytest.raises(BadInput, match=f"^{option} must be {said}"):
        parser.parse_args([option, value])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--cups", "2"], r"no option --cups \(--cups 2\); did you mean '--cups-wanted'\?"),
        (["--sugarr=1"], r"no option --sugarr \(--sugarr=1\); did you mean '--sugar'\?"),
        (["--tea", "x"], r"there is no option --tea \(--tea x\); see --help"),
        (["milk"], "milk is given, but belongs to no option"),
        (["--kind"], "--kind expected one argument"),
    ],
)
def test_an_option_that_is_not_there_is_refused_with_the_closest(
    parser: Parser, given: list[str], said: str
) -> None:
    """One that is cut short is none, or a letter that is missing would change what is meant."""
    with pytest.raises(BadInput, match=said) as refused:
        parser.parse_args(given)
    assert "\n" not in str(refused.value)


@dataclass(frozen=True, kw_only=True)
class Refill:
    """Another drink at the same table."""

    guest: str = option(positional=True, metavar="GUEST")
    table: int | None = option(None, positional=True)
    kind: str = same_option(Drink, "kind", required=True, help="as before")
    sugar: float = same_option(Drink, "sugar")
    size: str = option("small", choices=("small", "large"))
    wishes: list[str] = option(required=True, flag="--wish")


def refill(*arguments: str) -> Refill:
    parser = Parser(prog="refill")
    return parse(parser, [*arguments], Refill, groups=("how much",))


def test_a_command_is_read_as_its_dataclass() -> None:
    assert refill("Ann", "--kind", "tea", "--wish", "hot", "--wish", "strong") == Refill(
        guest="Ann", kind="tea", wishes=["hot", "strong"]
    )
    given = refill("Ann", "3", "--kind", "tea", "--wish", "hot", "--sugar", "2", "--size", "large")
    assert (given.table, given.sugar, given.size) == (3, 2.0, "large")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "tea", "--wish", "hot"], "the following arguments are required: GUEST"),
        (["Ann", "--wish", "hot"], "the following arguments are required: --kind"),
        (["Ann", "--kind", "tea", "--wish", "hot", "--size", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_what_a_command_does_not_take_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        refill(*arguments)


def test_the_same_option_has_the_help_and_the_default_of_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        refill("--help")
    shown = capsys.readouterr().out
    assert "--kind NAME" in shown and "  as before\n" in shown
    assert shown.endswith("how much:\n  --sugar X             by weight, at most 100% [0]\n")
