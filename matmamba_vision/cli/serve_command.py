"""Serve galleries over HTTP, with a page to search them: queries get narrower under load instead of late.

One process answers: JSON under /v1, described by /openapi.json, and a page at /. Each query is encoded at the
widest width that the load allows, so that it is answered within --slo; what cannot be in time even at the
narrowest is refused at once, with status 503 and a Retry-After. A share of the answers is computed once more,
exactly, when nothing waits: /v1/status, /metrics and the page say how good answers of each width are.

A gallery is named as its folder is, or as NAME=FOLDER says. It is read: versions that others add are seen
within seconds, or at once by SIGHUP; --writable lets requests add and delete images. SIGTERM and Ctrl-C end
the service once what is under way is answered.

It listens at 127.0.0.1, for this machine alone. Elsewhere it needs --token-file: a file with a text of 16
letters or more, which requests bear as `Authorization: Bearer ...`. Behind a proxy, --root-path says where
that shows it.

examples:
  matmamba serve --gallery G
  matmamba serve --gallery G --gallery work=WORK --port 8080 --slo 50ms
  matmamba serve --gallery G --host 0.0.0.0 --token-file token.txt --root-path /search
  matmamba serve --gallery G --writable --keep-uploads UPLOADS
  matmamba serve --gallery G --min-width 1/4 --quality-share 0.05 --workers 1 --threads 2
  matmamba serve --gallery G --check
  matmamba serve --gallery photos=qdrant://localhost:6333/photos
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from matmamba_common.counts import counted
from matmamba_common.settings import CREW, Bounds
from matmamba_retrieval.gallery.addresses import EDGE, address_of

from ..device import limit_threads
from ..errors import ConfigError
from ..given import require_folder
from .arguments import check_flags, milliseconds, parse
from .console import say

if TYPE_CHECKING:
    from ..serving.http.options import HttpOptions
    from ..serving.http.server import ServedHttp
    from ..serving.service import Service
    from ..serving.settings import Settings

Positive = Annotated[float, Bounds(above=0)]
Share = Annotated[float, Bounds(least=0, most=1)]


@dataclass
class ServeFlags:
    # Folder of a gallery, or NAME=FOLDER; can be given several times. Instead of a folder, the address of a
    # gallery that was pushed: qdrant://host:port/collection, qdrants://, or edge:FOLDER.
    gallery: tyro.conf.UseAppendAction[list[str]]
    # Address to listen at; others than this machine's own need --token-file.
    host: str = "127.0.0.1"
    # Port to listen at; 0 for any that is free.
    port: Annotated[int, Bounds(least=0, most=65535)] = 8765
    # Time in which a request is to be answered that says nothing else, such as 100ms or 0.2s.
    slo: str = "100ms"
    # File with the token that requests have to bear.
    token_file: Path | None = None
    # Let requests add and delete images.
    writable: bool = False
    # Folder in which images that are added are kept as files, so that they can be shown.
    keep_uploads: Path | None = None
    # Size of a request, in 10^6 bytes.
    max_upload_mb: Positive = 32.0
    # Megapixels of an image; JPEGs beyond are decoded smaller.
    max_megapixels: Positive = 50.0
    # Memory of all uploads and decoded images together, in 10^6 bytes.
    memory_mb: Positive = 1000.0
    # Origin whose pages may ask, such as https://photos.example.org; can be given several times.
    cors: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    # Name under which a proxy reaches it without a token; can be given several times.
    allowed_host: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    # Where a proxy shows it, such as /search.
    root_path: str = ""
    # Narrowest width that encodes queries, whatever they say; by default the narrowest that there is.
    min_width: str = ""
    # Widths that encode queries; by default those that the gallery keeps encoders of, or the trained ones.
    widths: tuple[str, ...] = ()
    # Share of the answers that are computed once more, exactly.
    quality_share: Share = 0.01
    # Recall below which narrower widths are not used any more; 0 for none.
    quality_floor: Share = 0.0
    # Threads that answer; 0 for whichever is measured better.
    workers: Annotated[int, CREW] = 0
    # Images that are encoded at once.
    max_batch_size: Annotated[int, Bounds(least=1)] = 16
    # Longest that an image waits for others to be encoded with.
    max_wait_ms: Annotated[float, Bounds(least=0)] = 2.0
    # Requests that wait at most.
    max_queue: Annotated[int, Bounds(least=1)] = 256
    # Hits that can be asked for, those of earlier pages included.
    max_k: Annotated[int, Bounds(least=1)] = 1000
    # Seconds between two looks for newer versions; 0 for SIGHUP alone.
    poll_s: Annotated[float, Bounds(least=0)] = 2.0
    # Seconds that requests under way have to end when the service does.
    drain_s: Annotated[float, Bounds(least=0)] = 10.0
    # Where the model is, if it was moved.
    checkpoint: Path | None = None
    # cpu, cuda, or auto for whichever is there.
    device: str = "cpu"
    # Threads that encode and search; 0 for as many as there are.
    threads: Annotated[int, CREW] = 0
    # Write no line for each request, only for what goes wrong.
    quiet: bool = False
    # Start, have each width answer once, say so, and end.
    check: bool = False


def run(arguments: list[str]) -> int:
    """Serve until a signal ends it."""
    args = parse(ServeFlags, "serve", __doc__, arguments)
    check_flags(args)
    galleries, slo_ms = named_galleries(args.gallery), milliseconds(args.slo, "--slo")
    # What listens is an extra, whose absence is told in one line.
    from ..serving.http.logs import json_lines
    from ..serving.http.server import ServedHttp
    from ..serving.service import Service

    options = _options(args, slo_ms)
    limit_threads(args.threads)
    service = Service(galleries, _settings(args, slo_ms), model=args.checkpoint, device=args.device)
    served = ServedHttp(service, options, host=args.host, port=args.port)

    def ready(served: ServedHttp) -> None:
        for line in started_lines(served.url, service):
            say(line)
        sys.stdout.flush()
        if args.check:
            served.stop()

    with json_lines(sys.stderr, requests=not args.quiet):
        served.run(ready)
    return 0


def _settings(args: ServeFlags, slo_ms: float) -> Settings:
    from ..serving.settings import Settings

    return Settings(
        slo_ms=slo_ms,
        workers=args.workers,
        threads=args.threads,
        max_batch_size=args.max_batch_size,
        max_wait_ms=args.max_wait_ms,
        max_queue=args.max_queue,
        max_k=args.max_k,
        quality_share=args.quality_share,
        quality_floor=args.quality_floor,
        poll_s=args.poll_s,
        writable=args.writable,
        widths=args.widths,
        min_width=args.min_width,
    )


def _options(args: ServeFlags, slo_ms: float) -> HttpOptions:
    from ..serving.http.options import HttpOptions, read_token, require_root_path

    if args.keep_uploads is not None:
        if not args.writable:
            raise ConfigError("--keep-uploads means nothing without --writable")
        require_folder("--keep-uploads", args.keep_uploads).mkdir(parents=True, exist_ok=True)
    return HttpOptions(
        slo_ms=slo_ms,
        max_upload_mb=args.max_upload_mb,
        max_megapixels=args.max_megapixels,
        memory_mb=args.memory_mb,
        token="" if args.token_file is None else read_token(args.token_file),
        cors=tuple(args.cors),
        allowed_hosts=tuple(args.allowed_host),
        root_path=require_root_path(args.root_path),
        writable=args.writable,
        drain_s=args.drain_s,
        keep=None if args.keep_uploads is None else args.keep_uploads.absolute(),
    )


def named_galleries(given: Sequence[str]) -> dict[str, Path]:
    """Folders by the names that requests call them.

    Args:
        given: each a folder or the address of a gallery that was pushed, or NAME=FOLDER.

    Raises:
        ConfigError: none, a name that is there twice, or one that no address can hold.
    """
    found = dict[str, Path]()
    for one in given:
        name, sign, folder = one.partition("=")
        if not sign or Path(one).is_dir():
            place = Path(address_of(one).removeprefix(EDGE) or one)
            name, folder = place.resolve().name, one
        if not name or "/" in name or name in (".", ".."):
            raise ConfigError(f"--gallery {one}: a name is needed, as in NAME=FOLDER")
        if name in found:
            raise ConfigError(f"--gallery {one}: {name!r} is there twice, name one as in NAME=FOLDER")
        if not address_of(folder) and not Path(folder).is_dir():
            raise ConfigError(f"--gallery {one}: there is no folder {folder}")
        found[name] = Path(folder)
    if not found:
        raise ConfigError("--gallery is missing: name a folder that `matmamba index` made")
    return found


def started_lines(url: str, service: Service) -> list[str]:
    """What is said once questions are answered: where, of which galleries, and what their widths take.

    Args:
        url: of the service.
        service: that answers.
    """
    lines = [f"serving at {url}"]
    for name in service.names():
        about = service.describe(name)
        widths = ", ".join(map(_width_text, about["widths"]))
        images = counted(about["images"], "image")
        lines.append(f"  {name}: {images}, version {about['version']}; {widths or 'no widths'}")
    return lines


def _width_text(width: Mapping[str, Any]) -> str:
    took = "" if width["ms"] is None else f" {width['ms']:.1f} ms"
    return f"{width['width']}{took}"
