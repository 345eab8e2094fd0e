"""Words per second of word2vec, ours and gensim's, on one thread and the same text.

    uv run --group peers python tests/benchmarks/transformer_word2vec.py [TEXT_FILE]

100 dimensions, windows of 5, 5 noise words, subsampling at 1e-3, words that appear 5 times or more. Without a file the
text is 500,000 words drawn by Zipf's law. Both take turns; printed are words per second of processor
time, the median of three epochs. Measured on a busy machine with gensim 4.4.0: skip-gram 407,000 beside 366,000.
"""

import random
import statistics
import sys
import time
from pathlib import Path

import torch

from gen_transformer.word2vec import Word2Vec, count_words

ROUNDS = 3


def text() -> list[list[str]]:
    if len(sys.argv) > 1:
        return [line.split() for line in Path(sys.argv[1]).read_text(encoding="utf-8").lower().splitlines()]
    random.seed(0)
    drawn = random.choices(range(20_000), [1 / (r + 1) for r in range(20_000)], k=500_000)
    return [[f"w{i}" for i in drawn[at : at + 25]] for at in range(0, len(drawn), 25)]


def gensim(sentences: list[list[str]], skipgram: bool):
    from gensim.models import Word2Vec as Theirs  # pyright: ignore[reportMissingImports]

    model = Theirs(vector_size=100, window=5, sg=int(skipgram), negative=5, workers=1, min_count=5, sample=1e-3)
    model.build_vocab(sentences)
    return lambda: model.train(sentences, total_examples=len(sentences), epochs=1)


def ours(sentences: list[list[str]], skipgram: bool):
    model = Word2Vec(count_words(sentences), 100, kind="skipgram" if skipgram else "cbow")
    return lambda: model.train(sentences, 1, lr=0.025 if skipgram else 0.075)


def main() -> None:
    torch.set_num_threads(1)
    sentences = text()
    words = sum(map(len, sentences))
    for skipgram in (True, False):
        epochs = {"ours": ours(sentences, skipgram), "gensim": gensim(sentences, skipgram)}
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        for _ in range(ROUNDS):
            for name, epoch in epochs.items():
                start = time.process_time()
                epoch()
                seconds[name].append(time.process_time() - start)
        rate = {name: words / statistics.median(own) for name, own in seconds.items()}
        print(f"{'skip-gram' if skipgram else 'CBOW':10s} words/s", {n: round(r) for n, r in rate.items()}, flush=True)


if __name__ == "__main__":
    main()
