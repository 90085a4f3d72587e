"""The experiments of docs/experiments.md."""

from functools import partial

from . import results
from .boxes import plan as box_plan
from .boxes import trial as box_trial
from .keypoints import plan as keypoint_plan
from .keypoints import trial as keypoint_trial
from .run import Experiment
from .trial import Outcome
from .video import plan as video_plan
from .video import results as video_results
from .video import trial as video_trial
from .video.trial import VideoOutcome


def _describe_detectors(outcome: Outcome) -> str:
    return f"AP {outcome.ap:.1f}, AP50 {outcome.ap50:.1f}"


def _describe_clips(outcome: VideoOutcome) -> str:
    return ", ".join(
        f"{kind} {score.accuracy:.1f} % ({score.cross_entropy:.3f})"
        for kind, score in outcome.scores.items()
    )


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            name="video",
            plan=video_plan.plan,
            run_trial=video_trial.run_trial,
            load=video_results.load,
            save=video_results.save,
            describe=_describe_clips,
            by_default=video_plan.by_default,
        ),
        Experiment(
            name="boxes",
            plan=box_plan.plan,
            run_trial=box_trial.run_trial,
            load=partial(results.load, kind=box_plan.BoxTrial, prefix="boxes_"),
            save=partial(results.save, kind=box_plan.BoxTrial, prefix="boxes_"),
            describe=_describe_detectors,
            by_default=box_plan.by_default,
        ),
        Experiment(
            name="keypoints",
            plan=keypoint_plan.plan,
            run_trial=keypoint_trial.run_trial,
            load=partial(results.load, kind=keypoint_plan.KeypointTrial, prefix="keypoints_"),
            save=partial(results.save, kind=keypoint_plan.KeypointTrial, prefix="keypoints_"),
            describe=_describe_detectors,
            by_default=keypoint_plan.by_default,
        ),
    )
}
"""By name."""
