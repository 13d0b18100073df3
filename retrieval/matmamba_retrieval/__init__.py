"""Adaptive image retrieval: a gallery indexed once at full width, searched by small queries and reranked.

Array names are FAISS's: `xb` stored vectors, `xq` queries, `D` scores, `I` keys, `nq`, `k`.
"""

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
