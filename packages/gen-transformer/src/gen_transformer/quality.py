"""Is a text worth training on? The published rules of Gopher, C4, RefinedWeb and FineWeb, per language.

    gopher_quality(page, language="fr")    # None to keep it, or the reason to drop it: "gopher_short_doc", ...
    text, reason = c4_lines(page)          # the lines that are sentences

A rule is a function of a text. Reasons are named as datatrove names them, thresholds are those of the papers, and stop
words are per language, because English ones drop French pages.

[Rae21] Scaling language models: Gopher, arXiv:2112.11446, section A.1.1 and table A1.
[Raffel20] T5 and C4, JMLR 21(140), section 2.2.   [Penedo23] RefinedWeb, arXiv:2306.01116, appendix G.
[Penedo24] FineWeb, arXiv:2406.17557, section 3.6.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

STOP_WORDS: dict[str, frozenset[str]] = {  # the frequent words without which a text is no prose; en are [Rae21]'s
    language: frozenset(words.split())
    for language, words in {
        "en": "the be to of and that have with",
        "fr": "le la les de des et est à que qui dans pour une en",
        "de": "der die das und ist in zu den mit nicht von ein",
        "es": "el la los las de que y en es por con una",
        "it": "il la di che e è un una per non in con",
        "pt": "o a os de que e do da em um uma para",
        "nl": "de het een en van in is dat op te niet met",
    }.items()
}


# ---------------------------------------------------------------------- words


_MARKS = r"""[\],:;!?¿¡()\[{}<>_#*&"'“”‘’«»„‚`´…—–$€£¥§%=•·]"""  # words of their own where a word begins or ends
_SHORT = r"(?:n['’]t|['’](?:s|re|ve|ll|d|m))\b"  # don't: do n't
_JOINT = r"(?:(?<=[^\W_])[:<>=/](?=[^\W\d_])|(?<=[^\W\d_])[-–—,](?=[^\W\d_])|(?<=[a-zà-ÿ])\.(?=[A-Z]))"  # and/or
# repetitions are bounded, so that garbage costs no more than text
_END = rf"(?=(?:{_MARKS}|\.|{_SHORT}){{0,99}}(?:\s|\Z)|{_JOINT}|\.\.|…)"
_WORD = re.compile(
    rf"\.{{2,}}|…|\w{{1,20}}://\S*[\w/]|[\w.+-]{{1,64}}@[\w.-]*\w|(?:\b[^\W\d_]\.){{2,}}|{_SHORT}|{_JOINT}"
    rf"|(?!{_MARKS})\S(?:\S*?(?!{_MARKS}|\.)\S)??{_END}|\S"
)
_ELISION = re.compile(r"(?<=\w['’])(?=\w)")  # l'homme: l' homme


@lru_cache(8)  # several rules split the same text
def words(text: str, language: str = "en") -> tuple[str, ...]:
    """What stands between blanks, cut at marks, hyphens and slashes: words and marks in order.

    Contractions are two words (do n't), and so are elisions in French and Italian (l' homme). Near what spaCy, and so
    datatrove, takes for words.

    >>> words("State-of-the-art? I don't (really) know /etc/apt...")[7:]
    ('?', 'I', 'do', "n't", '(', 'really', ')', 'know', '/etc', '/', 'apt', '...')
    """
    found = _WORD.findall(text)
    if language in ("fr", "it"):
        return tuple(part for word in found for part in _ELISION.split(word))
    return tuple(found)


def _is_sign(word: str) -> bool:
    return not any(c.isalnum() for c in word)


# ---------------------------------------------------------------------- rules for a text


def gopher_quality(
    text: str,
    *,
    language: str = "en",
    min_words: int = 50,
    max_words: int = 100_000,
    word_length: tuple[float | int, float | int] = (3, 10),
    max_symbols: float = 0.1,
    max_bullets: float = 0.9,
    max_ellipses: float = 0.3,
    min_alphabetic: float = 0.8,
    min_stop_words: int = 2,
    stop_words: Iterable[str] | None = None,
) -> str | None:
    """Is it prose? ([Rae21] A.1.1, "quality filtering")

    Args:
        language: of the stop words and of what is a word.
        word_length: least and largest mean, in characters, of words that are not mere signs.
        max_symbols: of "#" per word, and of ellipses per word.
        max_bullets, max_ellipses: shares of the lines that start with a bullet, or end with an ellipsis.
        min_alphabetic: share of the words with a letter.
        stop_words: others than those of `STOP_WORDS[language]`.
    """
    if stop_words is None and language not in STOP_WORDS:
        raise ValueError(f"no stop words for language {language!r}, only for {', '.join(STOP_WORDS)}; pass stop_words=")
    stop = STOP_WORDS[language] if stop_words is None else set(stop_words)
    found = words(text, language)
    spoken = [len(w) for w in found if not _is_sign(w)]
    if len(spoken) < max(min_words, 1):
        return "gopher_short_doc"
    if len(spoken) > max_words:
        return "gopher_long_doc"
    n, mean, lines = len(found), sum(spoken) / len(spoken), text.splitlines()
    ellipses = text.count("...") + text.count("…")
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    trailing = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    checks = {
        "gopher_below_avg_threshold": mean < word_length[0],
        "gopher_above_avg_threshold": mean > word_length[1],
        "gopher_too_many_hashes": text.count("#") > max_symbols * n,
        "gopher_too_many_ellipsis": ellipses > max_symbols * n,
        "gopher_too_many_bullets": bullets > max_bullets * len(lines),
        "gopher_too_many_end_ellipsis": trailing > max_ellipses * len(lines),
        "gopher_below_alpha_threshold": sum(any(map(str.isalpha, w)) for w in found) < min_alphabetic * n,
        "gopher_enough_stop_words": len(stop.intersection(found)) < min_stop_words,
    }
    return next((reason for reason, fails in checks.items() if fails), None)


TOP_N_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_N_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def gopher_repetition(text: str, *, language: str = "en") -> str | None:
    """Does it repeat itself? ([Rae21] table A1: lines, paragraphs, the top n-gram, n-grams that came before)

    Shares of characters are of the whole text.
    """
    if not text:
        return "empty"
    for name, parts in (("para", re.split(r"\n{2,}", text.strip())), ("line", re.split(r"\n+", text))):
        repeated = _repeated(parts)
        if len(repeated) > 0.3 * len(parts):
            return f"dup_{name}_frac"
        if sum(map(len, repeated)) > 0.2 * len(text):
            return f"dup_{name}_char_frac"
    found = words(text, language)
    for n, share in TOP_N_GRAMS.items():
        if _top(found, n) > share * len(text):
            return f"top_{n}_gram"
    for n, share in DUPLICATE_N_GRAMS.items():
        if _duplicated(found, n) > share * len(text):
            return f"duplicated_{n}_n_grams"
    return None


def _repeated(parts: Iterable[str]) -> list[str]:
    """Every part that stood there before."""
    seen: set[str] = set()
    return [part for part in parts if part in seen or seen.add(part)]


def _top(found: Sequence[str], n: int) -> int:
    """Characters in the most frequent n-gram, blanks between words included; of equally frequent ones, the first."""
    grams = Counter(zip(*(found[i:] for i in range(n)), strict=False))
    if not grams:
        return 0
    gram, count = grams.most_common(1)[0]
    return count * (sum(map(len, gram)) + n - 1)


def _duplicated(found: Sequence[str], n: int) -> int:
    """Characters in n-grams that came before, none counted twice: behind a repeated one, the next starts anew."""
    seen, repeated, i = set(), 0, 0
    while i <= len(found) - n:
        gram = "".join(found[i : i + n])
        if gram in seen:
            repeated += len(gram)
            i += n
        else:
            seen.add(gram)
            i += 1
    return repeated


def fineweb_quality(text: str, *, language: str = "en") -> str | None:
    """Lists, menus and stubs ([Penedo24] 3.6): few lines end a sentence, most are short, or some are there twice."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "empty"
    repeated = sum(map(len, _repeated(lines)))
    checks = {
        "line_punct_ratio": sum(line.endswith(TERMINAL) for line in lines) < 0.12 * len(lines),
        "short_line_ratio": sum(len(line) <= 30 for line in lines) > 0.67 * len(lines),
        "char_dup_ratio": repeated > 0.01 * len(text.replace("\n", "")),
        "list_ratio": text.count("\n") > 0.3 * len(words(text, language)),
    }
    return next((reason for reason, fails in checks.items() if fails), None)


# ---------------------------------------------------------------------- rules for lines


TERMINAL = tuple(".!?‼‽⁇⁈⁉。！？．｡؟۔।॥។။፧።։")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]»]*(?=\s|$)")


def c4_lines(text: str, *, min_sentences: int = 5, min_words: int = 3) -> tuple[str, str | None]:
    """The lines that are sentences, and why the text is dropped ([Raffel20] section 2.2).

    Lines must end in . ! ? or a quotation mark and have `min_words` words, none of 1,000 characters; those that speak
    of javascript or policies are left out. A brace or "lorem ipsum" drops the text, as do too few sentences.
    """
    kept = []
    for line in map(str.strip, text.splitlines()):
        parts = line.split()
        line = _CITATION.sub("", line)
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...") or len(parts) < min_words:
            continue
        if max(map(len, parts)) > 1000:
            continue
        low = line.lower()
        if "lorem ipsum" in low:
            return text, "lorem_ipsum"
        if "javascript" in low:
            continue
        if "{" in line:
            return text, "curly_bracket"
        if not any(phrase in low for phrase in POLICY):
            kept.append(line)
    if (
        sum(len(_SENTENCE.split(line.rstrip("\"'"))) - (_SENTENCE.search(line) is not None) for line in kept)
        < min_sentences
    ):
        return text, "too_few_sentences"
    return "\n".join(kept).strip(), None


_COUNTER = re.compile(r"\W*[\d.,]+\s*[kKmM]?\s+\w+\W*")  # 3 likes
_EDGES = re.compile(
    r"^(?:sign[ -]?in|log[ -]?in|sign up|se connecter|connexion|s'inscrire)\b[\s:|»-]*"
    r"|(?:read more|continue reading|see more|lire la suite|en savoir plus)\b[\s.…»>]*$"
    r"|\b(?:items? in (?:your )?cart|articles? dans (?:votre|le) panier)\b",
    re.IGNORECASE,
)


def refinedweb_lines(text: str, *, max_removed: float = 0.05) -> tuple[str, str | None]:
    """The text without lines of navigation, and "line_corrections" when that was much of it ([Penedo23] G.2).

    Left out are lines mainly of capitals, only of numbers, counters (3 likes) and lines of one word; from lines of at
    most 10 words, such phrases as "sign in" at the start, "read more" at the end, or "items in cart". The text is
    dropped when more than `max_removed` of its words stand in such lines. The paper does not print its phrases: these
    are ours, English and French.
    """
    kept, flagged = [], 0
    for line in text.split("\n"):
        edited = "" if _is_navigation(line) else line
        if len(line.split()) <= 10:
            edited = _EDGES.sub("", edited)
        if edited != line:
            flagged += len(line.split())
        if edited.strip() or not line.strip():
            kept.append(edited)
    return "\n".join(kept), "line_corrections" if flagged > max_removed * len(text.split()) else None


def _is_navigation(line: str) -> bool:
    letters = [c for c in line if c.isalpha()]
    capitals = len(letters) > 1 and sum(map(str.isupper, letters)) > 0.5 * len(letters)
    numbers = not letters and any(map(str.isdigit, line))
    return capitals or numbers or len(line.split()) == 1 or _COUNTER.fullmatch(line.strip()) is not None
