"""From crawled pages to training text: filters by address, language and quality, and what each of them dropped.

    counts = Counter()
    filters = [
        by_url({"spam.example"}),
        extracting(trafilatura.extract),            # any callable html -> text
        in_language(identify, {"en": 0.65, "fr": 0.65}),
        on_text(gopher_repetition), on_text(gopher_quality), correcting(refinedweb_lines),
    ]
    kept = list(clean(documents, filters, counts))  # counts: {"kept": 71, "gopher_short_doc": 12, ...}

A filter takes a document and returns None to keep it, or the reason to drop it; it may change the document's text or
language. Rules for a text are in `gen_transformer.quality`. Beyond one machine the same filters are steps of datatrove:
`as_datatrove(filter)`.

[Penedo23] The RefinedWeb dataset for Falcon LLM, arXiv:2306.01116.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gen_transformer.quality import STOP_WORDS


@dataclass
class Document:
    """A page on its way through the filters; `text` is HTML until a filter extracts the text."""

    text: str
    url: str = ""
    language: str = "en"


Filter = Callable[[Document], str | None]


def clean(
    documents: Iterable[Document], filters: Sequence[Filter], counts: Counter | None = None
) -> Iterator[Document]:
    """The documents that every filter keeps, counting "kept" and the first reason against each of the others."""
    counts = Counter() if counts is None else counts
    for document in documents:
        reason = next(filter(None, (keep(document) for keep in filters)), None)
        counts[reason or "kept"] += 1
        if reason is None:
            yield document


# ---------------------------------------------------------------------- rules as filters


def on_text(rule: Callable[..., str | None], **settings: Any) -> Filter:
    """A rule for text as a filter, in the language of each document."""
    return lambda doc: rule(doc.text, language=doc.language, **settings)


def correcting(rule: Callable[..., tuple[str, str | None]], **settings: Any) -> Filter:
    """A rule that takes lines out of a text as a filter that changes the document."""

    def apply(doc: Document) -> str | None:
        doc.text, reason = rule(doc.text, **settings)
        return reason

    return apply


def extracting(extract: Callable[[str], str | None]) -> Filter:
    """Replace HTML by its text, by an extractor of yours; a page without text is "empty"."""

    def apply(doc: Document) -> str | None:
        doc.text = extract(doc.text) or ""
        return None if doc.text.strip() else "empty"

    return apply


def in_language(identify: Callable[[str], tuple[str, float | int]], keep: Mapping[str, float | int]) -> Filter:
    """Keep languages by the score that each needs at least ([Penedo23] takes .65), and note the language.

    Args:
        identify: text -> (code, score), such as fastText's lid.176, or `by_stop_words`.
    """

    def apply(doc: Document) -> str | None:
        doc.language, score = identify(doc.text)
        if doc.language not in keep:
            return "language"
        return None if score >= keep[doc.language] else "language_score"

    return apply


def by_stop_words(text: str) -> tuple[str, float]:
    """The language most of whose frequent words a text has, and its share of the words that any language claims.

    Enough to tell apart pages of the languages in `STOP_WORDS`; not for tweets, nor for other languages.
    """
    found = re.findall(r"\w+", text.lower())
    hits = {language: sum(word in stop for word in found) for language, stop in STOP_WORDS.items()}
    best = max(hits, key=hits.__getitem__)
    return best, hits[best] / max(sum(hits.values()), 1)


# ---------------------------------------------------------------------- addresses


_GENERIC = {"ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "mil", "ne", "net", "or", "org"}


def registered_domain(host: str) -> str:
    """The part of a host name that someone registered: example.co.uk of www.example.co.uk.

    By a rule of thumb (two labels, three under such as .co.uk); for the full list pass tldextract's to `by_url`.
    """
    labels = host.split(".")
    second_level = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _GENERIC
    return ".".join(labels[-3 if second_level else -2 :])


def url_filter(
    url: str,
    domains: Iterable[str] = (),
    *,
    urls: Iterable[str] = (),
    words: Iterable[str] = (),
    soft_words: Iterable[str] = (),
    subwords: Iterable[str] = (),
    threshold: int = 2,
    registered: Callable[[str], str] = registered_domain,
) -> str | None:
    """Is the address on a list? ([Penedo23] G.1)

    Args:
        domains: host names; a registered domain stands for all hosts under it.
        words: any of which, as a word of the address, drops it; of `soft_words` it takes `threshold`; `subwords` count
            inside words too, with everything but letters and digits taken out. Lower case.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    blocked = _as_set(domains)
    parts = set(re.split(r"[^a-z0-9]+", url.lower()))
    joined = re.sub(r"[^a-z0-9]+", "", url.lower())
    checks = {
        "domain": lambda: registered(host) in blocked,
        "subdomain": lambda: host in blocked,
        "url": lambda: url in _as_set(urls),
        "hard_blacklisted": lambda: not parts.isdisjoint(words),
        "soft_blacklisted": lambda: len(parts.intersection(soft_words)) >= threshold,
        "blacklisted_subword": lambda: any(word in joined for word in subwords),
    }
    return next((reason for reason, fails in checks.items() if fails()), None)


def _as_set(items: Iterable[str]) -> frozenset[str] | set[str]:
    return items if isinstance(items, frozenset | set) else frozenset(items)


def by_url(domains: Iterable[str] = (), **settings: Any) -> Filter:
    """`url_filter` as a filter of documents."""
    blocked = frozenset(domains)
    return lambda doc: url_filter(doc.url, blocked, **settings)


# ---------------------------------------------------------------------- datatrove


def as_datatrove(keep: Filter, name: str = "gen-transformer") -> Any:
    """A filter as a step of a datatrove pipeline, which runs it over thousands of files on a cluster.

    The text goes both ways, and so does the language by `metadata["language"]`; the address is `metadata["url"]`.

        pipeline = [JsonlReader("in/"), as_datatrove(on_text(gopher_quality)), JsonlWriter("out/")]
    """
    try:
        from datatrove.pipeline.filters.base_filter import BaseFilter  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("as_datatrove makes a step of datatrove: pip install datatrove") from None

    class Step(BaseFilter):
        def filter(self, doc: Any) -> bool | tuple[bool, str]:
            ours = Document(doc.text, doc.metadata.get("url", ""), doc.metadata.get("language", "en"))
            reason = keep(ours)
            doc.text, doc.metadata["language"] = ours.text, ours.language
            return (False, reason) if reason else True

    Step.name = name
    return Step()
