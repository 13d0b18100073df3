"""The calls that users make: what `import matmamba_vision` offers; each command makes one of them.

Results are values, errors are exceptions that derive from `MatMambaError`, progress goes to a callback;
nothing prints, exits or parses flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

from .errors import refusals

if TYPE_CHECKING:
    from matmamba_retrieval import Strategy
    from matmamba_retrieval.backends.comparison import PushCheck
    from matmamba_retrieval.backends.pushing import Pushed

    from .cluster.ray_cluster import ClusterError, RayCluster
    from .cluster.ray_index import index_on_ray
    from .data import CheckedData, Prepared, prepare_shards, reading_rates, verify_data
    from .encoders import Encoder, EncoderError, encoder_from, open_encoder
    from .errors import MissingPackageError, NotFiniteError, SystemRefusalError
    from .galleries.answers import Answer, Hit, answers_to_dict
    from .galleries.given_vectors import GivenVectors
    from .galleries.image_intake import index
    from .galleries.intake import Indexed
    from .galleries.plans import PlanFound
    from .galleries.result_page import write_page
    from .galleries.shortlists import build_indexes
    from .galleries.taught import Taught, with_teacher
    from .galleries.vector_intake import index_vectors
    from .progress import Event, Listener, Notice, Progress
    from .runs import (
        DistillConfig,
        Run,
        TrainConfig,
        TrainingPlan,
        distill,
        load_config,
        plan_training,
        train,
    )
    from .studies.demo import Demonstration, demo
    from .studies.evaluate import evaluate
    from .studies.gallery_study import evaluate_gallery
    from .studies.study import Study
    from .studies.tune import Tuned, tune
    from .upkeep.duplicates import DuplicatesFound
    from .upkeep.exchange import import_gallery
    from .upkeep.health import Repaired, Verified
    from .upkeep.image_gallery import ImageGallery, open_gallery
    from .upkeep.labels import LabelFindings
    from .upkeep.maker import EncoderSet
    from .upkeep.merge import Merged, merge
    from .upkeep.moving import Moved
    from .upkeep.reindex import Reindexed, reindex
    from .video.video_intake import index_video
    from .video.video_pass import IndexedVideos
    from .video.watch_events import (
        GalleryChanged,
        MatchBegan,
        MatchEnded,
        StreamBack,
        StreamLost,
        WatchEnded,
        WatchEvent,
        WatchStarted,
        WatchStatus,
    )
    from .video.watching import Watch, watch
    from .widths.extract import Extracted, extract
    from .widths.select import Selected, select
    from .widths.validate import Validation, validate
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            "matmamba_retrieval": ("Strategy",),
            "matmamba_retrieval.backends.comparison": ("PushCheck",),
            "matmamba_retrieval.backends.pushing": ("Pushed",),
            ".cluster.ray_cluster": (
                "ClusterError",
                "RayCluster",
            ),
            ".cluster.ray_index": ("index_on_ray",),
            ".data": (
                "CheckedData",
                "Prepared",
                "prepare_shards",
                "reading_rates",
                "verify_data",
            ),
            ".encoders": (
                "Encoder",
                "EncoderError",
                "encoder_from",
                "open_encoder",
            ),
            ".errors": (
                "MissingPackageError",
                "NotFiniteError",
                "SystemRefusalError",
            ),
            ".galleries.answers": (
                "Answer",
                "Hit",
                "answers_to_dict",
            ),
            ".galleries.given_vectors": ("GivenVectors",),
            ".galleries.image_intake": ("index",),
            ".galleries.intake": ("Indexed",),
            ".galleries.plans": ("PlanFound",),
            ".galleries.result_page": ("write_page",),
            ".galleries.shortlists": ("build_indexes",),
            ".galleries.taught": (
                "Taught",
                "with_teacher",
            ),
            ".galleries.vector_intake": ("index_vectors",),
            ".progress": (
                "Event",
                "Listener",
                "Notice",
                "Progress",
            ),
            ".runs": (
                "DistillConfig",
                "Run",
                "TrainConfig",
                "TrainingPlan",
                "distill",
                "load_config",
                "plan_training",
                "train",
            ),
            ".studies.demo": (
                "Demonstration",
                "demo",
            ),
            ".studies.evaluate": ("evaluate",),
            ".studies.gallery_study": ("evaluate_gallery",),
            ".studies.study": ("Study",),
            ".studies.tune": (
                "Tuned",
                "tune",
            ),
            ".upkeep.duplicates": ("DuplicatesFound",),
            ".upkeep.exchange": ("import_gallery",),
            ".upkeep.health": (
                "Repaired",
                "Verified",
            ),
            ".upkeep.image_gallery": (
                "ImageGallery",
                "open_gallery",
            ),
            ".upkeep.labels": ("LabelFindings",),
            ".upkeep.maker": ("EncoderSet",),
            ".upkeep.merge": (
                "Merged",
                "merge",
            ),
            ".upkeep.moving": ("Moved",),
            ".upkeep.reindex": (
                "Reindexed",
                "reindex",
            ),
            ".video.video_intake": ("index_video",),
            ".video.video_pass": ("IndexedVideos",),
            ".video.watch_events": (
                "GalleryChanged",
                "MatchBegan",
                "MatchEnded",
                "StreamBack",
                "StreamLost",
                "WatchEnded",
                "WatchEvent",
                "WatchStarted",
                "WatchStatus",
            ),
            ".video.watching": (
                "Watch",
                "watch",
            ),
            ".widths.extract": (
                "Extracted",
                "extract",
            ),
            ".widths.select": (
                "Selected",
                "select",
            ),
            ".widths.validate": (
                "Validation",
                "validate",
            ),
        },
        refusals,
    )

__all__ = [
    "Answer",
    "CheckedData",
    "ClusterError",
    "Demonstration",
    "DistillConfig",
    "DuplicatesFound",
    "Encoder",
    "EncoderError",
    "EncoderSet",
    "Event",
    "Extracted",
    "GalleryChanged",
    "GivenVectors",
    "Hit",
    "ImageGallery",
    "Indexed",
    "IndexedVideos",
    "LabelFindings",
    "Listener",
    "MatchBegan",
    "MatchEnded",
    "Merged",
    "MissingPackageError",
    "Moved",
    "NotFiniteError",
    "Notice",
    "PlanFound",
    "Prepared",
    "Progress",
    "PushCheck",
    "Pushed",
    "RayCluster",
    "Reindexed",
    "Repaired",
    "Run",
    "Selected",
    "Strategy",
    "StreamBack",
    "StreamLost",
    "Study",
    "SystemRefusalError",
    "Taught",
    "TrainConfig",
    "TrainingPlan",
    "Tuned",
    "Validation",
    "Verified",
    "Watch",
    "WatchEnded",
    "WatchEvent",
    "WatchStarted",
    "WatchStatus",
    "answers_to_dict",
    "build_indexes",
    "demo",
    "distill",
    "encoder_from",
    "evaluate",
    "evaluate_gallery",
    "extract",
    "import_gallery",
    "index",
    "index_on_ray",
    "index_vectors",
    "index_video",
    "load_config",
    "merge",
    "open_encoder",
    "open_gallery",
    "plan_training",
    "prepare_shards",
    "reading_rates",
    "reindex",
    "select",
    "train",
    "tune",
    "validate",
    "verify_data",
    "watch",
    "with_teacher",
    "write_page",
]
