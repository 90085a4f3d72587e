"""How much of a signal's attention goes to its partner, far away in space and time.

Of the embedded clips told by a relation it is known where the two signals are that answer each
other (see `nl_detectron.data.clips`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .clip import Clip
from .clip_attention import ClipLook

Signal = dict[int, list[tuple[float, float]]]
"""Where a signal is: the points (x, y) of its parts, by the number of the video's frame."""


@dataclass(frozen=True, kw_only=True)
class PartnerShare:
    """How a signal attends to the other one, in one block.

    Args:
        share: of its weight that lies on the positions which cover the partner's points.
        even: what that would be if the block did not care.
        is_strongest: whether the largest weight is on one of them.
    """

    block: str
    share: float
    even: float
    is_strongest: bool


def partner_shares(look: ClipLook, signals: tuple[Signal, Signal]) -> Iterator[PartnerShare]:
    """For each block and each of the two signals, from the middle of the time that it is seen.

    A clip that misses one of the signals gives nothing.
    """
    points = [_points(look.clip, signal) for signal in signals]
    if not all(points):
        return
    for own, partner in (points, points[::-1]):
        for attention in look.attend(look.clip.point(*own[len(own) // 2])):
            share, even = attention.share_at(partner)
            yield PartnerShare(
                block=attention.block,
                share=share,
                even=even,
                is_strongest=bool(attention.windows_of(partner)[attention.largest(1)].any()),
            )


def _points(clip: Clip, signal: Signal) -> list[tuple[int, float, float]]:
    """A signal's points as (frame of the clip, x, y), in the order of the frames."""
    return [
        (frame, x, y)
        for frame, number in enumerate(clip.numbers.tolist())
        for x, y in signal.get(number, [])
    ]
