"""Adaptive image retrieval: a gallery indexed once at full width, searched by small queries and reranked.

Array names are FAISS's: `xb` stored vectors, `xq` queries, `D` scores, `I` keys, `nq`, `k`.
"""

from .errors import GalleryError
from .gallery import Gallery
from .gate import Gate
from .gated import Gated
from .records import Row
from .rerank import prefix, rerank
from .settings import Plan, Settings
from .spec import EmbeddingSpec
from .strategies import Encoded, EncodedQueries, Funnel, Hits, Queries, Shortlist, SingleShot, Strategy

__all__ = [
    "EmbeddingSpec",
    "Encoded",
    "EncodedQueries",
    "Funnel",
    "Gallery",
    "GalleryError",
    "Gate",
    "Gated",
    "Hits",
    "Plan",
    "Queries",
    "Row",
    "Settings",
    "Shortlist",
    "SingleShot",
    "Strategy",
    "prefix",
    "rerank",
]
