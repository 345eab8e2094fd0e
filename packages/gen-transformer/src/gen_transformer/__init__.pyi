from . import alignment, hf
from .attention import KVCache, attention, positions, rotate, sinusoids, visible
from .beam import Beam, beam_search
from .bert import Bert, BertTask, mask_tokens, nsp_pairs
from .chat import CHATML, Template
from .config import Config, Rope
from .data import Corpus, Packed, Windows, pack, read, write_shard
from .dial import Dial, dial
from .evaluate import Score, loglikelihood, multiple_choice, score
from .fusion import Fusion
from .generate import complete, generate
from .lora import adapters_off, add_lora, merge_lora
from .loss import lm_loss, logprobs
from .mixture import Mixture
from .model import EncoderDecoder, Transformer, flops_per_token, parameters
from .networks import load
from .optim import Muon, optimizer
from .prompt import LanguageModel, left_pad
from .rnn import CharRNN
from .sampling import compose, greedy, min_p, repetition, sampler, temperature, top_k, top_p
from .seq2seq import Seq2Seq
from .speculative import Tally
from .task import LMTask
from .tokenizer import Tokenizer, bytes_per_token, characters, fertility, train_bpe
from .word2vec import Word2Vec

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
    "adapters_off",
    "add_lora",
    "alignment",
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
    "load",
    "loglikelihood",
    "logprobs",
    "mask_tokens",
    "merge_lora",
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
