"""Settings are judged once, at the start, and what is secret in them is never repeated."""

import pytest
from pydantic import ValidationError

from nightshift.schema.settings import Settings


def refusal(**values: str) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "hunter2"),
        ("database_url", "mysql://u:hunter2@h/db"),
        ("database_url", "postgresql+psycopg2://u:x@h:hunter2/db"),
        ("redis_url", "hunter2"),
        ("redis_url", "http://:hunter2@h:1/0"),
        ("redis_url", "redis://:hunter2/x@h:1/0"),
        ("redis_url", "redis://:hunter2#x@h:1/0"),
        ("milvus_uri", "hunter2"),
        ("milvus_uri", "http://u:hunter2@h:1"),
        ("milvus_uri", "http://u:hunter2/x@h:1"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(name: str, value: str):
    told = refusal(**{name: value})

    assert name in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://h/db"),
        ("database_url", "postgresql+psycopg2://u:a%2Fb%40c@h:5432/db?sslmode=verify-full"),
        ("redis_url", "rediss://:word@h:6379/0?ssl_ca_certs=/etc/ca.pem"),
        ("redis_url", "unix://:word@/run/redis.sock?db=1"),
        ("milvus_uri", "https://h:19530"),
    ],
)
def test_addresses_with_tls_and_without_are_taken(name: str, value: str):
    settings = Settings(_env_file=None, **{name: value})

    found = getattr(settings, name)
    assert (found if isinstance(found, str) else found.get_secret_value()) == value
    assert "word" not in repr(settings)


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_ROOTS", "/srv/photos, s3://bucket/photos,")
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_NETWORKS", "10.1.0.0/16,fd12::/32")

    settings = Settings(_env_file=None)

    assert settings.image_roots == ("/srv/photos", "s3://bucket/photos")
    assert [str(network) for network in settings.image_networks] == ["10.1.0.0/16", "fd12::/32"]
    assert "not appear to be" in refusal(image_networks="10.1.0.0/16,nonsense")
