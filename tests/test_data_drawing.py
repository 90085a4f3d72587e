"""The sprites of the embedded dataset."""

import numpy as np
import pytest

from nl_detectron.data.datasets.synthetic import canvas, landscape, things
from nl_detectron.data.datasets.synthetic.people import KEYPOINT_NAMES, person

PAIRS = [
    (KEYPOINT_NAMES.index(f"left_{name}"), KEYPOINT_NAMES.index(f"right_{name}"))
    for name in ("shoulder", "hip", "ear")
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_sides_follow_from_the_way_a_person_faces(seed):
    front, back = (person(rng(seed), back=b).keypoints for b in (False, True))
    for left, right in PAIRS:
        assert front[left, 0] > front[right, 0]
        assert back[left, 0] < back[right, 0]
    face = [KEYPOINT_NAMES.index(n) for n in ("nose", "left_eye", "right_eye")]
    assert not np.isnan(front).any()
    assert np.flatnonzero(np.isnan(back[:, 0])).tolist() == face


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_keypoints_are_on_the_figure(seed, back):
    sprite = person(rng(seed), back=back).placed(60, 110, 90)
    covered = canvas.silhouette(sprite, 120, 128)
    points = sprite.keypoints[~np.isnan(sprite.keypoints[:, 0])]
    columns, rows = (points * canvas.SCALE).astype(int).T
    assert covered[rows, columns].all()


@pytest.mark.parametrize(
    "make", [things.ball, things.kite, things.house, things.tree, things.car, things.umbrella]
)
@pytest.mark.parametrize("seed", range(3))
def test_things_are_one_unit_high_and_change_only_what_they_cover(make, seed):
    sprite = make(rng(seed))
    assert sprite.category == make.__name__
    _, top, _, bottom = sprite.bounds()
    assert -1.05 < top < -0.9
    assert -0.05 < bottom < 0.05
    sprite = sprite.placed(48, 80, 60, angle=10, mirror=True)
    background, _ = landscape.landscape(rng(seed), 96, 96)
    drawn = canvas.draw(background, [sprite])
    covered = canvas.silhouette(sprite, 96, 96).reshape(96, canvas.SCALE, 96, canvas.SCALE)
    touched = covered.any(axis=(1, 3))
    assert np.array_equal(drawn[~touched], background[~touched])
    assert (drawn[touched] != background[touched]).any(axis=1).mean() > 0.95


def test_a_person_cannot_be_mirrored():
    with pytest.raises(ValueError, match="mirrored"):
        person(rng()).placed(0, 0, 1, mirror=True)
