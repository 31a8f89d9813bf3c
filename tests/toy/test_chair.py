import pytest

from opadpo.errors import DataError
from opadpo.toy.chair import score

CUP_AND_DOG = {"objects": [{"noun": "cup", "place": "top left"}, {"noun": "dog", "place": "top right"}]}
BALL = {"objects": [{"noun": "ball", "place": "top left"}]}


def test_counts_by_hand():
    result = score(
        [
            "There is a cup at the top left. There is a bird at the top left. There is a bird at the top right.",
            "There is a ball at the bottom right.",
        ],
        [CUP_AND_DOG, BALL],
    )
    assert result.metrics.chair_i == pytest.approx(100 * 2 / 4)
    assert result.metrics.chair_s == pytest.approx(50.0)
    assert result.metrics.coverage == pytest.approx(100 * 2 / 3)
    first, second = result.items
    assert first.mentioned == ("cup", "bird", "bird")
    assert first.hallucinated == ("bird", "bird")
    assert first.covered == ("cup",)
    assert first.missed == ("dog",)
    assert second.hallucinated == ()


def test_repeats_do_not_raise_coverage():
    once = score(["There is a cup at the top left."], [CUP_AND_DOG]).metrics
    twice = score(["There is a cup at the top left. A cup stands at the top left."], [CUP_AND_DOG]).metrics
    assert once.coverage == twice.coverage == 50.0


def test_silence_hallucinates_nothing_and_covers_nothing():
    metrics = score([""], [BALL]).metrics
    assert (metrics.chair_i, metrics.chair_s, metrics.coverage) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("captions", "truths"), [([], []), (["A ball."], []), (["A ball."], [BALL, BALL])])
def test_refuses_rows_that_do_not_match(captions: list[str], truths: list[dict[str, object]]):
    with pytest.raises(DataError, match="one truth for every caption"):
        score(captions, truths)
