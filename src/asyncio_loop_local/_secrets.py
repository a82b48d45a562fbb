"""Short reprs for errors, warnings and logs, in which secrets are masked."""

from __future__ import annotations

import re
from typing import Any, cast

_MASK = "***"
_LONGEST = 200
_READ = 10_000  # of a longer text, only the beginning is read
_DEEPEST = 5

# What makes a name that of a secret: a part of it, however it is written, or one of its words; and what a name of
# something about a secret ends with.
_SECRET_PARTS = re.compile(
    r"passw|passphrase|passcode|secret|credential|authorization|cookie|bearer|sessionid"
    r"|(?:api|access|private|signing|encryption|account|master|auth|shared|ssh|licen[cs]e|service|app|client|subscription|"
    r"session|deploy|storage)key"
)
_SECRET_WORDS = frozenset({"token", "auth", "pwd", "pw", "pass", "cred", "creds", "jwt", "otp", "pin", "sig", "signature", "sas"})
_ABOUT_SECRETS = frozenset(
    (
        *("url", "uri", "type", "ttl", "timeout", "name", "count", "limit", "length", "size", "file", "path", "endpoint"),
        *("expiry", "expires", "lifetime", "jar", "policy", "algorithm", "scheme", "method", "mode", "version", "age"),
        *("domain", "budget"),
    )
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HARMLESS = re.compile(r"None|True|False|''|\"\"|\(\)|\[\]|\{\}")
_NUMBER = re.compile(r"-?[\d.]+")

# Each begins where its name does and looks at a bounded piece of text, so that reading stays linear.
_NAMED = re.compile(
    r"(?<![\w-])(?P<name>[\w-]{1,200})"
    r"(?:\s{0,20}=+\s{0,20}|:\s{1,20}|:(?!\d{1,5}\b)(?=[^\s/:*])|\\*['\"]\s{0,3}:\s{0,3}|(?P<pair>\\*['\"],\s{0,3}))"
)
_PAIR_OPENINGS = ("('", '("', "(b'", '(b"', "(\\'", '(\\"')
_QUOTE = re.compile(r"(?P<slashes>\\*)(?P<quote>['\"])")
_OPENING = re.compile(r"[bBrRuU]{0,2}(?P<slashes>\\*)(?P<quote>['\"])")
_NEXT = re.compile(r"\s|$|\s*[\w-]{1,100}\s*[=:]")
_LINE = re.compile(r"(?:=\\*\"[^\n\r\"]*\"?|(?!\\[nr])[^\n\r'\"])*")
_URL = re.compile(r"(?P<web>(?:https?|wss?))?://(?P<rest>(?:[^\s'\"]|['\"](?![\s,)\]}>]|$))+)", re.IGNORECASE)
_WHOLE_URL = re.compile(r"(?:(?P<web>https?|wss?)|(?P<scheme>[\w+.-]{0,50}))://(?P<rest>\S+)", re.IGNORECASE)
_OPTION = re.compile(r"(?P<option>(?<![\w-])--(?P<name>[\w-]{1,100})\s{1,3})(?P<value>[^\s-]\S*)")
_PORT = re.compile(r"\d{1,5}")
_QUERY_KEY = re.compile(r"(?<=[?&]key=)[^&#'\"]*")
_BARE_LOGIN = re.compile(r"(?<![\w.+/@:-])(?P<user>[\w.+-]{1,64}):(?P<password>[^\s:@/'\"]+)@")
_BEARER = re.compile(r"(?P<scheme>\b(?:[Bb]earer|BEARER)\s{1,3}|\b[Bb]asic\s{1,3}(?=[^\s'\",]{0,400}[A-Z\d=]))[^\s'\",]+")
_KNOWN = re.compile(
    r"\b(?:gh[opsur]_|github_pat_|glpat-|sk-|xox[abeprs]-|AKIA|eyJ)[\w.-]{12,}"
    r"|(?<=-----BEGIN )[A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END).)*",
    re.DOTALL,
)


def is_secret(name: str) -> bool:
    """Whether what has this name is not to be shown."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT_SECRETS:
        return False
    return not _SECRET_WORDS.isdisjoint(words) or words[-1] == "tokens" or _SECRET_PARTS.search("".join(words)) is not None


def mask_secrets(text: str) -> str:
    """The text without the passwords and tokens that stand in it."""
    whole = _WHOLE_URL.fullmatch(text)  # in which quotes are part of it
    text = _URL.sub(_mask_url, text) if whole is None else f"{whole['scheme'] or ''}{_mask_url(whole)}"
    text = _OPTION.sub(_mask_option, text)
    text = _BARE_LOGIN.sub(rf"\g<user>:{_MASK}@", text)
    text = _KNOWN.sub(_MASK, text)
    return _BEARER.sub(rf"\g<scheme>{_MASK}", _mask_named_values(text))


def safe_repr(value: object) -> str:
    """A short repr that never fails and shows no secrets."""
    return shorten(_masked_repr(value, 0))


def mask_if_secret(name: str, text: str) -> str:
    """What is shown of something that has this name."""
    if not is_secret(name) or _HARMLESS.fullmatch(text):
        return text
    return text if name.lower().endswith("tokens") and _NUMBER.fullmatch(text) else _MASK


def _masked_repr(value: object, depth: int) -> str:
    kind = type(value)
    if isinstance(value, str) and kind is str:
        return repr(mask_secrets(_truncate(value)))
    if kind in _BRACKETS and value and depth < _DEEPEST:
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
    """As many of a container's items as will be shown."""
    parts: list[str] = []
    length = 0
    if kind is tuple and len(container) == 2:
        first, second = container
        return [_masked_repr(first, depth), mask_if_secret(_as_name(first), _masked_repr(second, depth))]
    option = ""  # of a command line, whose value comes next
    for item in container:
        if length > 2 * _LONGEST:
            return [*parts, "..."]
        item_kind = type(cast("object", item))
        if kind in _SEQUENCES and item_kind is list and len(item) == 2:
            part = f"[{', '.join(_items(tuple(item), tuple, depth + 1))}]"
        else:
            part = mask_if_secret(option, _masked_repr(item, depth))
        option = item if kind in _SEQUENCES and item_kind is str and item.startswith("--") else ""
        if kind is dict:
            part = f"{part}: {mask_if_secret(_as_name(item), _masked_repr(container[item], depth))}"
        parts.append(part)
        length += len(part)
    return [f"{parts[0]},"] if kind is tuple and len(parts) == 1 else parts


def _as_name(key: object) -> str:
    return key if isinstance(key, str) else key.decode("latin-1") if isinstance(key, bytes) else ""


def _mask_option(found: re.Match[str]) -> str:
    return f"{found['option']}{mask_if_secret(found['name'], found['value'])}"


def _mask_url(found: re.Match[str]) -> str:
    """Without the password; in a web address without the user, who there is often a token."""
    rest = found["rest"]
    before_query = re.split(r"[?#]", rest, maxsplit=1)[0]
    host = before_query.rfind("@")
    if host < 0:  # unless a password has broken the address
        port = before_query.partition("/")[0].partition(":")[2]
        host = rest.rfind("@") if port and not _PORT.fullmatch(port) else -1
    if host >= 0:
        user, colon, password = rest[:host].partition(":")
        port, slash, _ = password.partition("/")
        if colon and not (slash and _PORT.fullmatch(port)):
            rest = f"{_MASK if found['web'] else f'{user}:{_MASK}'}{rest[host:]}"
        elif not colon and found["web"] and "/" not in user:
            rest = f"{_MASK}{rest[host:]}"
    return f"{found['web'] or ''}://{_QUERY_KEY.sub(_MASK, rest)}"


def _mask_named_values(text: str) -> str:
    """Without what follows the name of a secret: name=value, 'name': value, name: value, ('name', value)."""
    parts: list[str] = []
    kept = at = 0
    while (found := _NAMED.search(text, at)) is not None:
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
    """Where a value ends that is written from here on: a literal, a call, a header's line, or anything without spaces."""
    if (opening := _OPENING.match(text, at)) is not None:
        return _end_of_quoted(text, opening)
    if to_line_end and (line := _LINE.match(text, at)) is not None:
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
            if (opening := _QUOTE.match(text, at)) is not None:
                at = _end_of_quoted(text, opening)
                continue
        elif char.isspace() or (char in "'\"\\" and ends_here) or (char in ",;&" and _NEXT.match(text, at + 1)):
            return at
        at += 1
    return at


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """Where a string ends that opens here, perhaps within another string, where its quotes have backslashes before them."""
    opened = len(opening["slashes"])
    for closing in _QUOTE.finditer(text, opening.end()):
        if closing["quote"] == opening["quote"]:
            slashes = len(closing["slashes"])
            if slashes < opened:
                return closing.start()
            if slashes == opened or (not opened and slashes % 2 == 0):
                return closing.end()
    return len(text)


def _truncate(text: str) -> str:
    return text if len(text) <= _READ else f"{text[:_READ]}..."


def shorten(text: str) -> str:
    """The beginning and the end of a text that is long."""
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
