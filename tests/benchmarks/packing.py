"""How full packed rows are, and what making them costs: chapters of the King James Bible.

    OMP_NUM_THREADS=1 python tests/benchmarks/packing.py corpora          # 20 s; corpora.py says how to get it

1,189 chapters, byte-level BPE of 4,096 ids learned on them; chapters longer than a row are cut. Found, as the share of
the rows that is not padding and their number (of the fewest that could hold as many tokens):

                           tokens    best fit decreasing, T=1024     T=2048              next fit
    GPT-4's words       1,005,612    .9742, 1,008 (of 983)           .9960, 493 (492)    .7400, .7613
    GPT-2's words       1,035,266    .9749, 1,037 (of 1,012)         .9970, 507 (506)    .7347, .7534

Reading rows: 3.8 million tokens / s. Packing 100,000 documents of 1 to 2,048 tokens: .7 s, rows .9999 full.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gen_core.testing import load
from gen_transformer.data import Corpus, Packed, pack, write_shard
from gen_transformer.tokenizer import GPT2, GPT4, train_bpe

corpora = load(Path(__file__).with_name("corpora.py"))


def rows(chapters: list[str], pattern: str) -> None:
    tok = train_bpe(chapters, 4096, pattern=pattern)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_shard(Path(folder) / "kjv", tok, chapters)
        corpus = Corpus(Path(folder) / "kjv")
        print(f"{len(corpus):,} tokens, written at {len(corpus) / (time.perf_counter() - start):,.0f} / s")
        for T in (1024, 2048):
            for order in ("best_fit_decreasing", "next_fit"):
                data = Packed(corpus, T, order=order)
                print(f"T={T} {order}: {data.utilisation:.4f}, {len(data)} rows of {-(-len(corpus) // T)}")
            start = time.perf_counter()
            inputs = [row[0][row[3] >= 0] for row in map(data.__getitem__, range(len(data)))]
            print(f"rows read at {len(corpus) / (time.perf_counter() - start):,.0f} tokens / s")
            whole = corpus.tokens(0, len(corpus))
            seen, there = (np.bincount(x, minlength=4096) for x in (np.concatenate(inputs), whole))
            assert (seen == there).all(), "tokens lost or doubled"


def main(root: str) -> None:
    chapters = corpora.kjv(root)
    for name, pattern in {"GPT-4's words": GPT4, "GPT-2's words": GPT2}.items():
        print(name)
        rows(chapters, pattern)
    for n in (10_000, 100_000):
        lengths = np.random.default_rng(0).lognormal(6, 1, n).clip(1, 2048).astype(int)
        start = time.perf_counter()
        used = lengths.sum() / (len(pack(lengths, 2048)) * 2048)
        print(f"{n:,} documents packed in {time.perf_counter() - start:.2f} s, {used:.4f} full")


if __name__ == "__main__":
    main(*sys.argv[1:])
