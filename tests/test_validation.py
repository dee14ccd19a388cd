"""Errors of settings are said in our words: the key, what was expected, what was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError
from inkbatch.launch.base import EngineSettings
from inkbatch.models.contract import Contract
from inkbatch.steps.dataset.settings import BuildDatasetConfig
from inkbatch.steps.ensemble.job import EnsembleConfig
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.steps.round.settings import RoundConfig
from inkbatch.steps.sweep.settings import SweepConfig
from inkbatch.training.settings import TrainConfig
from inkbatch.validation import in_words

FOREIGN = re.compile(r"Input should|Value error|[Ff]ield required|\bvalid\b|unable to|Unable|function-|mapping of \d")
ODD = ("x!", "1.5", -7, 1e300, float("nan"), True, None, [], [1], ["a", "b"], [{"a": 1}], list(range(10)), {}, {"a": 1})
CONTRACT = {"layers": {"count": 5}, "dtype": "uint8", "voxel_size_um": 8.0, "tile_px": 64, "stride_px": 32}
MODELS = (BuildDatasetConfig, EnsembleConfig, PrepareConfig, RoundConfig, SweepConfig, TrainConfig)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Cage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    door: str = "oak"


class Zoo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    keeper: str = "Ann"
    size: int = Field(1, ge=1)
    weights: tuple[float, ...] = Field((), max_length=2)
    reach: float | str = 1.0
    animal: Annotated[Cat | Dog, Field(discriminator="kind")] = Dog(kind="dog")
    named: Cat | str = "Tom"
    cages: dict[str, Cage] = {}
    tour: tuple[Cage, ...] = ()
    spare: Cage | None = None
    old: dict[str, list[Cage]] | None = None

    @model_validator(mode="after")
    def _small(self) -> Zoo:
        if self.size > 9:
            raise ValueError("size: a zoo of ten is too large; take fewer")
        if self.keeper == "nobody":
            raise ValueError("expected a keeper, got nobody")
        return self


def said(values: object, **how: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Zoo.model_validate(values)
    return in_words(caught.value, values, model=Zoo, **how)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": "few"}, "size: expected a whole number, got 'few'"),
        ({"size": 0}, "size: expected 1 or more, got 0"),
        ({"weights": [1, 2, 3]}, "weights: expected 2 at most, got 3"),
        ({"weights": ["a"]}, "weights.0: expected a number, got 'a'"),
        ({"reach": [1]}, "reach: expected a number or text, got [1]"),
        ({"animal": {"kind": "cow"}}, "animal: expected 'cat', 'dog', got 'cow'"),
        ({"animal": {}}, "'animal.kind' is required and not given"),
        ({"animal": {"kind": "cat"}}, "'animal.lives' is required and not given"),
        ({"named": 3}, "named: expected keys with values or text, got 3"),
        ({"sise": 3}, "unknown key 'sise'; did you mean 'size'?"),
        ({"spare": {"dor": "a"}}, "unknown key 'spare.dor'; did you mean 'door'?"),
        ({"cages": {"door": {"dor": "a"}}}, "unknown key 'cages.door.dor'; did you mean 'door'?"),
        ({"tour": [{}, {"dor": "a"}]}, "unknown key 'tour.1.dor'; did you mean 'door'?"),
        ({"old": {"a": [{"dor": "a"}]}}, "unknown key 'old.a.0.dor'; did you mean 'door'?"),
        ({"keeper": {"name": "Ann"}}, "keeper: expected text, got {…}"),
        ({"size": 10}, "size: a zoo of ten is too large; take fewer"),
        ({"keeper": "nobody"}, "expected a keeper, got nobody"),
        ([1], "all of it: expected keys with values, got [1]"),
    ],
)
def test_each_kind_of_error_names_key_expectation_and_finding(values, words):
    assert said(values) == words


def test_a_key_that_the_command_line_calls_otherwise_is_followed_by_that_word():
    assert said({"weights": "a"}, spelled={"weights": "--weight"}) == "weights (--weight): expected a list, got 'a'"
    assert said({"size": "a"}, spelled={"size": "--size"}) == "size: expected a whole number, got 'a'"


def test_many_errors_are_counted():
    assert said({"size": "a", "keeper": 1, "weights": 2}, most=1).endswith("; and 2 more")


def odd_settings() -> Iterator[tuple[type[JobConfig], dict[str, object]]]:
    for model in (*MODELS, *EngineSettings.__subclasses__()):
        yield from ((model, {key: value}) for key in model.model_fields for value in ODD)


def test_no_setting_of_any_kind_is_refused_in_the_words_of_pydantic():
    foreign, refused = [], 0
    for model, values in odd_settings():
        try:
            model.checked(values, "here")
        except ConfigError as error:
            refused += 1
            foreign += [str(error)] if FOREIGN.search(str(error)) else []
    assert refused > 500
    assert foreign == []


def test_no_value_of_a_contract_is_refused_in_the_words_of_pydantic():
    contract = Contract.model_validate(CONTRACT)
    foreign = []
    for key in Contract.model_fields:
        for value in ODD:
            try:
                contract.overridden({key: value})
            except ConfigError as error:
                foreign += [str(error)] if FOREIGN.search(str(error)) else []
    assert foreign == []
