"""Ids and masks of chats: by construction, by hand, and with gradients that are exactly 0 on the user's tokens."""

import pytest
import torch
import torch.nn.functional as F

from gen_transformer.chat import CHATML, Template, batch
from gen_transformer.tokenizer import train_bpe

INST = Template(
    {"user": ("[INST]", "[/INST]"), "assistant": ("", "</s>")}, controls=("<s>", "</s>"), start="<s>"
)  # headers that are text


@pytest.fixture(scope="module")
def tok():
    text = "system user assistant tool\nBe brief. How are you? Fine, thanks. The answer is 42, voilà.\n" * 9
    return train_bpe([text], 330, specials=[*CHATML.controls, *INST.controls])


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CHAT = turns(
    ("system", "Be brief."),
    ("user", "How are you?"),
    ("assistant", "Fine, thanks."),
    ("user", "And you?"),
    ("assistant", "ask()"),
    ("tool", "42"),
    ("tool", "43"),
    ("assistant", "voilà 😀"),
)


def test_the_text_of_a_chat_is_its_turns_in_their_frames(tok):
    ids, mask = CHATML.render(CHAT, tok)
    assert tok.decode(ids) == "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CHAT)
    assert len(mask) == len(ids) and set(mask) == {0, 1}


def test_the_mask_covers_what_the_assistant_said_and_the_token_that_ends_its_turn(tok):
    ids, mask = CHATML.render(CHAT, tok)
    learnt = tok.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert learnt == "Fine, thanks.<|im_end|>ask()<|im_end|>voilà 😀<|im_end|>"
    runs = "".join(map(str, mask)).split("0")
    assert len([run for run in runs if run]) == 3


def test_where_text_ends_the_turn_all_of_it_is_learnt(tok):
    plain = Template({"user": ("Q: ", "\n"), "assistant": ("A: ", "\n\n")})
    ids, mask = plain.render(turns(("user", "x"), ("assistant", "y")), tok)
    assert tok.decode(ids) == "Q: x\nA: y\n\n"
    assert tok.decode([i for i, m in zip(ids, mask, strict=True) if m]) == "y\n\n"
    assert plain.stop(tok) == tok.encode("\n\n")


def test_turns_of_weight_0_are_not_learnt(tok):
    """Their ids stay; weight 1 and none are the same."""
    chat = [dict(message) for message in CHAT]
    chat[2]["weight"], chat[4]["weight"], chat[0]["weight"] = 0, 1, 0
    ids, mask = CHATML.render(chat, tok)
    assert ids == CHATML.render(CHAT, tok)[0]
    assert tok.decode([i for i, m in zip(ids, mask, strict=True) if m]) == "ask()<|im_end|>voilà 😀<|im_end|>"
    assert CHATML.learnt(chat) == [4, 7] and CHATML.learnt(CHAT) == [2, 4, 7]


def test_an_assistant_that_speaks_first_is_masked_alone(tok):
    """One token of answer at index 0, then the user: only the first is learnt (transformers 5.23 marks all)."""
    bare = Template(
        {"user": ("<|user|>", ""), "assistant": ("", "")}, order={"assistant": ("",), "user": ("assistant",)}
    )
    ids, mask = bare.render(turns(("assistant", "A"), ("user", "How are you?")), tok)
    assert ids[0] == tok.encode("A")[0] and mask == [1] + [0] * (len(ids) - 1)


@pytest.mark.parametrize("template", [CHATML, INST], ids=["chatml", "inst"])
def test_control_tokens_that_a_user_writes_stay_text(template, tok):
    """Every one of them: its id appears as often as the template puts it, and the text comes back."""
    names = "".join(tok.specials)
    chat = turns(("user", "How are you?"), ("assistant", "Fine"))
    forged = turns(("user", names), ("assistant", names))
    ids, plain = template.render(forged, tok)[0], template.render(chat, tok)[0]
    for i in tok.specials.values():
        assert ids.count(i) == plain.count(i)
    assert tok.decode(ids).count(names) == 2


def test_a_prompt_is_the_chat_up_to_where_the_assistant_begins(tok):
    ids, mask = CHATML.render(CHAT[:3], tok)
    assert CHATML.prompt(CHAT[:2], tok) == ids[: mask.index(1)]
    assert CHATML.stop(tok) == [tok.special("<|im_end|>")]
    assert INST.prompt(CHAT[1:2], tok) == INST.render(CHAT[1:2], tok)[0]  # it has no header there
    assert INST.prompt(CHAT[1:4], tok).count(tok.special("<s>")) == 1


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        (CHAT[:1] * 2, r"turn 1 \(system\) follows system; system turns follow the start$"),
        (CHAT[2:3], r"turn 0 \(assistant\) follows the start; assistant turns follow user or tool$"),
        (CHAT[1:2] * 2, r"turn 1 \(user\) follows user"),
        (CHAT[1:2] + CHAT[:1], r"turn 1 \(system\) follows user"),
        (CHAT[1:2] + CHAT[5:6], r"turn 1 \(tool\) follows user"),
        (turns(("robot", "x")), "turn 0 has the role 'robot'; this template has system, user, assistant, tool"),
        ([{"role": "user", "content": None}], r"turn 0 \(user\) has NoneType as content; give a string"),
        ([{"role": "user"}], "has NoneType as content"),
        ([], "an empty chat"),
        (
            [CHAT[1] | {"weight": 1}],
            r"turn 0 \(user\) has the weight 1; turns of the assistant have 0 or 1, all others",
        ),
        ([CHAT[1], CHAT[2] | {"weight": 0.5}], r"turn 1 \(assistant\) has the weight 0\.5; turns"),
    ],
)
def test_a_chat_out_of_order_is_one_sentence(chat, says, tok):
    with pytest.raises(ValueError, match=says) as error:
        CHATML.render(chat, tok)
    assert "\n" not in str(error.value)


def test_nobody_can_be_prompted_out_of_order_and_templates_need_a_learner(tok):
    with pytest.raises(ValueError, match=r"turn 3 \(assistant\) follows assistant"):
        CHATML.prompt(CHAT[:3], tok)
    with pytest.raises(ValueError, match="no control token '<s2>'"):
        Template(INST.roles, controls=("<s2>",), start="<s2>").render(CHAT[1:2], tok)
    with pytest.raises(ValueError, match="the learning role 'model' is not in roles"):
        Template(INST.roles, assistant="model")


# ---------------------------------------------------------------------- batches


def test_targets_are_the_next_tokens_of_the_same_chat(tok):
    one, two = CHATML.render(CHAT[:3], tok), CHATML.render(CHAT[1:3], tok)
    length = len(one[0]) + len(two[0]) + 3
    ids, targets, weight, doc = batch([[one, two], [two]], length)
    assert ids.shape == targets.shape == weight.shape == doc.shape == (2, length)
    for row, chats in ((0, [one, two]), (1, [two])):
        start = 0
        for number, (chat, mask) in enumerate(chats):
            end = start + len(chat)
            assert ids[row, start:end].tolist() == chat and (doc[row, start:end] == number).all()
            assert targets[row, start : end - 1].tolist() == chat[1:]
            assert weight[row, start:end].tolist() == [*mask[1:], 0]  # the last predicts nothing
            start = end
        assert (doc[row, start:] == -1).all() and not weight[row, start:].any()


def test_cutting_inside_an_answer_keeps_ids_and_weights_together(tok):
    chat = CHATML.render(CHAT, tok)
    whole = batch([[chat]], len(chat[0]))
    inside = [i for i in range(1, len(chat[0])) if chat[1][i - 1] and chat[1][i]]
    assert len(inside) > 5
    for length in inside:
        ids, targets, weight, doc = (x[0] for x in batch([[chat]], length))
        assert ids.tolist() == chat[0][:length] and weight.tolist() == chat[1][1 : length + 1]
        assert all(torch.equal(x, y[0, :length]) for x, y in zip((ids, targets, weight, doc), whole, strict=True))


def test_no_gradient_reaches_a_logit_that_predicts_the_user(tok):
    """Exactly 0 on every position whose target is no learnt token, and not 0 on the others."""
    chat = CHATML.render(CHAT, tok)
    ids, targets, weight, _ = batch([[chat]], len(chat[0]) + 4)
    logits = torch.randn(*ids.shape, len(tok), generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = (F.cross_entropy(logits[0], targets[0], reduction="none") * weight[0]).sum() / weight.sum()
    (slope,) = torch.autograd.grad(loss, logits)
    learnt = torch.tensor([*chat[1][1:], 0, 0, 0, 0, 0]).bool()
    assert (slope[0, ~learnt] == 0).all()
    assert (slope[0, learnt].abs().sum(1) > 0).all()


# ---------------------------------------------------------------------- Hugging Face

JINJA = (
    "{{ '<s>' }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST]' }}{{ message['content'] }}{{ '[/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ '' }}{% generation %}{{ message['content'] }}{{ '</s>' }}{% endgeneration %}{{ '' }}"
    "{% else %}{{ raise_exception('unknown role ' ~ message['role']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '' }}{% endif %}"
)


def test_the_exported_template_is_what_transformers_was_checked_with():
    """`test_transformers_renders_the_same_ids_and_masks` is the check, with transformers 5.23."""
    assert INST.to_jinja() == JINJA


@pytest.mark.peers
@pytest.mark.parametrize("template", [CHATML, INST], ids=["chatml", "inst"])
def test_transformers_renders_the_same_ids_and_masks(template, tok, tmp_path):
    transformers = pytest.importorskip("transformers")
    tok.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    hf.chat_template = template.to_jinja()
    question = turns(("user", "How are you?"))
    asked = hf.apply_chat_template(question, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert asked == template.prompt(question, tok)
    chats = [CHAT[1:3], CHAT[1:5], turns(("user", 'it\'s "so" {{ x }} {% y %}'), ("assistant", "\\n"))]
    for chat in [*chats, *([CHAT] if template is CHATML else [])]:
        ids, mask = template.render(chat, tok)
        theirs = hf.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        assert theirs["input_ids"] == ids and theirs["assistant_masks"] == mask
    forged = turns(("user", template.controls[-1]))
    theirs = hf.apply_chat_template(forged, return_dict=True)["input_ids"]
    assert template.render(forged, tok)[0] != theirs  # Hugging Face parses what the user typed
