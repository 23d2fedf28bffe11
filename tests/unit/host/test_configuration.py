"""Who wins, where a value came from, and that nothing misspelt is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nightshift.host.configuration import Loaded, load, read_toml, validated
from nightshift.protocol.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Policy(_Section):
    """Limits of the test."""

    minimum_cohort: int = Field(default=10, ge=3)
    strict: bool = True


class Cache(_Section):
    """Another section."""

    quota_mb: int = Field(default=0, ge=0)
    label: str = "main"


class Settings(_Section):
    """The whole."""

    policy: Policy = Policy()
    cache: Cache = Cache()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(file: Path | None = None, environment: dict[str, str] | None = None, **overrides: object) -> Loaded[Settings]:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(Settings, file=file, environment=environment or {}, prefix="TEST_", overrides=dotted)


def test_defaults_where_nothing_is_said(file: Path) -> None:
    for loaded in (read(), read(file)):
        assert loaded.values == Settings()
        assert loaded.origins == {}


def test_flag_over_environment_over_file_over_default(file: Path) -> None:
    file.write_text("[policy]\nminimum_cohort = 20\n[cache]\nlabel = 'file'\nquota_mb = 1\n")
    environment = {"TEST_POLICY_MINIMUM_COHORT": "30", "TEST_CACHE_LABEL": "environment", "PATH": "/bin"}
    loaded = read(file, environment, policy__minimum_cohort=40)
    assert loaded.values.policy.minimum_cohort == 40
    assert loaded.values.cache == Cache(quota_mb=1, label="environment")
    assert loaded.values.policy.strict is True
    assert loaded.origins == {
        "policy.minimum_cohort": "command line",
        "cache.label": "environment TEST_CACHE_LABEL",
        "cache.quota_mb": str(file),
    }
    assert read(file, environment).values.policy.minimum_cohort == 30
    assert read(file).values.policy.minimum_cohort == 20


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("0", False), ("yes", True)])
def test_a_variable_is_text_that_means_a_value(text: str, value: bool) -> None:
    assert read(environment={"TEST_POLICY_STRICT": text}).values.policy.strict is value


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_POLICY_MINIMUM_COHORT", "17")
    assert load(Settings, prefix="TEST_").values.policy.minimum_cohort == 17


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[policy]\nminimum_cohrt = 20\n", "unknown key 'policy.minimum_cohrt' .*did you mean 'policy.minimum_cohort'"),
        ("[polcy]\nminimum_cohort = 20\n", "unknown key 'polcy.minimum_cohort' .*did you mean 'policy.minimum_cohort'"),
        ("minimum_cohort = 20\n", "unknown key 'minimum_cohort' .*did you mean 'policy.minimum_cohort'"),
        ("[policy.minimum_cohort]\nvalue = 20\n", "unknown key 'policy.minimum_cohort.value'"),
        ("policy = 20\n", "unknown key 'policy'"),
        ("[zzz]\nqqqqqqq = 1\n", "unknown key 'zzz.qqqqqqq' in"),
        ("[polcy]\n", "unknown key 'polcy'"),
        ("[policy.deeper]\n", "unknown key 'policy.deeper'"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(file: Path, content: str, match: str) -> None:
    file.write_text(content)
    with pytest.raises(UsageError, match=match) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_an_empty_section_says_nothing(file: Path) -> None:
    file.write_text("[policy]\n[cache]\n")
    assert read(file).values == Settings()


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="TEST_POLICY_MINIMUM_COHRT; did you mean 'TEST_POLICY_MINIMUM_COHORT'"):
        read(environment={"TEST_POLICY_MINIMUM_COHRT": "5"})
    with pytest.raises(UsageError, match=r"unknown variable TEST_ZZZ$"):
        read(environment={"TEST_ZZZ": "5"})
    read(environment={"OTHER_POLICY_MINIMUM_COHRT": "5", "TESTING": "1"})


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'policy\.minimum' on the command line"):
        read(policy__minimum=5)


def test_reserved_variables_mean_something_else() -> None:
    environment = {"TEST_DATA": "/x", "TEST_HOME": "/y", "TEST_CACHE_LABEL": "z"}
    # A generator, which can be read only once.
    reserved = (name for name in ("TEST_DATA", "TEST_HOME"))
    loaded = load(Settings, environment=environment, prefix="TEST_", reserved=reserved)
    assert loaded.values.cache.label == "z"
    with pytest.raises(UsageError, match="unknown variable"):
        load(Settings, environment=environment, prefix="TEST_", reserved=["TEST_DATA"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[policy]\nminimum_cohort = 2\n", "policy.minimum_cohort: must be greater than or equal to 3$"),
        ("[policy]\nminimum_cohort = 'many'\n", "policy.minimum_cohort: .*integer"),
        ("[policy]\nminimum_cohort = 5.5\n", "policy.minimum_cohort: .*integer"),
        ("[policy]\nminimum_cohort = [5]\n", "policy.minimum_cohort: .*integer"),
        ("[policy]\nstrict = 7\n[cache]\nquota_mb = -1\n", "policy.strict: .*; cache.quota_mb: "),
    ],
)
def test_a_value_out_of_range_is_named(file: Path, content: str, match: str) -> None:
    file.write_text(content)
    with pytest.raises(UsageError, match=match) as caught:
        read(file)
    assert str(caught.value).startswith(str(file))


def test_a_value_that_did_not_come_from_the_file_is_blamed_on_where_it_came_from(file: Path) -> None:
    file.write_text("[cache]\nquota_mb = -1\n")
    with pytest.raises(UsageError) as caught:
        read(file, {"TEST_POLICY_MINIMUM_COHORT": "2"})
    problems = str(caught.value).removeprefix(f"{file}: ").split("; ")
    assert sorted(problems) == [
        "cache.quota_mb: must be greater than or equal to 0",
        "policy.minimum_cohort (environment TEST_POLICY_MINIMUM_COHORT): must be greater than or equal to 3",
    ]


class Range(_Section):
    """What needs words of its own."""

    lowest: int
    highest: int = 10

    @field_validator("highest")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd; give an even number")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.lowest > self.highest:
            raise ValueError("lowest is above highest")
        return self


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"lowest": 1, "highest": 3}, "a range: highest: 3 is odd; give an even number"),
        ({"lowest": 12}, "a range: lowest is above highest"),
        ({}, "a range: lowest: is missing"),
    ],
)
def test_a_sentence_of_ours_stands_as_it_was_written(data: dict[str, int], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        validated(Range, data, "a range")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "content",
    [b"[policy\n", b"policy.minimum_cohort = \n", b"\xff\xfe", b"a = 1\na = 2\n", b"minimum_cohort 20\n", b"\0"],
)
def test_a_file_that_is_no_toml_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match="could not be read as TOML") as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="could not be read"):
        read(tmp_path)


def test_a_file_that_must_be_there(file: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_toml(file)
    file.write_text("[a]\nb = 1\n")
    assert read_toml(file) == {"a": {"b": 1}}


def test_data_from_elsewhere_is_validated_with_the_same_sentences() -> None:
    assert validated(Settings, {"cache": {"label": "x"}}, "task.toml").cache.label == "x"
    with pytest.raises(UsageError, match=r"^task.toml: cache.lable: .*did you mean 'cache.label'"):
        validated(Settings, {"cache": {"lable": "x"}}, "task.toml")
