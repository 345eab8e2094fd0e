"""Language models on one transformer block: from raw text to a chat, exact to Hugging Face.

    from gen_transformer import Config, Transformer, LMTask, Tokenizer, complete, hf

The nouns: a `Config` is sizes and switches; a `Transformer` is the one block stack; a batch is `(ids, targets, weight,
doc)`, where `doc` says who may see whom; a `Tokenizer` treats text as text; a warp is a function of logits. Less
common names stay in their modules: `clean`, `dedup`, `scaling`, `word2vec`, `seq2seq`, `rnn`, `fusion`, `harness`.
"""

from gen_core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # of what __init__.pyi lists
