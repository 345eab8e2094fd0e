"""Filters of web text: datatrove's verdicts on its own test strings, rules by language, and the pipeline around them.

Golden verdicts are those of datatrove 0.10.1; `-m peers` asks it again.
"""

from collections import Counter

import pytest

from gen_transformer.clean import (
    Document,
    as_datatrove,
    by_stop_words,
    by_url,
    clean,
    correcting,
    extracting,
    in_language,
    on_text,
    registered_domain,
    url_filter,
)
from gen_transformer.quality import (
    STOP_WORDS,
    c4_lines,
    fineweb_quality,
    gopher_quality,
    gopher_repetition,
    refinedweb_lines,
    words,
)

FRODO = (
    "I wish it need not have happened in my time,' said Frodo. 'So do I,' said Gandalf, 'and so do all who live to "
    "see such times. But that is not for them to decide. All we have to decide is what to do with the time that is "
    "given us.'"
)
CLOZE = (
    "This is a well-written paragraph with several sentences.\nThe content continues with more good information here.\n"
    "Another important point is being made in this line.\nWe can see that this document has quality content.\n"
    "Finally, the conclusion wraps everything up nicely.\nAn additional sentence to ensure we pass the threshold."
)
QUALITY = (
    "This is a well-written paragraph that ends with proper punctuation.\n"
    "The content here is substantial and has meaningful information.\n"
    "Quality filtering ensures that only the best documents pass through.\n"
    "Each line here is long enough and ends with a terminal punctuation mark.\n"
    "This document should pass all the quality checks applied by the filter."
)
FRENCH = (
    "Le commandant fit savoir à l'équipage que la tempête approchait, et qu'il faudrait dans l'heure réduire la "
    "voilure pour ne pas perdre un mât. Les hommes qui dormaient furent réveillés ; on ferma les écoutilles, "
    "on doubla les amarres des chaloupes. "
    "Une heure après, est-ce par chance ou par métier, le navire tenait encore sa route."
)

REPETITION = {
    "I am your father.\n" * 4: "dup_line_frac",
    "I am your father.\n\n" * 4: "dup_para_frac",
    "I am groot.\n\nYou are a wizard.\n\nI am your father.\n\n" + f"{'x' * 30}.\n\n" * 2: "dup_para_char_frac",
    "I am groot.\nYou are a wizard.\nI am your father.\n" + f"{'x' * 40}.\n" * 2: "dup_line_char_frac",
    "I am Frank, I am Frank, I am Frank": "top_2_gram",
    "I am Frank, you are Jhon. I am Frank. I am Frank you are Jhon": "top_3_gram",
    "I am a solo traveller " * 4 + FRODO: "duplicated_5_n_grams",
    "": "empty",
    FRODO: None,
    QUALITY: None,
}
GOPHER = {
    "I am too small...": "gopher_short_doc",
    "I am " * 20: "gopher_below_avg_threshold",
    "interconnection " * 20: "gopher_above_avg_threshold",
    "# comment " * 20: "gopher_too_many_hashes",
    "... comment " * 20: "gopher_too_many_ellipsis",
    "the ./!*?<><> apple <?////> orange  ++ interconnection !<>??? have" * 20: "gopher_below_alpha_threshold",
    "- the rain and the wind have come with us\n" * 20: "gopher_too_many_bullets",
    "the rain and the wind have come with us, to be...\n" * 20: "gopher_too_many_end_ellipsis",
    "the of and to be that " * 200: "gopher_long_doc",
    FRODO: None,
    FRENCH: "gopher_enough_stop_words",
}
C4 = {
    CLOZE: None,
    CLOZE.replace("several", "lorem ipsum dolor"): "lorem_ipsum",
    CLOZE.replace("good", "{ good"): "curly_bracket",
    "Just one sentence.": "too_few_sentences",
    CLOZE.replace(".\n", "...\n"): "too_few_sentences",
    "One. Two! Three? Four. Five of these are sentences.": None,
}
FINEWEB = {
    "": "empty",
    "No punctuation here\nAnother line without any\nStill nothing": "line_punct_ratio",
    "hi.\nbye.\nok.\nno.\nyes.": "short_line_ratio",
    QUALITY: None,
    QUALITY + "\n" + QUALITY: "char_dup_ratio",
    "\n\n\n".join(QUALITY.split("\n")) + "\n" * 40: "list_ratio",
}


def theirs(rule: str):
    """datatrove's filter, by the name of ours: text -> reason or None."""
    pytest.importorskip("datatrove")
    from datatrove.data import Document as Doc
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

    step = {
        "repetition": filters.GopherRepetitionFilter,
        "gopher": lambda: filters.GopherQualityFilter(min_doc_words=10, max_doc_words=1000),
        "c4": C4QualityFilter,
        "fineweb": FineWebQualityFilter,
    }[rule]()

    def verdict(text: str) -> str | None:
        answer = step.filter(Doc(text=text, id="0", metadata={}))
        return None if answer is True else answer[1]

    return verdict


def ours(rule: str, text: str) -> str | None:
    if rule == "c4":
        return c4_lines(text)[1]
    if rule == "gopher":
        return gopher_quality(text, min_words=10, max_words=1000)
    return {"repetition": gopher_repetition, "fineweb": fineweb_quality}[rule](text)


CASES = {"repetition": REPETITION, "gopher": GOPHER, "c4": C4, "fineweb": FINEWEB}


@pytest.mark.parametrize("rule", CASES)
def test_verdicts_of_datatrove(rule):
    assert [ours(rule, text) for text in CASES[rule]] == list(CASES[rule].values())


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rule", CASES)
def test_datatrove_still_says_so(rule):
    verdict = theirs(rule)
    assert [verdict(text) for text in CASES[rule]] == list(CASES[rule].values())


def test_english_stop_words_drop_french_and_french_ones_do_not():
    assert gopher_quality(FRENCH) == "gopher_enough_stop_words"
    assert gopher_quality(FRENCH, language="fr") is None
    assert gopher_quality(FRODO, language="fr", min_words=10) == "gopher_enough_stop_words"
    with pytest.raises(ValueError, match="no stop words for language 'xx', only for en, fr"):
        gopher_quality(FRODO, language="xx")
    assert gopher_quality(FRODO, language="xx", stop_words=["Frodo", "Gandalf"], min_words=10) is None


def test_the_language_of_a_page_by_its_stop_words():
    assert by_stop_words(FRENCH)[0] == "fr" and by_stop_words(FRODO)[0] == "en"
    german = "Der Kapitän ließ die Mannschaft wissen, dass der Sturm nicht mehr weit ist und mit ihm ein Unglück."
    assert by_stop_words(german)[0] == "de" and by_stop_words(german)[1] > 0.5
    assert by_stop_words("")[1] == 0 and set(STOP_WORDS) >= {"en", "fr"}


@pytest.mark.parametrize(
    ("text", "language", "want"),
    [
        ("I don't know, it's late.", "en", ["I", "do", "n't", "know", ",", "it", "'s", "late", "."]),
        ("l'homme qu’il aime", "fr", ["l'", "homme", "qu’", "il", "aime"]),
        ("(state-of-the-art) and/or?", "en", [*"(", *"state - of - the - art".split(), ")", "and", "/", "or", "?"]),
        ("3,500.75 € in the U.S.A...", "en", ["3,500.75", "€", "in", "the", "U.S.A.", ".."]),
        ("see https://a.b/c?d=1, a@b.org", "en", ["see", "https://a.b/c?d=1", ",", "a@b.org"]),
        ("", "en", []),
    ],
)
def test_words(text, language, want):
    assert list(words(text, language)) == want


def test_words_of_long_garbage_take_no_time():
    """Backtracking that is worse than quadratic would outlast the time limit of a test."""
    for part in ("a", "!", "a.", "a-", "x!?", "'s", "a's", "b@", "://", "é…"):
        text = part * 10_000
        assert "".join(words(text)) == text


def test_c4_takes_lines_out():
    """Citations, lines without an end, short ones, javascript and policies go; the rest stays as it was."""
    text = CLOZE + "\nhome | about\nToo short.\nPlease enable Javascript to see it.\nWe use cookies on this site.\n"
    text += "It is so[12], they say[citation needed]."
    assert c4_lines(text) == (CLOZE + "\nIt is so, they say.", None)
    assert c4_lines(f"{CLOZE}\nA {'x' * 1001} word is long.") == (CLOZE, None)


def test_refinedweb_takes_navigation_out():
    body = "\n".join(f"Sentence number {i} of a page speaks of the sea and of the ships on it." for i in range(20))
    assert refinedweb_lines(body) == (body, None)
    page = f"MENU AND SEARCH\n{body}\n3 likes\n12.05.2023\nHome\nThe storm came Read more..."
    text, reason = refinedweb_lines(page)
    assert text == f"{body}\nThe storm came " and reason is None
    assert refinedweb_lines("Sign in to write\n" + body)[0] == "to write\n" + body
    assert refinedweb_lines(f"MENU\n2 items in cart\nHOME\nABOUT US\n{QUALITY}")[1] == "line_corrections"
    long = "Read more about all of this in the book that the two of them wrote"
    assert refinedweb_lines(f"{body}\n{long}") == (f"{body}\n{long}", None)


DOMAINS = {"blocked.com", "danger.org", "badsubdomain.nice.com"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://blocked.com/some-sub-url?with=stuff", "domain"),
        ("https://hey.danger.org/some-sub-url?with=stuff", "domain"),
        ("http://hey.danger.org/some-sub-url?with=stuff", "domain"),
        ("http://www.danger.org/some-sub-url?with=stuff", "domain"),
        ("https://nice.com/some-sub-url?with=stuff", None),
        ("https://badsubdomain.nice.com/some-sub-url?with=stuff", "subdomain"),
        ("https://sdsd.badsubdomain.nice.com/some-sub-url?with=stuff", None),
        ("https://blocke.dcom/some-sub-url?with=stuff", None),
        ("https://BLOCKED.com:8080/", "domain"),
        ("https://notblocked.com/", None),
        ("no address", None),
    ],
)
def test_addresses_by_domain(url, reason):
    assert url_filter(url, DOMAINS) == reason
    assert by_url(DOMAINS)(Document("", url)) == reason


def test_addresses_by_words():
    lists = {"words": {"casino"}, "soft_words": {"free", "win", "cash"}, "subwords": {"xxx"}}
    assert url_filter("https://a.org/Casino-night", **lists) == "hard_blacklisted"
    assert url_filter("https://a.org/casinos", **lists) is None
    assert url_filter("https://free.org/win/now", **lists) == "soft_blacklisted"
    assert url_filter("https://free.org/now", **lists) is None
    assert url_filter("https://a.org/mx-xx", **lists) == "blacklisted_subword"
    assert url_filter("https://a.org/b", urls={"https://a.org/b"}) == "url"


def test_registered_domains():
    assert registered_domain("www.example.co.uk") == "example.co.uk" and registered_domain("a.b.org") == "b.org"
    assert url_filter("https://x.example.co.uk/", {"co.uk"}) is None
    assert url_filter("https://x.y.z/", {"x.y.z"}, registered=lambda host: host) == "domain"


def test_a_pipeline_counts_reasons_and_changes_text():
    documents = [
        Document("<p>" + FRENCH, "https://a.fr/"),
        Document("<p>" + FRODO, "https://a.com/"),
        Document("<p>" + FRODO, "https://blocked.com/"),
        Document("<p>" + "Una frase en español con las palabras que la gente dice de la vida", "https://a.es/"),
        Document("<p>", "https://b.fr/"),
    ]
    filters = [
        by_url(DOMAINS),
        extracting(lambda html: html.removeprefix("<p>") or None),
        in_language(by_stop_words, {"en": 0.3, "fr": 0.5}),
        on_text(gopher_repetition),
        on_text(gopher_quality, min_words=10),
        correcting(refinedweb_lines),
    ]
    counts = Counter()
    kept = list(clean(documents, filters, counts))
    assert [(d.language, d.text) for d in kept] == [("fr", FRENCH), ("en", FRODO)]
    assert counts == {"kept": 2, "domain": 1, "language": 1, "empty": 1}
    low = in_language(lambda text: ("fr", 0.6), {"fr": 0.65})
    assert low(Document(FRENCH)) == "language_score"


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
def test_a_filter_runs_as_a_step_of_datatrove():
    """In its own pipeline class: what is dropped, with which reason, and what is passed on."""
    pytest.importorskip("datatrove")
    from datatrove.data import Document as Doc

    docs = [Doc(text=t, id=str(i), metadata={"url": u}) for i, (t, u) in enumerate([(FRENCH, "a"), (FRODO, "b")])]
    language = as_datatrove(in_language(by_stop_words, {"en": 0.3, "fr": 0.3}), "language")
    quality = as_datatrove(on_text(gopher_quality))
    kept = list(quality.run(language.run(iter(docs))))
    assert [(d.text, d.metadata["language"]) for d in kept] == [(FRENCH, "fr"), (FRODO, "en")]
    assert quality.stats["forwarded"].total == 2 and language.name == "language"
    dropped = list(as_datatrove(by_url({"b"})).run(iter([Doc(FRODO, "0", metadata={"url": "http://b/"})])))
    step = as_datatrove(on_text(gopher_quality, min_words=1000))
    assert dropped == [] == list(step.run(iter([Doc(FRODO, "0")])))
    assert step.stats["dropped_gopher_short_doc"].total == 1
