"""Video classifiers that are compared."""

from ..plan import BLOCKS, FORMS, ITERATIONS, PAIRWISE, WIDTH, Plan
from .task import SPACE_DIAL, TIME_DIAL

_BLOCK = (BLOCKS, "[[],[-2],[],[]]")
_AXES = "MODEL.RESNETS.NON_LOCAL.AXES"
_BATCH = ("SOLVER.IMS_PER_BATCH", "108")  # three times the config's
_I3D = ("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x3x3")

CORE = ("none", "spacetime", "space", "time")
_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "spacetime": _BLOCK,
    "space": (*_BLOCK, _AXES, "space"),
    "time": (*_BLOCK, _AXES, "time"),
    **{form: (*_BLOCK, PAIRWISE, form) for form in FORMS},
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
}
_SEEDS, _BATCH_SEEDS = range(1, 6), range(11, 16)

PLAN = Plan(
    experiment="video",
    config="matching.yaml",
    arms={
        **_ARMS,
        "wider": (WIDTH, "9"),  # at least the block's multiply-adds
        "space_longer": (*_ARMS["space"], ITERATIONS, "1200"),
        "2_blocks": (BLOCKS, "[[],[0,2],[],[]]"),
        "4_blocks": (BLOCKS, "[[],[0,1,2,3],[],[]]"),
        "i3d": _I3D,
        "i3d_spacetime": (*_I3D, *_BLOCK),
        **{f"{arm}_batch": (*opts, *_BATCH) for arm, opts in _ARMS.items()},
        **{f"{arm}_batch_300": (*opts, *_BATCH, ITERATIONS, "300") for arm, opts in _ARMS.items()},
    },
    tasks={
        "control": (ITERATIONS, "200"),
        **{f"s_{gap}": (ITERATIONS, "300") for gap in SPACE_DIAL},
        **{f"t_{lag}": (ITERATIONS, "300") for lag in TIME_DIAL},
    },
    questions=(
        ("all", None, [f"{arm}_batch" for arm in CORE], _BATCH_SEEDS),
        ("all", None, ("none", "spacetime", "wider"), _SEEDS),
        ("control", None, CORE, _SEEDS),
        ("s_8", None, ("none", "spacetime"), _SEEDS),
    ),
)
