"""Streams that hold secrets in every form, cut at random: what a log must never show, whatever the cuts."""

from __future__ import annotations

import base64
import json
import random
import shlex
import string
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote, quote_plus

from distci.masking import Masker

LETTERS = string.ascii_letters + string.digits + "+/=&%$'\"\\-_ äß€"
CUTS_A_STREAM = 200
PIECES_MAX = 8
TELLING = 16
"""Bytes from which on what is left without both ends is no chance."""
NOISE = (b"\n", b" ", b"=", b"ordinary text\n", b"\xff\x00", b"aGk=", b"%2", b"\\u00", b"'\\''")

WAYS: Sequence[Callable[[str], bytes]] = (
    str.encode,
    lambda secret: secret.splitlines()[-1].encode(),
    lambda secret: quote(secret, safe="").encode(),
    lambda secret: quote_plus(secret).encode(),
    lambda secret: json.dumps(secret)[1:-1].encode(),
    lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
    lambda secret: shlex.quote(secret).encode(),
    lambda secret: secret.replace("'", "'\\''").encode(),
    *(
        # The same letters whatever stands before and after: the others belong to neighbours, too.
        lambda secret, shift=shift: base64.b64encode(
            b"." * shift + secret.encode() + b"." * (-(shift + len(secret.encode())) % 3)
        )
        for shift in range(3)
    ),
)
"""How scripts write a secret; none of it is made by what masks."""


def new_secrets(count: int, chance: random.Random) -> list[str]:
    """Of different lengths, one of them of several lines, as keys are."""
    made = [
        "".join(chance.choices(LETTERS, k=chance.choice((8, 12, 24, 40, 64)))).strip().ljust(8, "x")
        for _ in range(count - 1)
    ]
    lines = ["".join(chance.choices(string.ascii_letters + string.digits + "+/", k=64)) for _ in range(25)]
    return [*made, "\n".join(("-----BEGIN KEY-----", *lines, "-----END KEY-----", ""))]


def leaks(splits: int, seed: int) -> Iterator[str]:
    """What was seen of secrets in so many streams cut at random; or where the cut has changed what is printed."""
    chance = random.Random(seed)
    secrets = new_secrets(12, chance)
    done = 0
    while done < splits:
        few = chance.sample(secrets, 4)
        masker = Masker(few)
        printed = [(secret, chance.choice(WAYS)(secret)) for secret in chance.choices(few, k=3)]
        stream = b"".join(chance.choice(NOISE) + text for _, text in printed) + chance.choice(NOISE)
        whole = masked(masker, [stream])
        for secret, text in printed:
            # Without the letters at the ends, which neighbours share.
            if secret.encode() in whole or (len(text) >= TELLING and text[4:-4] in whole):
                yield f"{text!r} of {secret!r} is in {whole!r}"
        for _ in range(min(CUTS_A_STREAM, splits - done)):
            cuts = sorted(chance.choices(range(len(stream) + 1), k=chance.randint(1, PIECES_MAX - 1)))
            pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
            if masked(masker, pieces) != whole:
                yield f"cut at {cuts}, {stream!r} is another"
            done += 1


def masked(masker: Masker, pieces: Sequence[bytes]) -> bytes:
    """What a log has of them. Flushed, a masker is as new; to make one takes longer than to use it."""
    return b"".join(map(masker.feed, pieces)) + masker.flush()
