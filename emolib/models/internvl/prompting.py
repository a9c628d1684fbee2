"""How InternVL-Chat was spoken to in training: system message, turn marks, image blocks.

One turn is ``<|im_start|>ROLE``, a line break, the text and ``<|im_end|>``; V1.5 and V2 put
nothing between turns, V2.5 a line break (which is what ms-swift's and the ``-hf`` folders'
templates do for all of them). ``<s>`` comes first. An image is ``<img>``, its tiles'
``<IMG_CONTEXT>``, ``</img>`` and a line break, before the words.

Source: InternVL a08ba33 (release of 1.5) and 2410d1d, ``internvl/conversation.py``,
``modeling_internvl_chat.py: chat``.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emolib.errors import DataError
from emolib.models.internvl.tokenizer import IMAGE

MODEL_TYPE = "internvl_chat_native"  # ms-swift's name of converted folders, and of their template

SYSTEM_V1_5 = "You are an AI assistant whose name is InternLM (书生·浦语)."
SYSTEM_V2 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
SYSTEM_V2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The chat format of one model, kept in the converted ``config.json`` under ``chat``.

    Attributes:
        name: "v1.5", "v2" or "v2.5".
        system: System message when the caller gives none.
        end: What closes a turn.
        layout: "joint": neighbouring images share one ``<img>…</img>`` block, as V1.5's own
            ``chat()`` and ms-swift's V1.5 template do; "separate": one block an image.
    """

    name: str
    system: str
    end: str
    layout: str


DIALECTS = {
    "v1.5": Dialect("v1.5", SYSTEM_V1_5, "<|im_end|>", "joint"),
    "v2": Dialect("v2", SYSTEM_V2, "<|im_end|>", "separate"),
    "v2.5": Dialect("v2.5", SYSTEM_V2_5, "<|im_end|>\n", "separate"),
}


def dialect_of(config: Mapping[str, Any], folder: Path, name: str = "") -> Dialect:
    """Find a published folder's chat format.

    ``template: internvl2_5`` means V2.5. V1.5 and V2 share ``internlm2-chat`` and differ in
    the system message. What decides, first found: ``config.json: system_message``; "V1-5" or
    "InternVL2-" in the folder's path or ``_name_or_path``; the folder's ``conversation.py``
    (parsed, never run; later uploads of V1.5 may carry V2's); else V1.5.

    Args:
        config: The published ``config.json``.
        folder: The published folder.
        name: Overrides the finding: "v1.5", "v2", "v2.5".

    Raises:
        DataError: a template or name that is not known.
    """
    if name:
        if name not in DIALECTS:
            raise DataError(f"unknown chat format {name!r}; choose from {sorted(DIALECTS)}")
        return DIALECTS[name]
    template = config.get("template", "internlm2-chat")
    if template not in ("internlm2-chat", "internvl2_5"):
        raise DataError(
            f"config.json: template {template!r} is not known; name one of {sorted(DIALECTS)} "
            "with --chat"
        )
    found = DIALECTS["v2.5" if template == "internvl2_5" else "v1.5"]
    system = config.get("system_message")
    if not system and template == "internlm2-chat":
        path = f"{folder.resolve()} {config.get('_name_or_path', '')}".replace(".", "-").lower()
        if "v1-5" in path:
            return found
        if "internvl2-" in path:
            return DIALECTS["v2"]
        system = _declared_system(folder / "conversation.py", template)
    if not system or system == found.system:
        return found
    if template == "internlm2-chat" and system == SYSTEM_V2:
        return DIALECTS["v2"]
    return Dialect(found.name, system, found.end, found.layout)


def _declared_system(path: Path, template: str) -> str | None:
    """System message of ``template`` in a ``conversation.py``, read from its syntax tree."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = {
                k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            if values.get("name") == template and isinstance(values.get("system_message"), str):
                return str(values["system_message"])
    return None


def from_config(config: Any) -> Dialect:
    """Chat format of a loaded native configuration.

    Raises:
        DataError: the folder was not made by ``emolib convert internvl``.
    """
    chat = getattr(config, "chat", None)
    if not isinstance(chat, dict):
        raise DataError(
            "config.json has no 'chat': this template is for folders made by "
            "'emolib convert internvl'; for -hf folders use model_type internvl"
        )
    return Dialect(**chat)


def to_config(dialect: Dialect) -> dict[str, str]:
    """What :func:`from_config` reads."""
    return asdict(dialect)


# Everything a tokenizer or template would act on; text that spells one stays text.
_MARK = re.compile(
    r"<(?=/?s>|unk>|\||/?img>|IMG_CONTEXT>|/?(?:quad|ref|box)>|image>|video>|audio>|bbox>|"
    r"ref-object>|cot-process>|start-image>)|"
    r"\{(?=\{(?:SYSTEM|QUERY|RESPONSE|ROUND[01])\}\})"
)
BREAK = "\ufdd0"  # a code point that no text may contain


def broken_marks(text: str) -> str:
    """Put :data:`BREAK` into every mark that ``text`` spells, so that nothing acts on it.

    >>> broken_marks("<|im_end|> 1 < 2").replace(BREAK, "~")
    '<~|im_end|> 1 < 2'
    """
    return _MARK.sub(lambda mark: mark.group() + BREAK, text.replace(BREAK, ""))


def lay_out(
    text: str, images: int, layout: str, block: tuple[str, str] = ("<img>", "</img>")
) -> tuple[str, int]:
    """Put the images of one message in place and make the rest plain text.

    ``<image>`` marks are placeholders when there are at most ``images`` of them; when there
    are more, only those that open the message are, if they are enough. A run of marks that is
    followed by words directly gets the line breaks of training; a run that ends its line
    keeps its author's spacing. No word is ever lost.

    Args:
        text: The message.
        images: Images that are left for this and later messages.
        layout: See :class:`Dialect`; only neighbouring images are ever joined.
        block: What stands before and behind the images of a block.

    Returns:
        The message with ``<image>`` marks in blocks, and how many images it takes.

    Raises:
        DataError: more marks than images.
    """
    spots = [mark.span() for mark in re.finditer("<image>", text)]
    if len(spots) > images:
        opening = text[: spots[images - 1][1]] if images else ""
        if opening.replace("<image>", "").strip():
            raise DataError(f"{len(spots)} <image> marks in a message, but {images} images")
        spots = spots[:images]
    runs: list[list[tuple[int, int]]] = []
    for spot in spots:
        if runs and not text[runs[-1][-1][1] : spot[0]].strip():
            runs[-1].append(spot)
        else:
            runs.append([spot])
    out, at = "", 0
    for run in runs:
        out += broken_marks(text[at : run[0][0]])
        at = run[-1][1]
        own = text.startswith("\n", at)
        gaps = [text[a[1] : b[0]] if own else "\n" for a, b in itertools.pairwise(run)]
        last = "" if own else "\n"
        blocks = [len(run)] if layout == "joint" else [1] * len(run)
        spacing = [last] if layout == "joint" else [*gaps, last]
        for count, gap in zip(blocks, spacing, strict=True):
            out += block[0] + "<image>" * count + block[1] + gap
    return out + broken_marks(text[at:]), len(spots)


_JINJA = """\
{%- macro plain(text) -%}{{ text BLUNT }}{%- endmacro -%}
{%- macro turn(role, content) -%}
{{- '<|im_start|>' + role + '\\n' -}}
{%- if content is string -%}{{- plain(content) -}}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}{{- 'IMAGE\\n' -}}
{%- elif part.type == 'text' -%}{{- plain(part.text) -}}
{%- else -%}{{- raise_exception('this model takes text and images, not ' + part.type) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- 'END' -}}
{%- endmacro -%}
{{- bos_token -}}
{%- if messages[0].role != 'system' -%}{{- turn('system', 'SYSTEM') -}}{%- endif -%}
{%- for message in messages -%}{{- turn(message.role, message.content) -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def chat_template(dialect: Dialect) -> str:
    """Jinja chat template for processors and model servers: one block an image.

    Marks spelt in message text lose their "<" to a look-alike, as :func:`emolib.prompts.plain`
    does, because a server tokenises the whole prompt as one string.
    """
    marks = ("<|", "<s>", "</s>", "<unk>", *list(IMAGE.values())[:3])
    marks += tuple(f"<{end}{name}>" for name in ("quad", "ref", "box") for end in ("", "/"))
    blunt = " ".join(f"| replace('{mark}', '‹{mark[1:]}')" for mark in marks)
    quoted = {
        "BLUNT": blunt,
        "IMAGE": IMAGE["context_image_token"],
        "END": dialect.end,
        "SYSTEM": dialect.system,
    }
    text = _JINJA
    for key, value in quoted.items():
        if key != "BLUNT":
            value = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        text = text.replace(key, value)
    return text
