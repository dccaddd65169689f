"""No secret reaches a log, however a script writes it and wherever its output is cut."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from splitting import leaks

from distci.errors import Invalid
from distci.masking import MASK, Masker

QUICK = settings(max_examples=400, deadline=None)

SECRETS = {
    "word": "hunter2-sesame",
    "four characters": "a1B2",
    "all kinds of characters": 'p&ss w/rd?=%+"quoted"\\\t\'ä€😀',
    "no text": "\udcff\udcfe\x00\x01binary",
    "several lines": "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n",
    "lines of Windows": "first line\r\nsecond line\r\n",
    "longer than a line of base64": "".join(map(str, range(70))),
}
"""Secrets by what is special about them."""

every_secret = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)


def mask(secrets: Iterable[str], *pieces: bytes) -> bytes:
    """What a log has of a stream that comes in pieces."""
    masker = Masker(secrets)
    return b"".join(masker.feed(piece) for piece in pieces) + masker.flush()


def bytes_of(secret: str) -> bytes:
    return secret.encode(errors="surrogateescape")


# One secret


@every_secret
def test_a_secret_is_masked(secret: str) -> None:
    assert mask([secret], b"before " + bytes_of(secret) + b" after") == b"before " + MASK + b" after"


@every_secret
def test_a_secret_is_masked_wherever_the_stream_is_cut(secret: str) -> None:
    stream = b"before " + bytes_of(secret) + b" after"
    for cut in range(len(stream) + 1):
        assert mask([secret], stream[:cut], stream[cut:]) == b"before " + MASK + b" after"


@every_secret
def test_a_secret_that_comes_byte_by_byte_is_masked(secret: str) -> None:
    stream = b"before " + bytes_of(secret) + b" after"
    assert mask([secret], *(stream[at : at + 1] for at in range(len(stream)))) == b"before " + MASK + b" after"


@every_secret
def test_a_secret_is_masked_each_time_that_it_is_printed(secret: str) -> None:
    stream = bytes_of(secret) * 3 + b"," + bytes_of(secret)
    for cut in range(len(stream) + 1):
        assert mask([secret], stream[:cut], stream[cut:]) == MASK * 3 + b"," + MASK


def test_what_is_no_secret_passes_as_it_is() -> None:
    stream = bytes(range(256)) * 10
    assert mask(["hunter2-sesame"], stream[:1000], stream[1000:]) == stream


def test_without_secrets_all_passes_at_once() -> None:
    assert Masker([]).feed(b"hunter2") == b"hunter2"


def test_the_beginning_of_a_secret_is_kept_back_and_nothing_else() -> None:
    masker = Masker(["hunter2-sesame"])
    assert masker.feed(b"a line\nhunter") == b"a line\n"
    assert masker.feed(b"s go by\n") == b"hunters go by\n"
    assert masker.feed(b"hunter2") == b""
    assert masker.flush() == b"hunter2"


def test_a_masker_holds_no_more_than_one_secret() -> None:
    # Given an output that could begin a secret over and over
    masker = Masker(["a" * 1000 + "b"])
    printed = b"".join(masker.feed(b"a" * 100) for _ in range(100))
    assert len(printed) >= 9_000


# Written otherwise


@every_secret
@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:"])
@pytest.mark.parametrize("after", [b"", b"\n", b"@host"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_gives_nothing_away(secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]) -> None:
    # Given text around the secret, which shifts its letters
    coded = encode(before + bytes_of(secret) + after)
    # Then all letters that stand for nothing but the secret are masked
    first, last = -(-len(before) * 8 // 6), (len(before) + len(bytes_of(secret))) * 8 // 6
    # and where nothing follows, or a line's end as by `echo`, those at its end, too
    last = last if after.strip() else len(coded)
    assert mask([secret], coded) == coded[:first] + MASK + coded[last:]


@every_secret
@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines_gives_nothing_away(secret: str, width: int) -> None:
    coded = base64.b64encode(bytes_of(secret))
    lines = b"".join(coded[at : at + width] + b"\n" for at in range(0, len(coded), width))
    masked = mask([secret], lines)
    assert not [line for line in masked.split() if len(line.replace(MASK, b"").rstrip(b"=")) >= 4]


def test_a_secret_that_lost_its_last_newline_in_the_shell_is_masked_as_base64_too() -> None:
    # $(cat file) drops it
    assert mask(["sesame-open-now\n"], base64.b64encode(b"sesame-open-now")) == MASK


@every_secret
@pytest.mark.parametrize(
    "write",
    [
        lambda secret: quote(bytes_of(secret), safe=""),
        lambda secret: quote(bytes_of(secret)),
        lambda secret: quote_plus(bytes_of(secret)),
        lambda secret: urlencode({"": bytes_of(secret)})[1:],
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    ],
    ids=["URL", "path of a URL", "form", "query", "JSON in ASCII", "JSON in UTF-8"],
)
def test_what_urls_and_json_make_of_a_secret_is_masked(secret: str, write: Callable[[str], str]) -> None:
    written = bytes_of(write(secret))
    for cut in range(len(written) + 1):
        assert mask([secret], b"<" + written[:cut], written[cut:] + b">") == b"<" + MASK + b">"


def test_a_url_with_small_hexadecimal_digits_is_masked() -> None:
    assert mask(["s/me?th+ng"], b"https://me:s%2fme%3fth%2bng@host/") == b"https://me:" + MASK + b"@host/"


def test_every_line_of_a_secret_is_masked_alone() -> None:
    secret = SECRETS["several lines"]
    for line in secret.splitlines():
        assert mask([secret], f"| {line} |\n".encode()) == b"| " + MASK + b" |\n"


def test_a_short_line_of_a_secret_does_not_mask_ordinary_text() -> None:
    assert mask(["{\n  secret: 5577\n}\n"], b"{}\n") == b"{}\n"


def bash(script: str, secret: str) -> bytes:
    return subprocess.run(
        ["bash", "-c", script], env={"S": secret, "LC_ALL": "C.UTF-8"}, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "secret", ['it\'s 50% of $HOME, "so" \\ `to` say!', "tab\there, \x1b\x01 and ä", "a~b#c{d}*[e]?<f>|g;h&i(j)^"]
)
@pytest.mark.parametrize(
    "script",
    [
        'printf %q "$S"',
        'LC_ALL=C; printf %q "$S"',
        'printf %s "${S@Q}"',
        "declare -p S",
        "export -p | grep -z S=",
        'exec 2>&1; set -x; : "$S"',
        "exec sh -c 'exec 2>&1; set -x; : \"$S\"'",
        "exec sh -c 'export -p'",
    ],
)
def test_what_shells_make_of_a_secret_is_masked(secret: str, script: str) -> None:
    written = bash(script, secret)
    # Whatever of it is longer than a few letters, and is not the shell's own.
    rest = re.sub(
        rb"declare -x |export |\\+ |: |S=|PWD=.*|OLDPWD.*|SHLVL=.*|_=.*|LC_ALL=.*", b"", mask([secret], written)
    )
    assert MASK in rest
    assert len(rest.replace(MASK, b"").strip(b"$'\"\n\0 ")) < 4, (written, rest)


def test_what_is_cut_at_random_gives_nothing_away() -> None:
    # `tests/benchmarks/run masking` does the same a million times.
    assert [*leaks(10_000, seed=2)] == []


# Several secrets


def test_several_secrets_are_masked() -> None:
    assert mask(["first-one", "second-one"], b"first-one, second-one") == MASK + b", " + MASK


@pytest.mark.parametrize("secrets", [["token", "token-extended"], ["token-extended", "token"]])
def test_of_a_secret_that_begins_another_one_the_longer_is_masked(secrets: Sequence[str]) -> None:
    stream = b"token-extended, token-ext, token"
    for cut in range(len(stream) + 1):
        assert mask(secrets, stream[:cut], stream[cut:]) == MASK + b", " + MASK + b"-ext, " + MASK


@pytest.mark.parametrize("secrets", [["abcdef", "defghi"], ["defghi", "abcdef"]])
def test_of_secrets_that_overlap_no_end_is_left_over(secrets: Sequence[str]) -> None:
    stream = b"<abcdefghi>"
    for cut in range(len(stream) + 1):
        assert mask(secrets, stream[:cut], stream[cut:]) == b"<" + MASK + b">"


def test_a_secret_in_the_middle_of_another_one_does_not_uncover_it() -> None:
    stream = b"<abcdefghi>"
    for cut in range(len(stream) + 1):
        assert mask(["cdef", "abcdefghi"], stream[:cut], stream[cut:]) == b"<" + MASK + b">"


def test_a_secret_that_repeats_itself_is_masked_wherever_the_stream_is_cut() -> None:
    stream = b"<abaabaabaab>"
    for cut in range(len(stream) + 1):
        assert mask(["abaab"], stream[:cut], stream[cut:]) == b"<" + MASK + b">"


# Those that cannot be masked


@pytest.mark.parametrize("secret", ["", "a", "abc", "äöü"])
def test_a_secret_that_is_too_short_is_refused(secret: str) -> None:
    with pytest.raises(Invalid, match=f"{len(secret)} characters"):
        Masker(["long enough", secret])


def test_a_refused_secret_is_not_told() -> None:
    with pytest.raises(Invalid) as refused:
        Masker(["xyz"])
    assert "xyz" not in str(refused.value)


def test_a_secret_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(Invalid):
        Masker(["half a character: \ud800"])


# Whatever comes

# Few letters, so that secrets begin, end, contain and overlap one another and themselves.
_SECRETS = st.lists(st.text("ab\n", min_size=4, max_size=9), max_size=4)
_TEXTS = st.lists(st.sampled_from([b"a", b"b", b"\n", b"ab", b"aab", b"abba"]), max_size=30).map(b"".join)

# What no newline, space or other rewriting makes something else that a stream may well hold.
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n "), min_size=4, max_size=20)


@st.composite
def _streams(draw: st.DrawFn) -> tuple[Sequence[str], Sequence[bytes]]:
    """Secrets, and a stream in pieces that has many of them."""
    secrets = draw(_SECRETS)
    parts = st.one_of(_TEXTS, st.sampled_from([secret.encode() for secret in secrets] or [b""]))
    stream = b"".join(draw(st.lists(parts, max_size=6)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return secrets, [stream[begin:end] for begin, end in pairwise([0, *cuts, len(stream)])]


@QUICK
@given(_streams())
@example((["aaaa"], [b"aaaaaaaaaa", b"aa"]))
@example((["abab", "babaaa"], [b"abab", b"aaa"]))
def test_however_a_stream_is_cut_the_log_is_the_same_and_holds_no_secret(
    drawn: tuple[Sequence[str], Sequence[bytes]],
) -> None:
    secrets, pieces = drawn
    masked = mask(secrets, *pieces)
    assert masked == mask(secrets, b"".join(pieces))
    assert not [secret for secret in secrets if secret.encode() in masked]


@QUICK
@given(st.lists(_WORDS, max_size=3), st.lists(st.binary(max_size=30), max_size=5))
def test_what_holds_no_secret_passes_as_it_is_however_it_is_cut(
    secrets: Sequence[str], pieces: Sequence[bytes]
) -> None:
    stream = b"".join(pieces)
    assume(not [secret for secret in secrets if secret.encode() in stream])
    assert mask(secrets, *pieces) == stream
