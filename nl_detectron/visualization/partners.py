"""How much of a signal's attention goes to its partner, far away in space and time.

Of the embedded clips told by a relation it is known where the two signals are that answer each
other (see `nl_detectron.data.datasets.synthetic.clips`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..analysis.attention import Attention, ClipAttention
from ..analysis.clip import Clip

Signal = dict[int, list[tuple[float, float]]]
"""Where a signal is: the points (x, y) of its parts, by the number of the video's frame."""

Points = list[tuple[int, float, float]]
"""A signal's points in a clip: (frame of the clip, x, y), in the order of the frames."""

SIDES = ("left", "right")
"""Of the frame, in the order of `nl_detectron.data.datasets.synthetic.clips.signals`."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one place gets of a row of a block's map.

    Args:
        share: of the absolute weight.
        even: what that would be if the block did not care.
        is_strongest: whether the largest weight is there, above an even share.
    """

    share: float
    even: float
    is_strongest: bool


@dataclass(frozen=True, kw_only=True)
class PartnerShare:
    """How a signal attends to the other one, in one block.

    Args:
        side: where the signal is that is looked from, one of `SIDES`.
        partner: the windows that cover the centres of the partner's parts.
        around_partner: these and the windows next to them, in the same time steps.
        around_itself: the same of the signal that is looked from.
    """

    block: str
    side: str
    partner: Share
    around_partner: Share
    around_itself: Share


def partner_shares(look: ClipAttention, signals: tuple[Signal, Signal]) -> Iterator[PartnerShare]:
    """For each of the two signals and each block, from the middle of the time that it is seen.

    A clip that misses one of the signals gives nothing.
    """
    points = [_points(look.clip, signal) for signal in signals]
    if not all(points):
        return
    for side, own, partner in zip(SIDES, points, points[::-1], strict=True):
        for attention in look.attend(look.clip.point(*own[len(own) // 2])):
            yield PartnerShare(
                block=attention.block,
                side=side,
                partner=_share(attention, partner),
                around_partner=_share(attention, partner, margin=1),
                around_itself=_share(attention, own, margin=1),
            )


def _share(attention: Attention, points: Points, *, margin: int = 0) -> Share:
    share, even = attention.share_at(points, margin=margin)
    strongest = attention.windows_of(points, margin=margin)[attention.largest(1)]
    return Share(share=share, even=even, is_strongest=bool(strongest.any()))


def _points(clip: Clip, signal: Signal) -> Points:
    return [
        (frame, x, y)
        for frame, number in enumerate(clip.numbers.tolist())
        for x, y in signal.get(number, [])
    ]
