r"""Where a long text may be cut without another id: tokenizers hold some 100 bytes in memory for each byte of a text.

A cut lies between a letter or digit and the blank after it. It changes no id where

- the pre-tokeniser begins a word at every such place and looks at neither side of it from the other: this follows from
  the kind of the pre-tokeniser, or from its regular expression, of which no match may go from a character over a blank;
- the normaliser takes characters one by one, or composes them, as never happens across a blank;
- no added token has such a place, or takes the blanks after it.

What is not known to be so, such as tokenisers whose merges cross blanks, is not cut.
"""

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from tokenizers import Regex, pre_tokenizers

PIECE = 2**16
"""Characters after which a text is cut at the next place."""
PLACE = re.compile(r"(?<=[^\W_]) ")
WORDS = {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}  # they drop all blanks
SINGLE = {"Digits", "Punctuation"}  # they look at one character at a time
WHITE = {" ", r"\s", r"[\r\n]", r"\r", r"\n"}  # atoms that match nothing but white space
AHEAD = r"(?!\S)"
ATOM = (
    r"(?P<atom>\\[pP]\{\^?\w+\}|\\[sSdwrnt]|\[\^?(?:\\.|[^\[\]\\])+\]|\(\?i?:['\w|\[\]]+\)|\(\?!\\S\)|[^\\\[\](){}|*+?^$.])"
    r"(?P<times>[*+?]|\{[1-9]\d*(?:,\d*)?\})?[+?]?"
)
TOKEN = re.compile(rf"\||{ATOM}")
UNDERSTOOD = re.compile(rf"(?:\||{ATOM})+")
Atoms = list[tuple[str, str]]  # pieces of a regular expression, and how often each may match


def cut(text: str, size: int = PIECE) -> Iterator[str]:
    """The pieces of a text, each of `size` characters and those up to the next place; one if there is no place.

    >>> list(cut("one, two three four", 6))
    ['one, two', ' three', ' four']
    """
    start = 0
    while place := PLACE.search(text, start + size):
        yield text[start : place.start()]
        start = place.start()
    yield text[start:]


def cuttable(tokenizer: dict[str, Any]) -> bool:
    """Whether all texts can be cut for the tokenizer of a `tokenizer.json`."""
    added = [token for token in tokenizer["added_tokens"] if not token["special"]]
    if any(token["rstrip"] or PLACE.search(token["content"]) for token in added):
        return False
    normal, parts = _parts(tokenizer["normalizer"]), _parts(tokenizer["pre_tokenizer"])
    if normal == ["BertNormalizer"] and [part["type"] for part in parts] == ["BertPreTokenizer"]:
        return True  # the blanks that it puts around Chinese characters are dropped again
    if not {each["type"] for each in normal} <= {"NFC", "NFD", "Lowercase"}:
        return False
    before = list(takewhile(lambda part: not _begins_words(part), parts))
    after = parts[len(before) + 1 :]  # it sees the same words
    known = {*WORDS, *SINGLE, "Split", "ByteLevel"}
    return len(before) < len(parts) and all(map(_is_blind, before)) and {part["type"] for part in after} <= known


def _parts(spec: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normaliser or a pre-tokeniser, one after the other."""
    if spec is None or spec["type"] != "Sequence":
        return [] if spec is None else [spec]
    return [part for each in spec.get("pretokenizers", spec.get("normalizers", [])) for part in _parts(each)]


def _begins_words(part: dict[str, Any]) -> bool:
    """Whether a step of a pre-tokeniser begins a word at every place."""
    kind = part["type"]
    if kind in ("ByteLevel", "Metaspace"):
        return bool(part.get("use_regex" if kind == "ByteLevel" else "split", True))
    return kind in WORDS or (kind == "Split" and _is_blind(part) and [(r"\s", "+")] in _alternatives(part))


def _is_blind(part: dict[str, Any]) -> bool:
    """Whether a step does on either side of a place what it does without the other side."""
    if part["type"] != "Split":
        return part["type"] in SINGLE
    if part["behavior"] not in ("Isolated", "Removed") or part["invert"]:
        return False
    return all(map(_stops_at_blanks, _alternatives(part)))


def _alternatives(part: dict[str, Any]) -> list[Atoms]:
    """Those of a regular expression; one without atoms where it is not understood."""
    pattern = part["pattern"].get("Regex", "")
    found: list[Atoms] = [[]]
    for token in TOKEN.finditer(pattern) if UNDERSTOOD.fullmatch(pattern) else ():
        if token[0] == "|":
            found.append([])
        else:
            found[-1].append((token["atom"], token["times"] or "1"))
    return found


def _stops_at_blanks(atoms: Atoms) -> bool:
    """Whether they match something, but never a blank after a character that is no white space, nor look for one."""
    solid = False  # whether what stands before may be other than white space
    for atom, times in atoms:
        blank, white = atom == AHEAD or _matches_blank(atom), atom in WHITE
        if blank and (solid or not (white or times in ("1", "?"))):
            return False
        solid = solid or not (white or atom == AHEAD)
    return any(atom != AHEAD and times not in ("*", "?") for atom, times in atoms)


def _matches_blank(atom: str) -> bool:
    return not pre_tokenizers.Split(Regex(atom), "removed").pre_tokenize_str(" ")
