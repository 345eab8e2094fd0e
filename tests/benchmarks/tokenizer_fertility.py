"""What a language costs with a tokenizer trained on other mixtures of languages: tokens per word, English and French.

    OMP_NUM_THREADS=1 python tests/benchmarks/tokenizer_fertility.py corpora      # 20 s; corpora.py says how to get it

Byte-level BPE of 8,000 ids learned on 84 pages of the Debian handbook, measured on 20 other pages, with the same number
of characters in every mixture; "French" is its share of them. Found, in tokens per word:

    French   GPT-4's words, the default     GPT-2's words
        0 %      1.505 en   2.341 fr        1.534 en   2.373 fr
       10 %      1.527      1.844           1.552      1.875
       50 %      1.583      1.664           1.609      1.716
      100 %      1.652      1.614           1.674      1.667

A tokenizer of English alone costs 41 % more on French than the even mixture, which costs English 5 %.
"""

import sys
from pathlib import Path

from gen_core.testing import load
from gen_transformer.tokenizer import GPT2, GPT4, bytes_per_token, fertility, train_bpe

corpora = load(Path(__file__).with_name("corpora.py"))


def main(root: str, vocab: int = 8000) -> None:
    train, test = corpora.split(corpora.handbook(root))
    english, french = ("\n".join(page[i] for page in train) for i in (0, 1))
    held_out = ["\n".join(page[i] for page in test) for i in (0, 1)]
    size = min(len(english), len(french))
    print(f"{len(train)} pages, {size:,} characters; tokens per word en fr | bytes per token en fr")
    for name, pattern in {"GPT-4": GPT4, "GPT-2": GPT2}.items():
        for share in (0.0, 0.1, 0.5, 1.0):
            cut = int(size * share)
            tok = train_bpe([english[: size - cut], french[:cut]], vocab, pattern=pattern)
            figures = [f(tok, text) for f in (fertility, bytes_per_token) for text in held_out]
            print(name, f"{share:5.0%} French: {figures[0]:.3f} {figures[1]:.3f} | {figures[2]:.3f} {figures[3]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
