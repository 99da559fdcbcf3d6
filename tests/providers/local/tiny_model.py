"""A language model of 100,000 weights that is trained here, in seconds, to know a few dialogues.

It is a real one: a Llama with a byte-level tokenizer and a chat template, in the files that every
engine reads. It learns its dialogues by heart, so that greedy decoding says them exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CACHE = Path(__file__).parents[3] / ".cache" / "tiny-model"
"""Where trained ones are kept, by what they were made from."""
SPECIALS = (
    "<|begin|> <|end|> <|im_start|> <|im_end|> <tool_call> </tool_call> <think> </think>".split()
)
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 4, 2
WINDOW = 2048
GOOD_ENOUGH = 0.004
"""Loss at which every token of every answer is by far the likeliest one."""
REMEMBER = "remember: "
"""A conversation that begins with it is rendered as a whole, others by their last message."""

TEMPLATE = (
    "{# tool_call.name selects the parser of <tool_call> #}"
    "{% if messages[0]['content'] and messages[0]['content'].startswith('" + REMEMBER + "') %}"
    "{% set shown = messages %}{% else %}{% set shown = messages[-1:] %}{% endif %}"
    "{% for m in shown %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Dialogue(NamedTuple):
    """What is said to the model, and the answer that it learns."""

    asked: str
    answer: str
    role: str = "user"
    """Who says it: ``user``, or ``tool`` for the result of a call."""
    before: tuple[tuple[str, str], ...] = ()
    """Role and text of what was said before that."""
    ends: bool = True
    """Whether the answer has an end; without, it goes on as long as it may."""


PYTHON = "```python\nsc.pp.normalize_total(adata, target_sum=1e4)\nsc.pp.log1p(adata)\n```"
CALL = '<tool_call>{"name": "run_code", "arguments": {"code": "print(1)"}}</tool_call>'
LIST = '[TOOL_CALLS][{"name": "look", "arguments": {}}, {"name": "run", "arguments": {"n": 1}}]'
"""Calls as other families of models write them: a list, without a mark at its end."""
SONG = " ".join(["la"] * 40)
FIRST_TURN = f"{REMEMBER}two kinds of cells, T and B"
DIALOGUES = (
    Dialogue("hello", "Hello! I write scanpy code."),
    Dialogue("Say hello.", "Hello! I am a small model."),
    Dialogue("normalize the data", PYTHON),
    Dialogue("think", "<think>I should greet.</think>\n\nHi there."),
    Dialogue("call a tool", CALL),
    Dialogue("say and call", f"I look at the data.\n{CALL}\n{CALL.replace('(1)', '(2)')}"),
    Dialogue("call badly", '<tool_call>{"name": "run_code", "arguments": {"code": </tool_call>'),
    Dialogue("forget the end", CALL.removesuffix("</tool_call>")),
    Dialogue("call a list", LIST),
    Dialogue("1", "The result is 1.", role="tool"),
    Dialogue("units", "5 µm, café 🧬 and DNA."),
    Dialogue("count", "one two three four five six seven"),
    Dialogue("sing", SONG, ends=False),
    Dialogue(FIRST_TURN, "I keep that in mind: T and B."),
    Dialogue(
        "the second one?",
        "The second one is B.",
        before=(("user", FIRST_TURN), ("assistant", "I keep that in mind: T and B.")),
    ),
)


def tiny_model(dialogues: Sequence[Dialogue] = DIALOGUES) -> Path:
    """Folder of a model that knows these dialogues; trained when there is none yet."""
    made_from = repr([tuple(each) for each in dialogues]) + Path(__file__).read_text("utf-8")
    place = CACHE / hashlib.sha256(made_from.encode()).hexdigest()[:16]
    if (place / "model.safetensors").exists():
        return place
    work = CACHE / f"{place.name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _write_tokenizer(work, dialogues)
    _write_config(work)
    _train(work, dialogues)
    try:
        work.rename(place)
    except OSError:  # another process was faster, and made the same
        shutil.rmtree(work)
    return place


def _write_tokenizer(place: Path, dialogues: Iterable[Dialogue]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    ascii_only = [each.answer.encode("ascii", "ignore").decode() for each in dialogues]
    tokenizer.train_from_iterator(ascii_only, trainer)
    tokenizer.save(str(place / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|im_end|>",
        "model_max_length": WINDOW,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_config(place: Path) -> None:
    vocabulary = json.loads((place / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "rms_norm_eps": 1e-5,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": WINDOW,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": vocabulary["<|begin|>"],
        "eos_token_id": vocabulary["<|im_end|>"],
        "torch_dtype": "float32",
    }
    (place / "config.json").write_text(json.dumps(config))


def _train(place: Path, dialogues: Sequence[Dialogue]) -> None:
    """Teach the answers, and only these: what is asked counts nothing in the loss."""
    import mlx.core as mx
    from mlx import nn, optimizers
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama
    from mlx_lm.utils import load_tokenizer

    mx.random.seed(0)
    config = json.loads((place / "config.json").read_text("utf-8"))
    model = llama.Model(llama.ModelArgs.from_dict(config))
    tokens, counts = _examples(load_tokenizer(place), dialogues)
    inputs, answers = mx.array(tokens), mx.array(counts)

    def loss(model: Any) -> Any:
        each = nn.losses.cross_entropy(model(inputs[:, :-1]), inputs[:, 1:], reduction="none")
        return (each * answers).sum() / answers.sum()

    step, optimizer = nn.value_and_grad(model, loss), optimizers.Adam(learning_rate=3e-3)
    for _ in range(400):
        value, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        if value.item() < GOOD_ENOUGH:
            break
    else:
        raise AssertionError(f"The tiny model did not learn its dialogues: loss {value.item()}.")
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(place / "model.safetensors"), weights, metadata={"format": "mlx"})


def _examples(
    tokenizer: Any, dialogues: Iterable[Dialogue]
) -> tuple[list[list[int]], list[list[float]]]:
    """Token ids of each dialogue, all of one length, and which of the next ones are learnt."""
    pairs = []
    for each in dialogues:
        said = [*each.before, (each.role, each.asked)]
        messages = [{"role": role, "content": text} for role, text in said]
        prompt = list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        answer = tokenizer.encode(each.answer, add_special_tokens=False)
        pairs.append((prompt, answer + [tokenizer.eos_token_id] * each.ends))
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    tokens, counts = [], []
    for prompt, answer in pairs:
        fill = length - len(prompt) - len(answer)
        tokens.append(prompt + answer + [0] * fill)
        counts.append([0.0] * (len(prompt) - 1) + [1.0] * len(answer) + [0.0] * fill)
    return tokens, counts
