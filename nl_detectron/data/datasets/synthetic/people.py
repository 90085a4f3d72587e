"""People with the 17 keypoints of COCO.

The way a person faces determines left and right, as in a photograph: seen from the front, the left
arm is on the right of the image; seen from behind, on the left. No color marks a side, so a
mirrored image is a valid image.
"""

from collections.abc import Iterator

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES as KEYPOINT_NAMES

from .canvas import Color, Part, Sprite, arc, capsule, darker, ellipse, lighter, mix, polygon

SKINS: tuple[Color, ...] = (
    (255, 219, 186), (242, 194, 154), (214, 158, 116), (172, 116, 78), (120, 78, 54),
)  # fmt: skip
HAIRS: tuple[Color, ...] = (
    (48, 36, 32), (92, 60, 38), (150, 94, 48), (224, 180, 94), (186, 78, 44), (168, 168, 176),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (229, 84, 75), (246, 151, 61), (250, 205, 77), (106, 182, 92), (48, 150, 136),
    (74, 144, 217), (71, 86, 168), (151, 98, 191), (236, 124, 168), (244, 241, 232), (88, 94, 110),
)  # fmt: skip

SHOES: tuple[Color, ...] = ((70, 60, 70), (245, 245, 245), (200, 70, 60))

# Upper and lower limb in degrees from straight down, outwards, as ranges to draw from.
_ARMS = (
    ((10, 25), (0, 20)),  # hanging
    ((28, 55), (15, 60)),  # held off
    ((72, 100), (70, 112)),  # stretched sideways
    ((125, 155), (145, 185)),  # up
    ((75, 105), (145, 185)),  # waving
    ((42, 58), (-52, -34)),  # hand on hip
)
_LEGS = (
    ((2, 8), (0, 5)),  # standing
    ((12, 22), (8, 16)),  # astride
    ((28, 46), (-18, 4)),  # knee raised
    ((34, 54), (30, 50)),  # kicking
)

_ARM, _LEG, _HEAD = 0.075, 0.095, 0.118  # widths and radius, in body heights


Joints = dict[tuple[str, int], np.ndarray]
"""Points by name and side of the image: -1 left, 1 right, 0 in the middle."""


def person(rng: np.random.Generator, *, back: bool = False) -> Sprite:
    """Return a person in a random pose and random clothes, one unit high, standing on the origin.

    Args:
        rng: source of all choices.
        back: seen from behind; the nose and the eyes are then not labeled.
    """
    skin, hair = _pick(rng, SKINS), _pick(rng, HAIRS)
    shirt, trousers = (CLOTHES[i] for i in rng.choice(len(CLOTHES), 2, replace=False))
    joints = _pose(rng)
    turn = rng.uniform(-0.018, 0.018)
    joints |= {
        ("nose", 0): _on_head(joints, np.array([1.5 * turn, 0.025])),
        **{("eye", s): _on_head(joints, np.array([turn + 0.045 * s, -0.012])) for s in (-1, 1)},
        **{("ear", s): _on_head(joints, np.array([_HEAD * s, 0.01])) for s in (-1, 1)},
    }
    behind, head = _head(rng, joints, skin, hair, back=back)
    parts = [
        *behind,
        *_legs(rng, joints, skin, trousers),
        *_torso(joints, skin, shirt),
        *_arms(joints, skin, shirt, long_sleeves=rng.random() < 0.5),
        *head,
    ]
    if back and rng.random() < 0.6:
        middle = np.mean([joints[n, s] for n in ("shoulder", "hip") for s in (-1, 1)], axis=0)
        parts.append(Part(darker(trousers, 0.2), (ellipse(middle[0], middle[1], 0.075, 0.09),)))
    if rng.random() < 0.2:
        dome = arc(0, -0.04, _HEAD * 1.04, _HEAD * 0.98, 180, 360)
        brim = capsule((-0.13, -0.045), (0.13, -0.045), 0.03)
        hat = tuple(_on_head(joints, p) for p in (dome, brim))
        parts.append(Part(lighter(trousers, 0.15), hat))

    hidden = ("nose", "eye") if back else ()
    keypoints = np.full((len(KEYPOINT_NAMES), 2), np.nan)
    for i, name in enumerate(KEYPOINT_NAMES):
        side, _, joint = name.rpartition("_")
        if joint not in hidden:
            left = -1 if back else 1
            keypoints[i] = joints[joint, {"": 0, "left": left, "right": -left}[side]]
    return Sprite("person", tuple(parts), keypoints, border=0.011)


def _legs(rng: np.random.Generator, joints: Joints, skin: Color, cloth: Color) -> Iterator[Part]:
    """Draw shoes and long trousers, short ones or a skirt."""
    shoe = _pick(rng, SHOES)
    kind = rng.choice(["long", "short", "skirt"], p=[0.5, 0.25, 0.25])
    for s in (-1, 1):
        hip, knee, ankle = (joints[name, s] for name in ("hip", "knee", "ankle"))
        heel, toe = np.add(ankle, (0, 0.012)), np.add(ankle, (0.035 * s, 0.018))
        yield Part(shoe, (capsule(heel, toe, 0.065),))
        upper = skin if kind == "skirt" else cloth
        yield from _limb((hip, knee, ankle), _LEG, skin, upper, is_covered=kind == "long")
    if kind == "skirt":
        waist = [joints["hip", s] + (0.03 * s, 0) for s in (-1, 1)]
        hem = [(joints["hip", s] + joints["knee", s]) / 2 + (0.06 * s, 0) for s in (1, -1)]
        yield Part(cloth, (polygon(*waist, *hem),))


def _torso(joints: Joints, skin: Color, cloth: Color) -> Iterator[Part]:
    """Draw the neck and the trunk."""
    shoulders = joints["shoulder", -1], joints["shoulder", 1]
    hips = joints["hip", -1], joints["hip", 1]
    trunk = polygon(*shoulders, hips[1] + (0.03, 0), hips[0] - (0.03, 0))
    yield Part(skin, (capsule(joints["neck", 0], joints["head", 0], 0.07),))
    yield Part(cloth, (trunk, capsule(*shoulders, 0.075), capsule(*hips, 0.075)))


def _arms(joints: Joints, skin: Color, cloth: Color, *, long_sleeves: bool) -> Iterator[Part]:
    """Draw hands and sleeves."""
    for s in (-1, 1):
        shoulder, elbow, wrist = (joints[name, s] for name in ("shoulder", "elbow", "wrist"))
        yield Part(skin, (ellipse(wrist[0], wrist[1], 0.043),))
        yield from _limb((shoulder, elbow, wrist), _ARM, skin, cloth, is_covered=long_sleeves)


def _limb(
    points: tuple[np.ndarray, np.ndarray, np.ndarray],
    width: float,
    skin: Color,
    cloth: Color,
    *,
    is_covered: bool,
) -> list[Part]:
    """Return a limb in cloth: the upper part, and if `is_covered` the lower one, too."""
    start, middle, end = points
    upper, lower = capsule(start, middle, width), capsule(middle, end, width * 0.85)
    if is_covered:
        return [Part(cloth, (lower, upper))]
    return [Part(skin, (lower,)), Part(cloth, (upper,))]


def _head(
    rng: np.random.Generator, joints: Joints, skin: Color, hair: Color, *, back: bool
) -> tuple[list[Part], list[Part]]:
    """Return the parts of the head behind the body, and those in front of it."""

    def part(color: Color, *shapes: np.ndarray, border: bool = False) -> Part:
        return Part(color, tuple(_on_head(joints, p) for p in shapes), border)

    def around(name: str, rx: float, ry: float) -> tuple[np.ndarray, ...]:
        return tuple(ellipse(p[0], p[1], rx, ry) for (n, _), p in joints.items() if n == name)

    behind = []
    long_hair = rng.random() < 0.4
    if long_hair:
        locks = (capsule((x, 0.02), (x, 0.14), 0.1) for x in (-0.07, 0.07))
        behind.append(part(hair, *locks, ellipse(0, -0.01, _HEAD + 0.012), border=True))
    front = [
        Part(skin, around("ear", 0.03, 0.03)),
        part(skin, ellipse(0, 0, _HEAD), border=True),
    ]
    if back:
        front.append(part(hair, ellipse(0, -0.012, _HEAD * 0.98)))
        if long_hair:
            front.append(part(hair, capsule((0, 0), (0, 0.13), 0.19), border=True))
        return behind, front
    crown = arc(0, -0.012, _HEAD + 0.006, _HEAD + 0.006, 178, 362)
    fringe = arc(0, -0.045, _HEAD * 0.93, 0.045, 350, 190)
    smile = arc(0, 0.05, 0.042, 0.032, 10, 170), arc(0, 0.05, 0.042, 0.012, 170, 10)
    front += [
        part(hair, np.concatenate([crown, fringe])),
        part(mix(skin, (235, 100, 90), 0.3), *(ellipse(x, 0.035, 0.02) for x in (-0.068, 0.068))),
        part((150, 50, 50), np.concatenate(smile)),
        Part((40, 34, 44), around("eye", 0.017, 0.021), border=False),
        Part(darker(skin, 0.22), around("nose", 0.014, 0.014), border=False),
    ]
    return behind, front


def _on_head(joints: Joints, points: np.ndarray) -> np.ndarray:
    """Move points from a head that is upright, with its center at the origin, onto the head."""
    head = joints["head", 0]
    up = head - joints["neck", 0]
    x, y = up / np.linalg.norm(up)
    return head + points @ np.array([[-y, x], [-x, -y]])


def _pose(rng: np.random.Generator) -> Joints:
    """Return joints from the head to the ankles."""
    lean, tilt = rng.uniform(-8, 8), rng.uniform(-12, 12)
    hip, spine = np.zeros(2), _direction(180 + lean)
    across = np.array([-spine[1], spine[0]])
    neck = hip + 0.265 * spine
    joints = {("neck", 0): neck, ("head", 0): neck + 0.158 * _direction(180 + tilt)}
    one_leg = rng.random() < 0.4
    for side in (-1, 1):
        lifted = one_leg and side == 1
        upper, lower = (
            side * rng.uniform(*r) for r in _LEGS[rng.integers(2, 4) if lifted else rng.integers(2)]
        )
        joints["hip", side] = hip + 0.055 * side * across
        joints["knee", side] = joints["hip", side] + 0.205 * _direction(upper)
        joints["ankle", side] = joints["knee", side] + 0.2 * _direction(lower)
        upper, lower = (side * rng.uniform(*r) for r in _ARMS[rng.integers(len(_ARMS))])
        joints["shoulder", side] = neck + 0.11 * side * across + 0.02 * -spine
        joints["elbow", side] = joints["shoulder", side] + 0.16 * _direction(upper)
        joints["wrist", side] = joints["elbow", side] + 0.15 * _direction(lower)
    if rng.random() < 0.5:  # the same pose, mirrored: here there is no left and right yet
        joints = {(name, -side): p * (-1, 1) for (name, side), p in joints.items()}
    ground = max(joints["ankle", -1][1], joints["ankle", 1][1]) + 0.045
    jump = 0.1 * (rng.random() < 0.12)
    return {key: p - (0, ground + jump) for key, p in joints.items()}


def _direction(degrees: float) -> np.ndarray:
    """Return the unit vector at an angle from straight down, positive to the right."""
    t = np.radians(degrees)
    return np.array([np.sin(t), np.cos(t)])


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[rng.integers(len(colors))]
