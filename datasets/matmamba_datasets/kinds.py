"""What an entry of a folder or an archive is, by its name."""

from __future__ import annotations

import mimetypes
import re
from functools import cache
from importlib.util import find_spec

from .frame_names import frame_of


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHARD, TABLE = ".tar", ".parquet"
_CONTAINER = re.compile(r"(.*?(?:\.tar|\.parquet))#.", re.IGNORECASE | re.DOTALL)
IMAGE_SUFFIXES = _words("""
    .apng .avif .bmp .dib .gif .heic .heif .hif .icns .ico .j2k .jfif .jp2 .jpc .jpe .jpeg .jpg .jpx
    .mpo .pbm .pcx .pgm .png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp
""")
VIDEO_SUFFIXES = _words("""
    .264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .h264 .h265 .hevc .insv .ivf .lrv .m2ts .m2v .m4v
    .mjpeg .mjpg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
""")
_HEIF = frozenset({".heic", ".heif", ".hif"})
HEIF_CURE = "HEIC photo: pip install 'matmamba-vision[heif]' to read these"
_RAW = _words("""
    .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw
    .rw2 .rwl .sr2 .srf .srw .x3f
""")
# Beside what the table of media types knows: what cameras, systems and programs leave beside photos.
_OTHER = _words("""
    .3g2 .3gp .7z .aac .aae .ai .apk .arrow .atom .avi .bak .bash .bib .bup .bz2 .c .cache .cfg .chm
    .class .clip .cmd .conf .cpp .crdownload .csv .cue .dat .data .db .db-shm .db-wal .dds .dmg .doc
    .docm .docx .dop .dtd .dvc .eps .epub .exe .faiss .fb2 .feather .flac .flv .geojson .go .gpx .gz .h
    .h5 .hdf5 .htm .html .ics .idx .ifo .ini .insv .ipynb .iso .jar .java .js .json .jsonl .key .kml
    .kmz .lck .lmdb .lnk .lock .log .lrcat .lrdata .lrv .lz4 .m2ts .m4a .m4v .mat .md .md5 .mdb .mdf
    .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .msg .mts .mxf .ndjson .nfo .npy .npz .numbers .odg .odp .ods
    .odt .oga .ogg .ogv .old .on1 .onnx .opus .orig .ost .pages .part .partial .pdf .php .pickle .pkl
    .pl .pp3 .ppt .pptx .prproj .ps .psb .pt .pth .pts .py .pyc .rar .rb .rec .rm .rs .rst .rtf
    .safetensors .sav .scss .sh .sha1 .sha256 .sqlite .sqlite3 .srt .sub .svg .svgz .swf .swp .tbi .tex
    .tfrecord .tgz .thm .tmp .toml .torrent .ts .tsv .ttf .txt .url .vob .vtt .wav .webloc .webm .wma
    .wmf .wmv .woff .woff2 .wps .xcf .xhtml .xls .xlsx .xml .xmp .xz .yaml .yml .zip .zst
""")
_NAMES = _words("""
    authors changelog checksums copying desktop.ini dockerfile licence license makefile manifest md5sums
    notice readme sha256sums thumbs.db
""")
# What operating systems, network drives and photo programs keep beside what users put there.
_SYSTEM_FOLDERS = _words("""
    #recycle #snapshot #tmp $recycle.bin .ds_store .thumbnails .trash .trashes @eadir @recently-snapshot
    @recycle @sharebin @tmp __macosx __pycache__ lost+found recycled recycler
""") | {"system volume information"}


@cache
def reasons() -> dict[str, str]:
    """Why files of a suffix are not read as images, by suffix with its dot."""
    known = mimetypes.MimeTypes(filenames=())
    listed = [suffix for suffix, kind in known.types_map[True].items() if not kind.startswith("image/")]
    found = {suffix: f"not an image ({suffix})" for suffix in (*listed, *_OTHER)}
    found |= {suffix: f"RAW photo ({suffix}): develop it to JPEG or TIFF" for suffix in _RAW}
    if find_spec("pillow_heif") is None:
        found |= dict.fromkeys(_HEIF, HEIF_CURE)
    found |= {SHARD: "an archive beside what is read", TABLE: "a table beside what is read"}
    for suffix in IMAGE_SUFFIXES - _HEIF:
        found.pop(suffix, None)
    return found


def suffix_of(name: str) -> str:
    """The last suffix of a name in small letters, with its dot; "" if there is none."""
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def is_shard(name: str) -> bool:
    """Whether a file of this name is an archive of images, however its suffix is written."""
    return name.lower().endswith(SHARD)


def is_table(name: str) -> bool:
    """Whether a file of this name is a table."""
    return name.lower().endswith(TABLE)


def container_of(path: str) -> str:
    """The archive, table or video in which an image lies whose path is "file#name"; "" for a file of its own.

    That of an archive or table ends at the first "#" after such a suffix: names of images may have more.
    """
    if (found := _CONTAINER.match(path)) is not None:
        return found[1]
    frame = frame_of(path)
    return frame[0] if frame is not None else ""


def is_image_name(name: str) -> bool:
    """Whether a name says that this is an image of a format that is read."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_video_name(name: str) -> bool:
    """Whether a name says that this is a video; .ts is what programs in TypeScript are called, too."""
    return suffix_of(name) in VIDEO_SUFFIXES - {".ts"}


def why_no_image(name: str) -> str:
    """Why a file of this name is not read as an image, "" if it is or may be one."""
    if name.startswith("."):
        return "hidden"
    return reasons().get(suffix_of(name), "") or ("not an image" if name.lower() in _NAMES else "")


def why_no_video(name: str) -> str:
    """Why a file of this name is not read as a video, "" if it may be one."""
    if name.startswith("."):
        return "hidden"
    suffix = suffix_of(name)
    return "" if suffix in VIDEO_SUFFIXES else f"not a video ({suffix})" if suffix else "not a video"


def why_no_folder(name: str) -> str:
    """Why a folder of this name is not looked into, "" if it is."""
    if name.lower() in _SYSTEM_FOLDERS:
        return "a folder of the system"
    return "hidden" if name.startswith(".") else ""


def why_no_member(path: str) -> str:
    """Why a file of this path in an archive is not looked at, "" if it is."""
    *folders, name = path.strip("/").split("/")
    inside = next(
        filter(None, (why_no_folder(folder) for folder in folders if folder not in (".", ".."))), ""
    )
    return inside or ("hidden" if name.startswith(".") else "")
