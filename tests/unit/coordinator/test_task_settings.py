"""task.toml: what is refused before anything is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.rounds.task_settings import TaskSettings
from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.errors import UsageError
from nightshift.protocol.manifest import ModelDimensions
from nightshift.protocol.secagg.parameters import CohortParameters

SMALL = ModelDimensions(
    family="llama",
    layers=5,
    hidden=64,
    ffn=172,
    heads=8,
    kv_heads=4,
    head_dim=8,
    vocabulary=512,
    context=512,
    rope_theta=10_000.0,
    rms_eps=1e-5,
    tied_embeddings=True,
)


def settings(**sections: Any) -> TaskSettings:
    return TaskSettings.model_validate({"name": "task", "model": "model"} | sections)


@pytest.mark.parametrize(
    ("adapter", "ranks"),
    [
        ({}, (4, 8)),
        ({"rank": 16}, (4, 8, 16)),
        ({"rank": 64}, (4, 8, 16, 32, 64)),
        ({"rank": 12}, (6, 12)),
        ({"rank": 4}, (4,)),
        ({"rank": 2}, (2,)),
        ({"rank": 7}, (7,)),
        ({"rank": 16, "ranks": [16]}, (16,)),
        ({"rank": 16, "ranks": [1, 16]}, (1, 16)),
    ],
)
def test_cohorts_train_all_slots_or_so_many_as_small_devices_can(
    adapter: dict[str, Any], ranks: tuple[int, ...]
) -> None:
    assert settings(adapter=adapter).adapter.trained_ranks == ranks


def test_the_defaults_make_a_cohort() -> None:
    default = settings()
    parameters = CohortParameters.derive(
        n_max=default.cohort.n_max, value_bits=default.encoding.value_bits, committee_size=default.cohort.committee
    )
    assert parameters.values_per_coefficient >= 1
    assert default.cohort.pool_needed == 13
    layout = default.layout(SMALL)
    assert default.vector(layout, Side.B).delta_length == layout.vector_length(Side.B)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"name": "UPPER"}, "a-z"),
        ({"name": "a" * 65}, "1 to 64"),
        ({"name": "../etc"}, "a-z"),
        ({"adapter": {"targets": ["k_porj"]}}, "q_proj"),
        ({"adapter": {"targets": []}}, "choose from"),
        ({"adapter": {"method": "flora"}}, "alternate"),
        ({"adapter": {"alpha": float("nan")}}, "finite"),
        ({"adapter": {"seed": "ab"}}, "pattern"),
        ({"adapter": {"rank": 8, "ranks": [4, 16]}}, "largest of ranks must be the adapter's rank 8, got 16"),
        ({"adapter": {"rank": 8, "ranks": [4]}}, "largest of ranks must be the adapter's rank 8, got 4"),
        ({"adapter": {"rank": 8, "ranks": [8, 4]}}, "must ascend"),
        ({"adapter": {"rank": 8, "ranks": [4, 4, 8]}}, "must ascend"),
        ({"adapter": {"rank": 8, "ranks": [0, 8]}}, "must ascend from 1"),
        ({"training": {"steps": 0}}, "greater than or equal to 1"),
        ({"training": {"learning_rate": float("inf")}}, "finite"),
        ({"training": {"schedule": "linear"}}, "cosine"),
        ({"encoding": {"value_bits": 17}}, "16"),
        ({"encoding": {"noise_multiplier": 0.1}}, "adds no noise"),
        ({"encoding": {"value_clip": -1}}, "greater than"),
        ({"encoding": {"value_clip": 1e-10}}, "0 or at least 1e-09"),
        ({"encoding": {"value_clip": float("inf")}}, "finite"),
        ({"encoding": {"clip_norm": 0}}, "nothing says how large a value may be"),
        ({"cohort": {"n_min": 2}}, "3"),
        ({"cohort": {"n_min": 9, "n_max": 8}}, "larger than n_max"),
        ({"cohort": {"n_max": 513}}, "512"),
        ({"cohort": {"committee": 2}}, "greater than or equal to 3"),
        ({"cohort": {"committee_from": ["ab" * 32, "cd" * 32]}}, "names 2 devices"),
        ({"cohort": {"committee_from": ["kitchen", "attic", "cellar"]}}, "groups of 7"),
        ({"cohort": {"committee": 32}}, "less than or equal to 31"),
        ({"rounds": {"open": "sometimes"}}, "operator"),
        ({"rounds": {"answer_window_s": 14 * 86_400}}, "prekey lives at most"),
        ({"unknown": {}}, "Extra inputs"),
    ],
)
def test_what_could_not_be_carried_out_is_refused(sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        settings(**sections)


def test_a_rank_larger_than_a_projection_is_refused_with_the_task_named() -> None:
    with pytest.raises(UsageError, match=r"task task: rank 65 is larger than q_proj"):
        settings(adapter={"rank": 65}).layout(SMALL)


@pytest.mark.parametrize(
    ("cohort", "needed"),
    [
        ({}, 13),  # 1.3 times ten
        ({"n_min": 11}, 15),  # rounded up
        ({"n_min": 10, "n_max": 12}, 12),  # nobody waits for devices that would find no place
        ({"n_min": 3, "n_max": 3}, 3),
        ({"pool_min": 10}, 10),
        ({"pool_min": 4}, 10),  # fewer could never be enough
        ({"pool_min": 40}, 40),
    ],
)
def test_more_devices_must_be_there_than_must_contribute(cohort: dict[str, int], needed: int) -> None:
    assert settings(cohort=cohort).cohort.pool_needed == needed


def test_settings_survive_the_database() -> None:
    original = settings(adapter={"method": "ffa"}, cohort={"n_max": 6, "n_min": 3, "pool_min": 6})
    assert TaskSettings.model_validate_json(original.model_dump_json()) == original
