"""The tables of a gallery's catalogue, and the blocks of their rows that have a digest.

The texts here are part of the file format: a catalogue with other tables is refused, and a digest covers the
query that reads its block.
"""

from __future__ import annotations

from dataclasses import dataclass

# Format 2 had no digests; it is read, and becomes format 3 when it is opened for writing.
FORMAT, READABLE = 3, (2, 3)
# Keys of images under one digest: few to read before one of them is answered with.
IMAGE_BLOCK = 64
VERSION_BLOCK = 256
SEGMENT_BLOCK = 1 << 20


@dataclass(frozen=True)
class Table:
    """A table, divided into blocks.

    Attributes:
        columns: their definitions.
        key: columns of the primary key.
        part: the column by which it is divided first, "" for none.
        number: the column by which it is divided then, into `block` numbers each.
        since: the format that has it first.
    """

    name: str
    columns: str
    key: str
    part: str = ""
    number: str = ""
    block: int = 1
    since: int = 2

    @property
    def definition(self) -> str:
        """The statement that makes it."""
        if self.key == "number":  # an integer that is its own row number
            return f"CREATE TABLE {self.name} ({self.columns})"
        return f"CREATE TABLE {self.name} ({self.columns}) WITHOUT ROWID"

    @property
    def misfits(self) -> str:
        """The query for the number of rows with a value that is not of its column's type."""
        found = []
        for column in self.columns.split(", "):
            name, kind, *rest = [*column.split(), ""]
            if kind in ("TEXT", "INTEGER", "BLOB"):
                kinds = [kind.lower()] + ["null"] * (not rest[:-1])
                found.append(f"typeof({name}) NOT IN ({', '.join(map(repr, kinds))})")
        return f"SELECT count(*) FROM {self.name} WHERE {' OR '.join(found)}"

    def place(self, row: str) -> tuple[str, str]:
        """SQL for the part and block of a row: NEW, OLD, or the table itself."""
        return (
            f"{row}.{self.part}" if self.part else "0",
            f"{row}.{self.number} / {self.block}" if self.number else "0",
        )

    def rows_of(self, part: int, block: int) -> str:
        """The query for the rows of a block, in the order of their keys."""
        conditions = [f"{self.part} = {part:d}"] if self.part else []
        if self.number:
            first = block * self.block
            conditions.append(f"{self.number} >= {first} AND {self.number} < {first + self.block}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT * FROM {self.name}{where} ORDER BY {self.key}"


_TABLES = (
    Table("about", "name TEXT PRIMARY KEY, value TEXT NOT NULL", "name"),
    Table(
        "generations",
        "number INTEGER PRIMARY KEY, spec TEXT NOT NULL, checkpoint_path TEXT NOT NULL, widths TEXT NOT NULL,"
        " since INTEGER NOT NULL, plan TEXT NOT NULL DEFAULT 'null'",
        "number",
    ),
    Table(
        "versions",
        "number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, keys INTEGER NOT NULL,"
        " live INTEGER NOT NULL, time TEXT NOT NULL",
        "number",
        number="number",
        block=VERSION_BLOCK,
    ),
    Table(
        "segments",
        "generation INTEGER NOT NULL, width TEXT NOT NULL, start INTEGER NOT NULL, rows INTEGER NOT NULL,"
        " file TEXT NOT NULL, sha256 TEXT NOT NULL, checks BLOB NOT NULL,"
        " PRIMARY KEY (generation, width, start)",
        "generation, width, start",
        part="generation",
        number="start",
        block=SEGMENT_BLOCK,
    ),
    Table(
        "images",
        "generation INTEGER NOT NULL, key INTEGER NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, label TEXT,"
        " metadata TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER, PRIMARY KEY (generation, key)",
        "generation, key",
        part="generation",
        number="key",
        block=IMAGE_BLOCK,
    ),
    Table(
        "shortlists",
        "generation INTEGER NOT NULL, name TEXT NOT NULL, width TEXT NOT NULL, dim INTEGER NOT NULL,"
        " recipe TEXT NOT NULL, rows INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL,"
        " PRIMARY KEY (generation, name)",
        "generation, name",
        part="generation",
    ),
    Table("fields", "name TEXT PRIMARY KEY", "name"),
)
TABLES = {table.name: table for table in _TABLES}
# Of the tables above; these have no digests themselves.
DIGESTS = Table(
    "digests",
    "name TEXT NOT NULL, part INTEGER NOT NULL, block INTEGER NOT NULL, digest BLOB NOT NULL,"
    " PRIMARY KEY (name, part, block)",
    "name, part, block",
    since=3,
)
# What is known of the images' files. Nothing is answered from it, so it has no digests.
SOURCES = Table(
    "sources", "id TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL", "id", since=3
)
INDEXES = {
    "live": "CREATE UNIQUE INDEX live ON images (generation, id) WHERE removed IS NULL",
    "gone": "CREATE INDEX gone ON images (generation, removed) WHERE removed IS NOT NULL",
}


def tables(number: int = FORMAT) -> list[Table]:
    """The tables of a format."""
    return [table for table in (*_TABLES, DIGESTS, SOURCES) if table.since <= number]


def table_script(number: int = FORMAT) -> str:
    """SQL that makes the tables of a format, empty and without their indexes."""
    return "; ".join(table.definition for table in tables(number))


def index_script() -> str:
    """SQL that makes the indexes."""
    return "; ".join(INDEXES.values())


def objects(number: int) -> dict[str, str]:
    """What SQLite's schema has to hold: definitions by name, in single spaces."""
    made = {table.name: table.definition for table in tables(number)} | INDEXES
    return {name: spaced(sql) for name, sql in made.items()}


def spaced(sql: str) -> str:
    """A definition in single spaces, none inside brackets: as different versions have written it."""
    return " ".join(sql.replace("(", " ( ").replace(")", " ) ").split())
