"""Settings are judged once, at the start, and what is secret in them is never repeated."""

from pathlib import Path

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
    reported = refusal(**{name: value})

    assert name in reported
    assert "hunter2" not in reported


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

    setting = getattr(settings, name)
    assert (setting if isinstance(setting, str) else setting.get_secret_value()) == value
    assert "word" not in repr(settings)


def test_a_file_of_settings_in_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".env").write_text(
        "# settings of this project\n"
        "NIGHTSHIFT_LEASE_S=17\nNIGHTSHIFT_MAX_ATTEMPTS=5\nNIGHTSHIFT_LOG_LEVEL=\n"
        "NIGHTSHIFT_REDIS_URL='redis://:word@h:1/0'\nOTHER=1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIGHTSHIFT_MAX_ATTEMPTS", "9")

    settings = Settings()

    assert settings.lease_s == 17
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:word@h:1/0"
    assert settings.max_attempts == 9, "the environment wins"
    assert settings.log_level == "INFO", "an empty value is none"


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_ROOTS", "/srv/photos, s3://bucket/photos,")
    monkeypatch.setenv("NIGHTSHIFT_IMAGE_NETWORKS", "10.1.0.0/16,fd12::/32")

    settings = Settings(_env_file=None)

    assert settings.image_roots == ("/srv/photos", "s3://bucket/photos")
    assert [str(network) for network in settings.image_networks] == ["10.1.0.0/16", "fd12::/32"]
    assert "not appear to be" in refusal(image_networks="10.1.0.0/16,nonsense")
