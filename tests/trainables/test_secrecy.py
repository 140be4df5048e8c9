"""Secrets are cut out of texts, and nothing else is."""

import sys

import pytest

from trainables.errors import BadInput, NoMatchingLayer
from trainables.secrecy import command_line, shown, without_secrets, without_user


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://study:s3cretPW@host:5000/x: no", "at http://study:***@host:5000/x: no"),
        ("postgresql+psycopg2://u:p@ss/w:d#?1@db/x", "postgresql+psycopg2://u:***@db/x"),
        ("redis://:pw@host", "redis://:***@host"),
        ("s3://KEY:SECRET@bucket/studies", "s3://KEY:***@bucket/studies"),
        ("http://a:1@b,http://c:2@d 'x://e:3@f'", "http://a:***@b,http://c:***@d 'x://e:***@f'"),
        ("https://ghp_0123@host/x", "https://***@host/x"),
        ("https://h/f?X-Amz-Signature=ab&part=1", "https://h/f?X-Amz-Signature=***&part=1"),
        ("?a=1&access_key=2&sig=3&sv=4", "?a=1&access_key=***&sig=***&sv=4"),
        ("'https://h/f?token=ab'", "'https://h/f?token=***'"),
        ("mssql:///?odbc_connect=D%3D1%3BPWD%3Dx", "mssql:///?odbc_connect=***"),
        ("odbc_connect=DRIVER={x y};PWD=pw;", "odbc_connect=DRIVER={x y};PWD=***;"),
        ("Authorization: Basic c3R1ZHk6czNjcmV0UFc=", "Authorization: Basic ***"),
        ("http://tok#en@host: no", "http://***@host: no"),
        ("https://h/f?auth=ab&sv=1", "https://h/f?auth=***&sv=1"),
        ("https://h/f?sas=ab&sv=1&sig=c", "https://h/f?sas=***&sv=1&sig=***"),
        ("https://h/f?code=ab&auth_code=b", "https://h/f?code=***&auth_code=***"),
        ("https://h/f#access_token=ab", "https://h/f#access_token=***"),
        ("?accountKey=1&apikey=2&sslpassword=3", "?accountKey=***&apikey=***&sslpassword=***"),
        ("postgresql://u:9/pw@db/x", "postgresql://u:***@db/x"),
        ("postgresql+psycopg2://u:12/3/pw@db:5/x?a=b", "postgresql+psycopg2://u:***@db:5/x?a=b"),
        ("s3://KEY:7/SECRET@bucket/x", "s3://KEY:***@bucket/x"),
        ("postgresql://u@h/db?pass%77ord=pw", "postgresql://u@h/db?pass%77ord=***"),
        ("?api%5Fkey=1&x-functions-key=2", "?api%5Fkey=***&x-functions-key=***"),
    ],
)
def test_what_is_a_secret_by_its_place_is_cut(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////studies/a:b@c/mlflow.db",
        "postgresql://mlflow@db/mlflow",
        "http://127.0.0.1:5000/#/experiments/1, by a@b.org",
        "s3://bucket/studies and hub:ORG/NAME@main",
        "RuntimeError: basic information: key=1, token=2",
        "python -m study.launch --space layernorm_vs_lora --under 'memory<8GiB'",
        "file /data/a?monkey=3",
        "http://host:5000/#/experiments/1/runs?viewStateShareKey=5eed&compareRunsMode=CHART",
        "http://h/f?keyboard=1&turkey=2&bypass=3&author=4&error_code=404&zipcode=5&tokens=6",
        "http://h?mail=a@b.org",
        "https://h/f#b@c and https://h/f?b@c",
    ],
)
def test_anything_else_is_left(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN"),
        *("RAY_AUTH_TOKEN", "PGPASSWORD", "MYSQL_PWD", "SMTP_PASS", "AZURE_CLIENT_SECRET"),
        *("OPENAI_API_KEY", "AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_the_value_of_a_secret_variable_is_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a+b/c d=e")
    said = "refused: a+b/c d=e, a%2Bb%2Fc%20d%3De"
    assert without_secrets(said) == "refused: ***, ***"
    monkeypatch.setenv(name, "study")
    assert without_secrets("study.json") == "study.json", "it may be a word of any text"


def test_the_value_of_another_variable_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PWD", "AWS_ACCESS_KEY_ID", "TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH"):
        monkeypatch.setenv(name, "/some/where")
    assert without_secrets("in /some/where") == "in /some/where"


def test_a_password_is_known_from_an_address_that_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--tracking-uri", "http://u:in%20argv%21@host"])
    monkeypatch.setenv("HTTPS_PROXY", "http://u:in-a-proxy@host")
    assert without_secrets("in%20argv%21; in argv!; in-a-proxy") == "***; ***; ***"


def test_a_command_is_kept_without_secrets() -> None:
    given = ["--name", "a b", "--tracking-uri", "postgresql://u:it's 1@db", "--x=http://h?pwd=a'b"]
    kept = "--name 'a b' --tracking-uri 'postgresql://u:***@db' '--x=http://h?pwd=***'"
    assert command_line("study.launch", given) == f"python -m study.launch {kept}"
    given = ["--tracking-uri=postgresql://u:ab://pw@h/db"]
    kept = "'--tracking-uri=postgresql://u:***@h/db'"
    assert command_line("study.launch", given) == f"python -m study.launch {kept}"


def test_bad_input_never_says_a_secret() -> None:
    assert str(BadInput("http://u:p@h is gone")) == "http://u:***@h is gone"
    assert str(NoMatchingLayer("http://u:p@h", lacks="x")) == "http://u:***@h"


def test_an_address_for_a_browser() -> None:
    assert without_user("http://u:p%40@[::1]:5000/a?b#c") == "http://[::1]:5000/a?b#c"
    assert without_user("http://host") == "http://host"


def test_a_user_may_be_an_address_of_mail() -> None:
    said = without_secrets("no server at http://me@example.org:hunter2@127.0.0.1:1: refused")
    assert said == "no server at http://me@example.org:***@127.0.0.1:1: refused"


@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        ("user:hunter2@localhost:5000", "user:***@localhost:5000"),
        ("//user:hunter2@localhost", "//user:***@localhost"),
        ("http:/user:hunter2@localhost", "http:/user:***@localhost"),
        ("mysql:/u:hunter2zz@127.0.0.1:1/db", "mysql:/u:***@127.0.0.1:1/db"),
        ("postgresql:u:hunter2zz@127.0.0.1:1/db", "postgresql:u:***@127.0.0.1:1/db"),
        ("http://user:my pw@127.0.0.1:1", "http://user:***@127.0.0.1:1"),
        ("http//user:hunter2@localhost", "http//user:***@localhost"),
        ("http://user:hunter2", "http://user:***"),
        ("http://user:hunter2%40localhost:5000", "http://user:***"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("http://localhost:5000/team@site", "http://localhost:5000/team@site"),
    ],
)
def test_an_address_that_is_refused_is_quoted_without_its_password(
    address: str, quoted: str
) -> None:
    assert shown(address) == quoted


@pytest.mark.parametrize(
    "text",
    [
        "it shows a basic electrocardiogram and",
        "Basic Electrocardiogram",
        "no server at http://localhost:5000/team@site",
        "jsonl: http://h:80/a@2x.png",
    ],
)
def test_a_text_without_secrets_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_a_header_that_lets_in_is_cut() -> None:
    assert without_secrets("Basic c3R1ZHk6czNjcmV0UFc=") == "Basic ***"
