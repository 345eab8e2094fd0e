"""Language models on one transformer block: from raw text to a chat, exact to Hugging Face.

    from gen_transformer import Config, Transformer, LMTask, Tokenizer, complete, hf

The nouns: a `Config` is sizes and switches; a `Transformer` is the one block stack; a batch is `(ids, targets, weight,
doc)`, where `doc` says who may see whom; a `Tokenizer` treats text as text; a warp is a function of logits. Less
common names stay in their modules: `clean`, `dedup`, `scaling`, `word2vec`, `seq2seq`, `rnn`, `fusion`, `harness`.
"""

from gen_transformer import hf
from gen_transformer.attention import KVCache, attention, positions, rotate, sinusoids, visible
from gen_transformer.beam import Beam, beam_search
from gen_transformer.bert import Bert, BertTask, mask_tokens, nsp_pairs
from gen_transformer.chat import CHATML, Template
from gen_transformer.config import Config, Rope
from gen_transformer.data import Corpus, Packed, Windows, pack, read, write_shard
from gen_transformer.dial import Dial, dial
from gen_transformer.evaluate import Score, loglikelihood, multiple_choice, score
from gen_transformer.fusion import Fusion
from gen_transformer.generate import complete, generate
from gen_transformer.loss import lm_loss, logprobs
from gen_transformer.mixture import Mixture
from gen_transformer.model import EncoderDecoder, Transformer, flops_per_token, parameters
from gen_transformer.optim import Muon, optimizer
from gen_transformer.prompt import LanguageModel, left_pad
from gen_transformer.rnn import CharRNN
from gen_transformer.sampling import compose, greedy, min_p, repetition, sampler, temperature, top_k, top_p
from gen_transformer.seq2seq import Seq2Seq
from gen_transformer.speculative import Tally
from gen_transformer.task import LMTask
from gen_transformer.tokenizer import Tokenizer, bytes_per_token, characters, fertility, train_bpe
from gen_transformer.word2vec import Word2Vec

__all__ = [
    "CHATML",
    "Beam",
    "Bert",
    "BertTask",
    "CharRNN",
    "Config",
    "Corpus",
    "Dial",
    "EncoderDecoder",
    "Fusion",
    "KVCache",
    "LMTask",
    "LanguageModel",
    "Mixture",
    "Muon",
    "Packed",
    "Rope",
    "Score",
    "Seq2Seq",
    "Tally",
    "Template",
    "Tokenizer",
    "Transformer",
    "Windows",
    "Word2Vec",
    "attention",
    "beam_search",
    "bytes_per_token",
    "characters",
    "complete",
    "compose",
    "dial",
    "fertility",
    "flops_per_token",
    "generate",
    "greedy",
    "hf",
    "left_pad",
    "lm_loss",
    "loglikelihood",
    "logprobs",
    "mask_tokens",
    "min_p",
    "multiple_choice",
    "nsp_pairs",
    "optimizer",
    "pack",
    "parameters",
    "positions",
    "read",
    "repetition",
    "rotate",
    "sampler",
    "score",
    "sinusoids",
    "temperature",
    "top_k",
    "top_p",
    "train_bpe",
    "visible",
    "write_shard",
]
