"""Adaptive image retrieval: a gallery indexed once at full width, searched by small queries and reranked.

Array names are FAISS's: `xb` stored vectors, `xq` queries, `D` scores, `I` keys, `nq`, `k`.
"""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .errors import GalleryError, SavedError
    from .gallery.gallery import Gallery
    from .index.rerank import prefix, rerank
    from .storage.records import Row
    from .storage.spec import EmbeddingSpec
    from .strategies.gate import Gate
    from .strategies.hits import Hits
    from .strategies.plan import Plan
    from .strategies.queries import Encoded, EncodedQueries, Queries
    from .strategies.search import search
    from .strategies.strategy import Step, Strategy
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".errors": (
                "GalleryError",
                "SavedError",
            ),
            ".gallery.gallery": ("Gallery",),
            ".index.rerank": (
                "prefix",
                "rerank",
            ),
            ".storage.records": ("Row",),
            ".storage.spec": ("EmbeddingSpec",),
            ".strategies.gate": ("Gate",),
            ".strategies.hits": ("Hits",),
            ".strategies.plan": ("Plan",),
            ".strategies.queries": (
                "Encoded",
                "EncodedQueries",
                "Queries",
            ),
            ".strategies.search": ("search",),
            ".strategies.strategy": (
                "Step",
                "Strategy",
            ),
        },
    )

__all__ = [
    "EmbeddingSpec",
    "Encoded",
    "EncodedQueries",
    "Gallery",
    "GalleryError",
    "Gate",
    "Hits",
    "Plan",
    "Queries",
    "Row",
    "SavedError",
    "Step",
    "Strategy",
    "prefix",
    "rerank",
    "search",
]
