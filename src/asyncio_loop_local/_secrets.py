"""Short reprs for errors, warnings and logs, in which secrets are masked.

A secret is recognised by its name (a parameter, key, header, attribute or option), by its place in a URL, or by its form.
The items of built-in containers are masked one by one; of any other object, the text of its repr is searched.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_MASK = "***"
_MAX_LENGTH = 200
_MAX_SEARCHED = 10_000  # only the beginning of a longer text is used
_MAX_DEPTH = 5


def _pattern(source: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    """Return a function that gives the compiled pattern. It is compiled when first asked for: many programs mask nothing."""
    return cache(lambda: re.compile(source, flags))


# A name is a secret's if it contains one of these parts (however its words are joined) or words,
# unless its last word shows that the value only describes a secret, as in token_url.
_SECRET_PARTS = _pattern(
    r"passw|passphrase|passcode|secret|credential|authorization|cookie|bearer|sessionid|mnemonic|nkeysseed|apihash"
    r"|(?:api|access|private|signing|encryption|account|master|auth|shared|ssh|licen[cs]e|service|app|client|subscription|"
    r"session|deploy|storage|supabase|fernet|hmac)key"
)
_SECRET_WORDS = frozenset({"token", "auth", "pwd", "pw", "pass", "cred", "creds", "jwt", "otp", "pin", "sig", "signature", "sas"})
_ABOUT_SECRETS = frozenset(
    (
        *("url", "uri", "type", "ttl", "timeout", "name", "count", "limit", "length", "size", "file", "path", "endpoint"),
        *("expiry", "expires", "lifetime", "jar", "policy", "algorithm", "scheme", "method", "mode", "version", "age"),
        *("domain", "budget"),
    )
)
_WORD = _pattern(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HARMLESS = _pattern(r"None|True|False|''|\"\"|\(\)|\[\]|\{\}")
_NUMBER = _pattern(r"-?[\d.]+")

# Every search looks at a bounded piece of text from each starting point, so it takes linear time.
# A text that is a URL as a whole may contain quotes; in other texts, a quote before a delimiter ends the URL.
_URL = _pattern(
    r"(?P<scheme>(?:(?P<whole>\A)[\w+.-]{0,50}?)?(?P<web>https?|wss?)?://)"
    r"(?P<rest>(?(whole)\S+\Z|(?:[^\s'\"]|['\"](?![\s,)\]}>]|$))+))",
    re.IGNORECASE,
)
# What precedes the host: user:password@, or user@. It is not host:port/…@…. A password may contain @, /, ? and #.
_LOGIN = _pattern(r"(?P<user>[^:?#]*):(?!\d{1,5}(?:[/?#]|\Z))(?:[^?#]*@|.*@)|[^/:?#]*@")
_QUERY_KEY = _pattern(r"(?<=[?&]key=)[^&#'\"]*")
_OPTION = _pattern(r"(?P<option>(?<![\w-])--(?P<name>[\w-]{1,100})\s{1,3})(?P<value>[^\s-]\S*)")
_FORMS = (
    (_pattern(r"(?<![\w.+/@:-])(?P<user>[\w.+-]{0,64}):[^\s:@/'\"]+@"), rf"\g<user>:{_MASK}@"),
    (_pattern(r"\b(?:gh[opsur]_|github_pat_|glpat-|sk-|xox[abeprs]-|xapp-\d|AKIA|eyJ|[rs]k_(?:live|test)_)[\w.-]{12,}"), _MASK),
    (_pattern(r"\b(?:hf_|gsk_|npm_|whsec_|sb_secret_|dop_v1_|pypi-Ag|AIza|ya29\.|SG\.)(?=[\w.-]{0,99}\d)[\w.-]{20,}"), _MASK),
    (_pattern(r"(?s)(?<=-----BEGIN )[A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END).)*"), _MASK),
)
_SCHEME_AND_TOKEN = _pattern(r"(?P<scheme>\b(?:[Bb]earer|BEARER)\s{1,3}|\b[Bb]asic\s{1,3}(?=[^\s'\",]{0,400}[A-Z\d=]))[^\s'\",]+")
# The separator between a name and its value: name=value, 'name': value, name: value, name:value, ('name', value).
_NAMED = _pattern(
    r"(?<![\w-])(?P<name>[\w-]{1,200})"
    r"(?:\s{0,20}=+\s{0,20}|:\s{1,20}|:(?!\d{1,5}\b)(?=[^\s/:*])|\\*['\"]\s{0,3}:\s{0,3}|(?P<pair>\\*['\"],\s{0,3}))"
)
_PAIR_OPENINGS = ("('", '("', "(b'", '(b"', "(\\'", '(\\"')
_QUOTE = _pattern(r"(?P<slashes>\\*)(?P<quote>['\"])")
_OPENING = _pattern(r"[bBrRuU]{0,2}(?P<slashes>\\*)(?P<quote>['\"])")
_NEXT = _pattern(r"\s|$|\s*[\w-]{1,100}\s*[=:]")
_LINE = _pattern(r"(?:=\\*\"[^\n\r\"]*\"?|(?!\\[nr])[^\n\r'\"])*")


def is_secret(name: str) -> bool:
    """Whether a value of this name is a secret."""
    words = [word.lower() for word in _WORD().findall(name)]
    if not words or words[-1] in _ABOUT_SECRETS:
        return False
    return not _SECRET_WORDS.isdisjoint(words) or words[-1] == "tokens" or _SECRET_PARTS().search("".join(words)) is not None


def mask_secrets(text: str) -> str:
    """Return the text with the passwords and tokens in it masked."""
    text = _URL().sub(_mask_url, text)
    text = _OPTION().sub(lambda found: f"{found['option']}{mask_if_secret(found['name'], found['value'])}", text)
    for form, masked in _FORMS:
        text = form().sub(masked, text)
    return _SCHEME_AND_TOKEN().sub(rf"\g<scheme>{_MASK}", _mask_named_values(text))


def safe_repr(value: object) -> str:
    """Return a short repr in which secrets are masked. Never raises an `Exception`."""
    return shorten(_masked_repr(value, 0))


def mask_if_secret(name: str, text: str) -> str:
    """Return the text of a value, or a mask if the value's name is that of a secret."""
    if not is_secret(name) or _HARMLESS().fullmatch(text):
        return text
    return text if name.lower().endswith("tokens") and _NUMBER().fullmatch(text) else _MASK


def _masked_repr(value: object, depth: int) -> str:
    kind = type(value)
    if isinstance(value, str) and kind is str:  # a subclass may have a repr of its own
        return repr(mask_secrets(_truncate(value)))
    if kind in _BRACKETS and value and depth < _MAX_DEPTH:
        opening, closing = _BRACKETS[kind]
        return f"{opening}{', '.join(_items(value, kind, depth + 1))}{closing}"
    try:
        text = repr(value)
    except Exception:
        return f"<{kind.__qualname__} object>"
    return mask_secrets(_truncate(text))


_SEQUENCES = (list, tuple)
_BRACKETS: dict[type, tuple[str, str]] = {
    dict: ("{", "}"),
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def _items(container: Any, kind: type, depth: int) -> list[str]:
    """Return the masked reprs of a container's first items, at least as many as fit into the result."""
    if kind is tuple and len(container) == 2:
        return [_pair(container[0], container[1], depth)]
    parts: list[str] = []
    length = 0
    option = ""  # of a command line: the next item is its value
    # A copy, since a repr may change the container, and so may another thread.
    items: list[Any] = list(islice(container.items() if kind is dict else container, 2 * _MAX_LENGTH + 2))
    for item in items:
        if length > 2 * _MAX_LENGTH:
            return [*parts, "..."]
        item_kind = type(cast("object", item))
        if kind is dict:
            part = _pair(item[0], item[1], depth, separator=": ")
        elif kind in _SEQUENCES and item_kind is list and len(item) == 2:
            part = f"[{_pair(item[0], item[1], depth + 1)}]"
        else:
            part = mask_if_secret(option, _masked_repr(item, depth))
        option = item if kind in _SEQUENCES and item_kind is str and item.startswith("--") else ""
        parts.append(part)
        length += len(part)
    return [f"{parts[0]},"] if kind is tuple and len(parts) == 1 else parts


def _pair(first: object, second: object, depth: int, *, separator: str = ", ") -> str:
    """Return the masked reprs of two values, of which the first may be the name of the second."""
    return f"{_masked_repr(first, depth)}{separator}{mask_if_secret(_as_name(first), _masked_repr(second, depth))}"


def _as_name(key: object) -> str:
    return key if isinstance(key, str) else key.decode("latin-1") if isinstance(key, bytes) else ""


def _mask_url(found: re.Match[str]) -> str:
    """Mask the password; in a web address the user too, which often is a token."""
    rest = found["rest"]
    login = _LOGIN().match(rest)
    if login is not None and (found["web"] or login["user"] is not None):
        user = "" if found["web"] else f"{login['user']}:"
        rest = f"{user}{_MASK}@{rest[login.end() :]}"
    return f"{found['scheme']}{_QUERY_KEY().sub(_MASK, rest)}"


def _mask_named_values(text: str) -> str:
    """Mask each value that follows the name of a secret."""
    parts: list[str] = []
    kept = at = 0
    while (found := _NAMED().search(text, at)) is not None:
        at = found.end()
        name = found["name"]
        before = text[max(0, found.start() - 3) : found.start()]
        if found["pair"] and not (before.endswith(_PAIR_OPENINGS) or name.startswith("--")):
            at = found.end("name")
        elif is_secret(name):
            end = _end_of_value(text, at, to_line_end=name.lower().endswith(("authorization", "cookie")))
            parts += [text[kept:at], mask_if_secret(name, text[at:end])]
            kept = at = end
    return "".join([*parts, text[kept:]])


def _end_of_value(text: str, at: int, *, to_line_end: bool) -> int:
    """Return the end of the value that starts here: a literal, a call, the line of a header, or text without spaces."""
    if (opening := _OPENING().match(text, at)) is not None:
        return _end_of_quoted(text, opening)
    if to_line_end and (line := _LINE().match(text, at)) is not None:
        return line.end()
    depth = 0
    while at < len(text):
        char, after = text[at], text[at + 1 : at + 2]
        ends_here = not (after.isalnum() or after == "_")
        if char in "([{<":
            depth += 1
        elif char in ")]}>" and (depth or ends_here):
            depth -= 1
            if depth < 0:
                return at
        elif depth:
            if (opening := _QUOTE().match(text, at)) is not None:
                at = _end_of_quoted(text, opening)
                continue
        elif char.isspace() or (char in "'\"\\" and ends_here) or (char in ",;&" and _NEXT().match(text, at + 1)):
            return at
        at += 1
    return at


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """Return the end of a quoted string. Inside another string, its quotes have backslashes before them."""
    opened = len(opening["slashes"])
    for closing in _QUOTE().finditer(text, opening.end()):
        if closing["quote"] == opening["quote"]:
            slashes = len(closing["slashes"])
            if slashes < opened:
                return closing.start()
            if slashes == opened or (not opened and slashes % 2 == 0):
                return closing.end()
    return len(text)


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_SEARCHED else f"{text[:_MAX_SEARCHED]}..."


def shorten(text: str) -> str:
    """Return a short text as it is, of a long one the beginning and the end."""
    if len(text) <= _MAX_LENGTH:
        return text
    half = (_MAX_LENGTH - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
