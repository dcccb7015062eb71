"""Class words: what to look for, as a user writes it, a file holds it, or a label space has it.

A class has a name and one or more words; whatever matches one of the words belongs to the class.
In a list classes stand between commas, semicolons or line ends:

    cat, dog
    vehicle: car | bus | lorry; person | rider

The second line has a class named `vehicle` with three words, and one named `person`, its first
word, with two. What holds a sign that means something goes in double quotes, `"table, wooden"`; a
quote inside is doubled.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from zerolabel.data.spaces import SPACES, space
from zerolabel.errors import UsageError, unknown_name

BETWEEN = ",;\n"  # classes of a list; in a file it is lines alone
FILES = (".txt", ".csv")
QUOTED = re.compile(r'[,;:|"#/\\]|\.(txt|csv)$', re.IGNORECASE)  # what would be read otherwise
# One name or word, quoted or not, and the sign after it; of all blanks a line end is a sign.
PART = (
    r'[^\S\n]*(?:"(?P<quoted>(?:[^"]|"")*)"[^\S\n]*|(?P<plain>(?![^\S\n]*")[^{signs}]*))'
    r"(?P<sign>[{signs}]|\Z)"
)

Entry = tuple[str, tuple[str, ...]]  # a class: its name and its words


@dataclass(frozen=True)
class Words:
    """Words, and the classes that they belong to.

    Attributes:
        words: Q words, those of a class together.
        groups: the class of each word, Q numbers of 0..K-1.
        names: K names of the classes.
    """

    words: tuple[str, ...]
    groups: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in one line, which `parse_words` turns into an equal object."""
        return ", ".join(
            _written(
                name, [word for word, k in zip(self.words, self.groups, strict=True) if k == i]
            )
            for i, name in enumerate(self.names)
        )


def parse_words(text: str) -> Words:
    """Read class words.

    Args:
        text: a label space, e.g. "voc20", for its classes and what CLIP is asked for them; or a
            text file with a class per line, in which commas and semicolons are parts of names and
            lines that begin with # are comments; or a `.csv` file with a column `name` and
            optionally one `words`, between `|`; or a list. A file is one whose name ends in .txt
            or .csv, or has a folder before it.

    Returns:
        The words; blanks at the ends are dropped and those inside joined to one, and so are blank
        entries.

    Raises:
        UsageError: no class at all, a class twice, a word in two classes, a file that is missing or
            cannot be read, or a quote without an end.
    """
    text = text.strip()
    if text in SPACES:
        chosen = space(text)
        pairs = zip(chosen.classes, chosen.prompts, strict=True)
        return _words([(_joined(name), (_joined(word),)) for name, word in pairs], source=text)
    path = _file(text)
    if path is None:
        return _words(_entries(text, between=BETWEEN), source="the list")
    return _words(_of_file(path), source=str(path))


def words_of(names: Sequence[str]) -> Words:
    """Let every class be its own word, whatever signs its name holds.

    Classes of a label space are asked for as it says, e.g. "airplane" for "aeroplane".

    Args:
        names: of K classes.

    Returns:
        The words.

    Raises:
        UsageError: no class at all, a class twice, or one without a name.
    """
    joined = [_joined(name) for name in names]
    if "" in joined:
        raise UsageError(f"Class {joined.index('')} has no name. Give it one.")
    for known in SPACES:
        if space(known).classes == tuple(joined):
            return parse_words(known)
    return _words([(name, (name,)) for name in joined], source="the list")


def templates(name: str) -> tuple[str, ...]:
    """Look sentences up that a word is put into, in place of {}.

    Args:
        name: "all" (85), "imagenet" (80) or "plain" (one).

    Returns:
        The sentences.

    Raises:
        UsageError: no set of sentences has this name.

    Source:
        Radford et al. 2021 (CLIP), 80 for ImageNet; Zhou et al. 2022 (MaskCLIP), 5 more.
    """
    if name not in SETS:
        raise unknown_name("set of templates", name, SETS)
    return SETS[name]


def _of_package() -> tuple[str, ...]:
    text = resources.files("zerolabel.data").joinpath("templates.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


TEMPLATES = _of_package()
SETS = {"all": TEMPLATES, "imagenet": TEMPLATES[:80], "plain": ("a photo of a {}.",)}


def _file(text: str) -> Path | None:
    """Tell a file from a list: a list has line ends, semicolons, quotes, or neither folder nor end.

    Raises:
        UsageError: it is called like a file, but there is none.
    """
    if any(sign in text for sign in '\n;"'):
        return None
    called = text.lower().endswith(FILES)
    if called or "/" in text or "\\" in text:
        path = Path(text).expanduser()
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):  # too long for a name, or no name at all
            pass
    if called:
        raise UsageError(
            f"{text} is not a file. Give the path of a file with one class per line, or put the "
            "name in double quotes if a class is called so."
        )
    return None


def _of_file(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}). Expected a text file in UTF-8 with one class per "
            "line, or a .csv file with a column name."
        ) from None
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    if path.suffix.lower() == ".csv":
        return _of_table(lines, path)
    return [entry for line in lines for entry in _entries(line, between="")]


def _of_table(lines: Iterable[str], path: Path) -> list[Entry]:
    """Read a table with a column `name` and optionally `words`."""
    rows = csv.DictReader(lines, skipinitialspace=True)
    columns = [column.strip() for column in rows.fieldnames or ()]
    if "name" not in columns:
        raise UsageError(
            f"{path} has columns {', '.join(columns) or '(none)'}; expected name, and optionally "
            "words, in the first line."
        )
    rows.fieldnames = columns
    found = []
    for row in rows:
        name, words = _joined(row["name"] or ""), (row.get("words") or "").split("|")
        kept = tuple(filter(None, map(_joined, words)))
        if kept and not name:
            raise UsageError(f"{path} has words without a name: {' | '.join(kept)}.")
        if name:
            found.append((name, kept or (name,)))
    return found


def _entries(text: str, *, between: str) -> list[Entry]:
    """Read classes that stand between any of the signs `between`."""
    found: list[Entry] = []
    name, words = "", list[str]()
    for part, sign in _parts(text, between + ":|"):
        if sign == ":":
            if name or words or not part:
                raise _unclear(text)
            name = part
            continue
        words += [part] if part else []
        if sign != "|":
            if name and not words:
                raise UsageError(f"Class {name!r} has no word after the colon. Write one there.")
            if words:
                found.append((name or words[0], tuple(words)))
            name, words = "", []
    return found


def _parts(text: str, signs: str) -> Iterator[tuple[str, str]]:
    """Part a text at signs that are not in quotes; each part comes with the sign after it."""
    pattern = re.compile(PART.replace("{signs}", re.escape(signs)))
    at = 0
    while at <= len(text):
        match = pattern.match(text, at)
        if match is None:
            raise _unclear(text[at:])
        quoted = match["quoted"]
        yield (
            _joined(match["plain"] if quoted is None else quoted.replace('""', '"')),
            match["sign"],
        )
        at = match.end() + (not match["sign"])


def _unclear(text: str) -> UsageError:
    short = text if len(text) <= 60 else f"{text[:60]}..."
    return UsageError(
        f"Expected classes such as `cat` or `vehicle: car | bus`, found {short!r}. What holds one "
        "of the signs , ; : | goes in double quotes, and a quote in it is doubled."
    )


def _words(entries: Sequence[Entry], *, source: str) -> Words:
    """Check classes, and put their words in a row."""
    names: dict[str, str] = {}  # what names have in common -> the name
    words: dict[str, tuple[str, int]] = {}  # what words have in common -> the word and its class
    for k, (name, own) in enumerate(entries):
        if _alike(name) in names:
            raise UsageError(f"Class {name!r} is there twice in {source}. Leave one out.")
        names[_alike(name)] = name
        for word in own:
            _, owner = words.setdefault(_alike(word), (word, k))
            if owner != k:
                raise UsageError(
                    f"The word {word!r} belongs to two classes of {source}, {entries[owner][0]!r} "
                    f"and {name!r}. Leave it out of one."
                )
    if not names:
        raise UsageError(
            f"No class in {source}. Write classes between commas, e.g. cat, dog, or name a file or "
            f"one of {', '.join(SPACES)}."
        )
    rows = list(words.values())
    return Words(tuple(word for word, _ in rows), tuple(k for _, k in rows), tuple(names.values()))


def _written(name: str, words: Sequence[str]) -> str:
    """Write a class so that it is read again."""
    written = " | ".join(map(_quoted, words))
    return written if words[0] == name else f"{_quoted(name)}: {written}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) or text in SPACES else text


def _joined(text: str) -> str:
    return " ".join(text.split())


def _alike(text: str) -> str:
    """What texts have in common that CLIP, or a reader, would take for one."""
    return unicodedata.normalize("NFC", text).casefold()
