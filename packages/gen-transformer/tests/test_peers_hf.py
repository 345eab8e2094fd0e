"""The same numbers as transformers 5.23.0 (pytest -m peers): logits, gradients, 64 greedy tokens, files both ways.

float32   logits 1e-5 (0.0 for Llama, Mistral, Qwen3, BERT, Marian; 2e-6 for GPT-2 and Falcon), gradients 1e-4
float64   logits 1e-12, gradients 1e-10, but 5e-6 where transformers normalises or turns in float32
packing   three documents in one row: ours 1e-5, the default call of transformers 0.1 and more
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gen_core.testing import load as module
from gen_transformer.bert import mask_tokens
from gen_transformer.config import Config, Rope
from gen_transformer.families import FAMILIES
from gen_transformer.fields import Fields
from gen_transformer.generate import complete
from gen_transformer.hf import load, save
from gen_transformer.model import Transformer
from gen_transformer.sampling import greedy

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # what other libraries deprecate
]
golden = module(Path(__file__).with_name("hf_golden.py"))
ours_of = module(Path(__file__).with_name("test_hf.py"))
NAMES = list(golden.CASES)
DECODERS = [name for name in NAMES if "bert" not in name and "marian" not in name]
NARROW = ("llama", "mistral", "ministral", "qwen3")  # RMS norms are float32 there whatever the model is


def both(name, folder):
    theirs = golden.peer(name)
    theirs.save_pretrained(folder, max_shard_size="100KB")
    return theirs, load(folder)


def files(folder):
    return {k: x for file in sorted(folder.glob("*.safetensors")) for k, x in load_file(file).items()}


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients(name, tmp_path):
    theirs, ours = both(name, tmp_path / "a")
    for dtype in (torch.float32, torch.float64):
        wide = dtype == torch.float64
        atol = 1e-5 if not wide else 5e-6 if name.startswith(NARROW) else 1e-12
        ours.to(dtype)
        pairs = zip(ours_of.outputs(name, ours), golden.outputs(name, theirs, dtype), strict=True)
        apart = max((a - b).abs().max().item() for a, b in pairs)
        mine, want = ours_of.slopes(name, ours, tmp_path / f"{dtype}"), golden.gradients(name, theirs, dtype)
        rtol = 1e-4 if not wide or name.startswith(NARROW) else 1e-10
        size = lambda g: g.norm().clamp(min=1e-3)  # that of a key's bias is 0: softmax does not see it
        worst = max(((mine[k] - g).norm() / size(g)).item() for k, g in want.items())
        print(f"{name}, {dtype}: logits {apart:.1e}, gradients {worst:.1e}")
        assert apart <= atol and worst <= rtol
    ours.float()
    theirs.float()


@pytest.mark.parametrize("name", NAMES)
def test_files_both_ways(name, tmp_path):
    """Theirs in shards -> ours -> ours in shards -> theirs: the same names and the same logits, bit for bit."""
    theirs, ours = both(name, tmp_path / "a")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    save(ours, tmp_path / "b", shard="100KB")
    assert files(tmp_path / "a").keys() == files(tmp_path / "b").keys()
    again = type(theirs).from_pretrained(tmp_path / "b").eval()
    for a, b in zip(golden.outputs(name, theirs), golden.outputs(name, again), strict=True):
        assert torch.equal(a, b)


def test_auto_classes_read_ours(tmp_path):
    """AutoModelForCausalLM finds the class by itself, for a model that was never theirs."""
    import transformers

    torch.manual_seed(0)
    model = Transformer(Config(vocab=97, dim=32, layers=2, heads=4, kv_heads=2, rope=Rope(5e5, "llama3", 8.0, 16)))
    save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(theirs(golden.ids()).logits, model.logits(model(golden.ids())), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("length", [1, 33])
@torch.no_grad()
def test_any_length(name, length, tmp_path):
    theirs, ours = both(name, tmp_path)
    ids = golden.ids(3, length)
    torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_text(name, tmp_path):
    """As far as the context goes, with and without their cache, the second prompt padded on its left.

    Dynamic positions depend on the cache: a key that is kept has the base of the text as it was then.
    """
    theirs, ours = both(name, tmp_path)
    x = {k: v[:, :12] for k, v in golden.inputs(name).items()}
    mine = complete(ours, x["input_ids"], 52, doc=x["attention_mask"] - 1, warp=greedy)
    assert torch.equal(mine, golden.greedy(name, theirs, 52))
    assert "dynamic" in name or torch.equal(mine, golden.greedy(name, theirs, 52, use_cache=False))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ministral", {"model_type": "mistral"}),
        ("mistral", {"layer_types": None}),
        (
            "llama, linear positions",
            {
                "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "beta_fast": 16.0},
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
        ),
    ],
)
@torch.no_grad()
def test_fields_that_contradict_each_other(name, fields, tmp_path):
    """AutoModel decides, and we follow."""
    import transformers

    ours_of.edit(golden.write(name, tmp_path), **fields)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = ours_of.outputs(name, load(tmp_path))
    torch.testing.assert_close(ours[0], golden.outputs(name, theirs)[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_packing_leaks_there_and_not_here(tmp_path):
    """Three documents in one row, told apart by positions that restart: the default call of transformers mixes them."""
    name = "llama, 8 of 8 key heads"
    theirs, ours = both(name, tmp_path)
    lengths, ids = [12, 12, 9], golden.ids(1, 33)
    doc = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    place = torch.cat([torch.arange(n) for n in lengths])[None]
    alone = torch.cat([theirs(part).logits for part in ids.split(lengths, 1)], 1)
    apart = lambda logits: (logits - alone).abs().max().item()
    leaks = {
        "default": apart(theirs(ids, position_ids=place).logits),
        "a mask of ones": apart(theirs(ids, position_ids=place, attention_mask=torch.ones_like(ids)).logits),
        "no cache": apart(theirs(ids, position_ids=place, use_cache=False).logits),
    }
    mine = apart(ours.logits(ours(ids, doc=doc)))
    print(f"packed against alone: ours {mine:.1e}, transformers {leaks}")
    assert mine <= 1e-5 and leaks["default"] > 0.1 and leaks["a mask of ones"] > 0.1


@pytest.mark.parametrize("kind", list(golden.ROPES))
@pytest.mark.parametrize("length", [16, 500])
def test_frequencies(kind, length):
    """`Rope.frequencies` against ROPE_INIT_FUNCTIONS, at the sizes of real models."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    p = golden.ROPES[kind]
    if "original_max_position_embeddings" in p:
        p = p | {"original_max_position_embeddings": 4096, "rope_theta": 500_000.0}
    config = LlamaConfig(**{**golden.LLAMA, "head_dim": 128, "rope_parameters": p, "max_position_embeddings": 8192})
    want, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length * 100)
    with torch.device("meta"):
        ours = FAMILIES["llama"].read(Fields(FAMILIES["llama"].defaults | config.to_dict()), set()).config
    got, factor = ours.rope.frequencies(128, 8192, length * 100)
    torch.testing.assert_close(got, want, atol=1e-9, rtol=2e-7)
    assert factor == pytest.approx(scale)


@torch.no_grad()
def test_masks_of_bert_agree_in_distribution():
    """DataCollatorForLanguageModeling and `mask_tokens`: 15 %, of which 80 / 10 / 10, on 400,000 words."""
    from tokenizers import Tokenizer, models
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[MASK]": 1, "[CLS]": 2} | {f"w{i}": i for i in range(3, 1000)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "[PAD]")), mask_token="[MASK]", pad_token="[PAD]"
    )
    ids = torch.randint(3, 1000, (400, 1000), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    masked, labels = DataCollatorForLanguageModeling(tokenizer).torch_mask_tokens(ids.clone())
    mine, chosen = mask_tokens(ids, vocab=1000, mask=1, keep=[0, 1, 2], generator=torch.Generator().manual_seed(1))

    def shares(x, picked):
        fates = (x == 1, (x != 1) & (x != ids), x == ids)
        return [picked.float().mean().item(), *(f[picked].float().mean().item() for f in fates)]

    assert shares(mine, chosen) == pytest.approx(shares(masked, labels != -100), abs=0.006)
