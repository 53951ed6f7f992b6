from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.access import TOKEN_PREFIX, new_token
from app.domain.redaction import MOST, Redactor, is_ordinary, is_secret_name, secrets_of
from app.domain.secret_forms import HIDDEN

SECRET = "wJalrXUtnFEMI/K7MDENG"


def test_what_was_learned_is_hidden_everywhere() -> None:
    redactor = Redactor()
    assert redactor.text(f"the key {SECRET}") == f"the key {SECRET}"
    redactor.learn([SECRET, "line one of it\nline two of it"])
    event = {"event": f"refused {SECRET}", "path": ["a", {"deep": (SECRET, 5, None)}], "what": ValueError(SECRET)}
    assert SECRET not in str(redactor.fields(event))
    assert redactor.fields(event)["path"] == ["a", {"deep": [HIDDEN, 5, None]}]
    assert redactor.text("xx line two of it yy") == f"xx {HIDDEN} yy"


def test_a_secret_that_holds_another_is_hidden_whole() -> None:
    redactor = Redactor(["hidden", "hidden-and-more"])
    assert redactor.text("hidden-and-more hidden") == f"{HIDDEN} {HIDDEN}"


def test_what_is_too_short_to_be_one_is_left() -> None:
    redactor = Redactor(["a", "", "  "])
    assert redactor.text("a bad day") == "a bad day"


@pytest.mark.parametrize(
    "name",
    [
        "aws_secret_access_key", "aws_access_key_id", "sas_token", "account_key", "password", "DB_PASSWORD", "api_key",
        "Authorization", "service_account_key", "SECRET_KEY", "credentials", "connection_string", "cookie",
        "PREFECT_API_AUTH_STRING",
    ],
)  # fmt: skip
def test_fields_that_are_named_like_secrets_are_hidden(name: str) -> None:
    assert is_secret_name(name)
    assert Redactor().fields({name: "anything", "more": {name: {"deep": 1}}}) == {name: HIDDEN, "more": {name: HIDDEN}}
    assert Redactor().fields({name: None}) == {name: None}


@pytest.mark.parametrize("name", ["ingestion_id", "key", "path", "rows", "credential_names", "keys"])
def test_other_fields_are_left(name: str) -> None:
    assert Redactor().fields({name: "s3://bucket/key.json"}) == {name: "s3://bucket/key.json"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host/db", f"postgresql://me:{HIDDEN}@host/db"),
        ("https://x/y?sv=1&sig=abc%3D&se=2", f"https://x/y?sv=1&sig={HIDDEN}&se=2"),
        ("https://x/?X-Amz-Signature=abcdef0123", f"https://x/?X-Amz-Signature={HIDDEN}"),
        ("Authorization: Bearer abcdefghijkl.mno", f"Authorization: Bearer {HIDDEN}"),
        ("at 10:30 user@example.com wrote s3://b/a:b@c", "at 10:30 user@example.com wrote s3://b/a:b@c"),
    ],
)
def test_addresses_are_shown_without_what_opens_them(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


def test_what_is_too_deep_is_hidden() -> None:
    deep: object = SECRET
    for _ in range(1000):
        deep = {"a": deep}
    assert SECRET not in str(Redactor().value(deep))


def test_of_very_many_the_last_seen_are_known() -> None:
    redactor = Redactor([SECRET])
    for number in range(MOST):
        redactor.learn([f"other-{number:06d}", SECRET])
    assert redactor.text(f"{SECRET} other-{MOST - 1:06d} other-000000") == f"{HIDDEN} {HIDDEN} other-000000"


def test_a_token_of_the_service_is_hidden_wherever_it_stands() -> None:
    token = new_token()
    for text in (f"GET /api/v1/x?a={token}&b=1", f"token {token}", f"'{token}'", f"/{token}/files"):
        shown = Redactor().text(text)
        assert token not in shown
        assert token[len(TOKEN_PREFIX) :] not in shown
    assert Redactor().text("autoloader_home is set") == "autoloader_home is set"


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "address": lambda text: quote(text, safe=""),
    "part of an address": lambda text: quote(text, safe="/:@!$&'()*+,;="),
    "form": quote_plus,
    "address twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON": json.dumps,
    "JSON with letters": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "repr": repr,
    "repr with both quotes": lambda text: repr(f"\"{text}'"),
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "page": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 behind one": lambda text: base64.b64encode(f"a{text}b".encode()).decode(),
    "base64 behind two": lambda text: base64.b64encode(f"ab{text}c".encode()).decode(),
}
LATIN_1 = 'kqHead é"ü vjTail'


def test_it_is_hidden_in_base64_of_the_encoding_of_headers() -> None:
    shown = Redactor([LATIN_1]).text(f"sent {base64.b64encode(f'me:{LATIN_1}'.encode('latin-1')).decode()}")
    assert shown == f"sent {HIDDEN}"


ODD = st.text(st.sampled_from("aZ9\"'\\%&<>+/= \n\t\x7fé€\U0001f680"), min_size=1, max_size=12)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(middle=ODD)
def test_it_is_hidden_in_every_form(form: Callable[[str], str], middle: str) -> None:
    secret = f"kqHead{middle}vjTail"
    shown = Redactor([secret]).text(f"before <{form(secret)}> behind")
    assert shown.startswith("before <")
    assert shown.endswith("> behind")
    assert HIDDEN in shown
    assert "kqHead" not in shown
    assert "vjTail" not in shown


def test_what_is_secret_in_a_secret_is_hidden_by_itself() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"
    document = json.dumps({"client_email": "me@example.com", "private_key": key, "private_key_id": "0123456789"})
    redactor = Redactor([document, "sv=2024-01-01&sig=abc%2Bdef%3D&se=2030", "{no document", "{}"])
    shown = redactor.text(f"{key!r} MIIEvQIBADANBg 0123456789 me@example.com signed abc+def= abc%2bdef%3d")
    assert "MIIEvQIBADANBg" not in shown
    assert shown.endswith(f" {HIDDEN} {HIDDEN} me@example.com signed {HIDDEN} {HIDDEN}")


def test_of_an_environment_what_is_secret_is_known() -> None:
    environ = {
        "PREFECT_API_AUTH_STRING": "admin:pass",
        "SECRET_KEY": "a passphrase",
        "DATABASE_URL": "postgresql://me:p%40ss/w%25rd@host/db",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/key.json",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/run/token",
        "PREFECT_API_URL": "http://localhost:4200/api",
        "HOME": "/home/me",
    }
    found = set(filter(None, secrets_of(environ)))
    assert found == {"admin:pass", "pass", "a passphrase", "p%40ss/w%25rd", "p@ss/w%rd"}


def test_a_secret_that_somebody_cut_is_hidden() -> None:
    redactor = Redactor(["hidden-and-more", "another hidden"])
    assert redactor.text("It said hidden-and…") == f"It said {HIDDEN}…"
    assert redactor.text("It said hidden-an… and another hid… hidden-other…") == (
        f"It said {HIDDEN}… and {HIDDEN}… hidden-other…"
    )


@pytest.mark.parametrize(
    "value", ["", "abcde", "postgres", "Autoloader", "success", "running", "123456789", "localhost", "password"]
)
def test_what_stands_in_messages_by_chance_is_no_secret(value: str) -> None:
    assert is_ordinary(value)
    text = f"The run of {value} in postgresql://host/autoloader ended: success, 123456789 rows."
    assert Redactor([value]).text(text) == text


@pytest.mark.parametrize("value", ["abcdef", "postgres1", "1234567890", "minioadmin", "a_sentence", "pass word"])
def test_what_does_not_is_one(value: str) -> None:
    assert Redactor([value]).text(f"<{value}>") == f"<{HIDDEN}>"


def test_the_frame_of_a_key_is_left() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"
    shown = Redactor([key]).text("no -----BEGIN PRIVATE KEY----- before MIIEvQIBADANBg")
    assert shown == f"no -----BEGIN PRIVATE KEY----- before {HIDDEN}"


def random_text(number: int, length: int) -> str:
    return base64.b32encode(hashlib.sha256(str(number).encode()).digest()).decode().strip("=")[:length]


@pytest.mark.parametrize("length", [6, 7, 11, 12, 13, 19, 40])
def test_one_among_many_is_hidden_wherever_it_begins(length: int) -> None:
    redactor = Redactor(random_text(number, length) for number in range(300))
    for number in (0, 150, 299):
        for before in range(15):
            for behind in (0, 1, 9):
                text = random_text(number, length)
                for form in (text, base64.b64encode(text.encode()).decode().rstrip("=")):
                    shown = redactor.text("." * before + form + "." * behind)
                    assert shown == "." * before + HIDDEN + "." * behind, (number, before, form)


def test_those_that_begin_alike_do_not_hide_each_other() -> None:
    redactor = Redactor([f"the-same-beginning-of-{number}" for number in range(1_000, 1_100)])
    shown = redactor.text("the-same-beginning-of-1042 the-same-beginning-of-1099 the-same-beginning-of-2000")
    assert shown == f"{HIDDEN} {HIDDEN} the-same-beginning-of-2000"
