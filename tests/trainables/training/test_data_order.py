"""Questions come in the order that ``DataOrder`` promises."""

from itertools import groupby

import pytest

from trainables.model_contract import Row
from trainables.training.data_order import WINDOW, DataOrder

IMAGES = [0] * 7 + [1] * 4 + [2] * 3 + [3]
"""Of fifteen questions, as unevenly as in the medical sets."""
ROWS = [Row(image=image, question=(1, 2), answer=(1, 2)) for image in IMAGES]


def epochs(questions_per_image: int, count: int = 3, seed: int = 0) -> list[list[int]]:
    order = DataOrder(ROWS, seed=seed, questions_per_image=questions_per_image)
    length = len(IMAGES)
    return [order.indices(n * length, (n + 1) * length) for n in range(count)]


@pytest.mark.parametrize("questions_per_image", [1, 2, 4, 100])
def test_each_epoch_has_every_question_once_in_an_order_of_its_own(
    questions_per_image: int,
) -> None:
    found = epochs(questions_per_image)
    assert all(sorted(epoch) == list(range(len(IMAGES))) for epoch in found)
    assert found[0] != found[1] != found[2]
    assert found != epochs(questions_per_image, seed=1)


@pytest.mark.parametrize("questions_per_image", [2, 3, 4])
def test_an_images_questions_come_in_groups(questions_per_image: int) -> None:
    for epoch in epochs(questions_per_image):
        runs = [(image, len(list(run))) for image, run in groupby(epoch, IMAGES.__getitem__)]
        for image in set(IMAGES):
            lengths = [length for other, length in runs if other == image]
            # Only the last group of an image is not whole; two groups may meet.
            short = [length for length in lengths if length % questions_per_image]
            assert len(short) == (IMAGES.count(image) % questions_per_image > 0)


def test_all_questions_of_an_image_at_once() -> None:
    for epoch in epochs(100):
        assert len(list(groupby(epoch, IMAGES.__getitem__))) == len(set(IMAGES))


def test_a_batch_may_lie_in_two_epochs() -> None:
    first, second, _ = epochs(2)
    order = DataOrder(ROWS, seed=0, questions_per_image=2)
    assert order.indices(10, 20) == first[10:] + second[:5]
    assert order.indices(0, 4) == first[:4], "and it may go back"


def test_which_image_comes_when_is_left_to_chance() -> None:
    """Each image opens as many epochs as its share of the questions."""
    opens = [epochs(4, count=1, seed=seed)[0][0] for seed in range(600)]
    share = sum(IMAGES[question] == 0 for question in opens) / len(opens)
    assert share == pytest.approx(7 / 15, abs=0.08)


SIZE = 4
LONG = [
    Row(image=0, question=(1,) * (3 + 7 * i % 11), answer=(1,) * (2 + 5 * i % 9))
    for i in range(2 * WINDOW * SIZE + 3)
]
"""Two windows of batches, and three questions that do not fill one."""


def by_length(seed: int = 0) -> DataOrder:
    return DataOrder(LONG, seed=seed, batch_size=SIZE, by_length=True)


def padding(order: DataOrder, batches: int) -> int:
    """Number of padding tokens in the first batches."""
    found = 0
    for number in range(batches):
        batch = [LONG[i] for i in order.indices(number * SIZE, (number + 1) * SIZE)]
        for lengths in ([len(r.question) for r in batch], [len(r.answer) for r in batch]):
            found += sum(max(lengths) - length for length in lengths)
    return found


def test_by_length_each_epoch_has_every_question_once_in_an_order_of_its_own() -> None:
    order, length = by_length(), len(LONG)
    found = [order.indices(n * length, (n + 1) * length) for n in range(3)]
    assert all(sorted(epoch) == list(range(length)) for epoch in found)
    assert found[0] != found[1] != found[2]
    assert found[0] != by_length(seed=1).indices(0, length)
    assert by_length().indices(length, 2 * length) == found[1], "from anywhere"


def test_by_length_there_is_less_padding_also_where_epochs_end_within_a_batch() -> None:
    batches = 3 * len(LONG) // SIZE
    assert padding(by_length(), batches) < 0.4 * padding(DataOrder(LONG, seed=0), batches)


def test_by_length_short_batches_do_not_come_first() -> None:
    """Within a window it is left to chance which batch comes when."""
    starts = []
    for seed in range(200):
        first = by_length(seed).indices(0, SIZE)
        starts.append(sum(len(LONG[i].question) for i in first) / SIZE)
    mean = sum(len(row.question) for row in LONG) / len(LONG)
    assert sum(starts) / len(starts) == pytest.approx(mean, rel=0.1)
