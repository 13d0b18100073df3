"""Adaptive image retrieval: a gallery indexed once at full width, searched by small queries and reranked.

Array names are FAISS's: `xb` stored vectors, `xq` queries, `D` scores, `I` keys, `nq`, `k`.
"""

from .errors import GalleryError, SavedError
from .gallery.gallery import Gallery
from .index.rerank import prefix, rerank
from .search.gate import Gate
from .search.gated import Gated
from .search.settings import Plan, Settings
from .search.strategies import Encoded, EncodedQueries, Funnel, Hits, Queries, Shortlist, SingleShot, Strategy
from .storage.records import Row
from .storage.spec import EmbeddingSpec

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
    "SavedError",
    "Settings",
    "Shortlist",
    "SingleShot",
    "Strategy",
    "prefix",
    "rerank",
]
