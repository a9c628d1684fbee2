"""The OpenAI chat protocol: requests as bytes, answers as replies."""

from __future__ import annotations

import email.utils
import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx

from emolib.engines.base import Request, read_tokens
from emolib.engines.encode import media_fault, png_base64, wav_base64
from emolib.errors import EngineError
from emolib.params.schemas import ModelParams

# Servers tokenise the text themselves, so marks of the common templates are blunted here.
_MARK = re.compile(
    r"<(?=\|[^|<>]*\||/?(?:s|img|image|video|audio|IMG_CONTEXT|start-image|bbox|ref-object)>)"
)


class Again(Exception):
    """A try failed in a way that may pass; ``after`` are the seconds the server asked to wait."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Unsupported(EngineError):
    """The model supports a setting in no request, so that every further one would fail."""


def write_body(request: Request, params: ModelParams) -> bytes:
    """Write the body of ``POST /chat/completions``.

    Images go as PNG data URLs, audio as 16-bit WAV ``input_audio`` parts, both before the text.

    Raises:
        EngineError: an array of the request is of no use.
    """
    if fault := media_fault(request):
        raise EngineError(fault)
    content: list[dict[str, Any]] = []
    for image in request.images:
        url = f"data:image/png;base64,{png_base64(image)}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    for audio in request.audio:
        data = {"data": wav_base64(audio, request.sample_rate), "format": "wav"}
        content.append({"type": "input_audio", "input_audio": data})
    prompt = _MARK.sub("\u2039", request.prompt)
    content.append({"type": "text", "text": prompt})
    messages: list[dict[str, Any]] = []
    if request.system is not None:
        messages.append({"role": "system", "content": _MARK.sub("\u2039", request.system)})
    messages.append({"role": "user", "content": content if len(content) > 1 else prompt})
    body = {"model": params.model, "messages": messages, "stream": False, **sampling(params)}
    body |= params.extra_body
    if request.alternatives:
        body |= {"logprobs": True, "top_logprobs": request.alternatives}
    return json.dumps(body).encode()


def sampling(params: ModelParams) -> dict[str, object]:
    """Name the decoding settings as the protocol does; what is off is left out."""
    decoding = params.decoding
    settings: dict[str, object] = {params.max_tokens_key: decoding.max_new_tokens}
    if params.send_temperature:
        settings["temperature"] = decoding.temperature
    if decoding.temperature > 0:
        settings |= {"top_p": decoding.top_p, "seed": decoding.seed}
    if decoding.repetition_penalty != 1:  # an extension that not every server knows
        settings["repetition_penalty"] = decoding.repetition_penalty
    if decoding.stop:
        settings["stop"] = list(decoding.stop)
    return settings


def read_answer(content: bytes) -> dict[str, Any]:
    """Turn a server's answer into the fields of a reply.

    Raises:
        EngineError: it is no such answer, or holds no text.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise EngineError("the answer is not JSON", transient=True) from None
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text = message["content"]
        reason = choice.get("finish_reason") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EngineError("the answer holds no choices[0].message.content") from None
    if not isinstance(text, str) or not text.strip():
        raise EngineError(f"the answer is empty (finish_reason {reason!r}){_why_empty(message)}")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return {
        "text": text,
        "finish_reason": str(reason),
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "new_tokens": _count(usage.get("completion_tokens")),
        "tokens": read_tokens(choice.get("logprobs")),
    }


def _why_empty(message: dict[str, Any]) -> str:
    if refusal := message.get("refusal"):
        return f": the model refused: {refusal}"
    if message.get("reasoning_content") or message.get("reasoning"):
        return ": it ended while thinking; raise max_new_tokens or turn thinking off (extra_body)"
    return ""


def unsupported(content: bytes, params: ModelParams) -> Unsupported | None:
    """Read an error answer that refuses one of the settings sent with every request.

    Args:
        content: Body of an HTTP 400 or 422 answer.
        params: What the request was written from.

    Returns:
        The fault with the parameter to change; None when the request itself is at fault.
    """
    try:
        error = json.loads(content)["error"]
        setting, code = error["param"], error["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    sent = {**sampling(params), **params.extra_body, "logprobs": True, "top_logprobs": 1}
    kinds = ("unsupported_parameter", "unsupported_value")
    if code not in kinds or not isinstance(setting, str) or setting not in sent:
        return None
    cure = {
        "max_tokens": "set max_tokens_key: max_completion_tokens",
        "max_completion_tokens": "set max_tokens_key: max_tokens",
        "temperature": "set send_temperature: false",
        "top_p": "set send_temperature: false",
        "logprobs": "choose a scoring that needs no token probabilities",
        "top_logprobs": "choose a scoring that needs no token probabilities",
    }.get(setting, "take it out of extra_body" if setting in params.extra_body else "leave it out")
    return Unsupported(f"the model does not support {setting!r}: {cure}. {reason(content)}")


def _count(value: object) -> int:
    return value if isinstance(value, int) else -1


def reason(content: bytes) -> str:
    """Find the message in an error answer."""
    text = content[:4000].decode(errors="replace")
    try:
        answer = json.loads(text)
        answer = answer.get("error", answer)
        found = answer.get("message") if isinstance(answer, dict) else answer
        return str(found or text)
    except (ValueError, AttributeError, RecursionError):
        return text


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds a ``Retry-After`` header asks for; it holds a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None
